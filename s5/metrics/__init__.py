"""Computes the metrics of the task: SDR and SDRi, class-aware SDRi, label accuracies, and their means over a test set.

All functions take numpy arrays and lists of labels; ``s5.inference.scoring`` reads the files.
"""

from s5.metrics.bootstrap import Bootstrap, Difference
from s5.metrics.bounds import BOUNDS, best_gain, bound_estimates, ideal_mask, score_bounds
from s5.metrics.class_aware import Matching, Pair, ca_sdri, capi_sdri, match, pi_sdri
from s5.metrics.confusion import confusion_matrix
from s5.metrics.labels import Counts, active, label_counts, label_counts_by_class
from s5.metrics.scorer import Scorer, score_mixture
from s5.metrics.sdr import pairwise_sdr, sdr, sdri
from s5.metrics.terms import class_terms, mixture_terms

__all__ = [
    "BOUNDS",
    "Bootstrap",
    "Counts",
    "Difference",
    "Matching",
    "Pair",
    "Scorer",
    "active",
    "best_gain",
    "bound_estimates",
    "ca_sdri",
    "capi_sdri",
    "class_terms",
    "confusion_matrix",
    "ideal_mask",
    "label_counts",
    "label_counts_by_class",
    "match",
    "mixture_terms",
    "pairwise_sdr",
    "pi_sdri",
    "score_bounds",
    "score_mixture",
    "sdr",
    "sdri",
]
