"""Validation figures of taggers, exact for any batch size and number of processes.

A share of all sources of a set is not the average of its batches' shares, but it is the quotient of two averages. Each
batch therefore reports mean counts per mixture, which ESPnet averages over the batches. At the end of an epoch
:func:`figures` divides them. The values equal those of ``s5.metrics.Scorer``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

SUBSETS = ("", "_dup", "_nodup")
"""Suffixes of all mixtures, of DupSet (a class repeats) and of NoDupSet (at least one source, no class repeats)."""
QUOTIENTS = {
    "accuracy_src": ("tp", "tp", "fp", "fn"),
    "accuracy_mix": ("right", "n"),
    "acc2": ("recall", "n_active"),
    "acc3": ("ratio", "n"),
}
"""Figures of each subset, 0 to 1: the first count over the sum of the others.

* accuracy_src: TP / (TP + FP + FN) over all sources (Nguyen et al.).
* accuracy_mix: share of mixtures with all labels right (Nguyen et al.; Acc1 of Park et al.).
* acc2: macro-averaged accuracy of Park et al.: mean recall of the mixtures that have a source.
* acc3: FP-penalised accuracy of Park et al., Eq. (1): mean of TP / (TP + FN + FP), 1 for a mixture rightly left empty.
"""
FIGURES = tuple(name + subset for subset in SUBSETS for name in QUOTIENTS)


def batch_counts(predicted: Tensor, label_index: Tensor, n_labels: int) -> dict[str, Tensor]:
    """Means over a batch of the counts that :func:`figures` needs. Labels are compared as multi-sets.

    Args:
        predicted: class indices [B, any number], C for silence.
        label_index: class indices [B, K], C for silence.
        n_labels: C.
    """
    counts, truth = _histogram(predicted, n_labels), _histogram(label_index, n_labels)
    tp = torch.minimum(counts, truth).sum(-1).float()
    fp, fn = counts.sum(-1) - tp, truth.sum(-1) - tp
    by_mixture = {
        "n": torch.ones_like(tp),
        "n_active": (truth.sum(-1) > 0).float(),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "right": (fp + fn == 0).float(),
        "recall": tp / (tp + fn).clamp(min=1),
        "ratio": torch.where(tp + fp + fn > 0, tp / (tp + fp + fn).clamp(min=1), torch.ones_like(tp)),
    }
    return {
        name + subset: (value * member).mean()
        for subset, member in members(label_index, n_labels).items()
        for name, value in by_mixture.items()
    }


def members(label_index: Tensor, n_labels: int) -> dict[str, Tensor]:
    """1 for the mixtures of each of :data:`SUBSETS`, else 0 [B], from class indices [B, K], C for silence."""
    truth = _histogram(label_index, n_labels)
    active, repeats = truth.sum(-1) > 0, (truth > 1).any(-1)
    found = (torch.ones_like(active), repeats, active & ~repeats)
    return {subset: member.float() for subset, member in zip(SUBSETS, found, strict=True)}


def figures(averages: Mapping[str, float]) -> dict[str, float]:
    """:data:`FIGURES` from the averages of :func:`batch_counts` over a set; those of an empty subset are left out.

    Example:
        >>> counts = batch_counts(torch.tensor([[0, 1, 2], [0, 2, 2]]), torch.tensor([[0, 0, 2], [0, 2, 2]]), 2)
        >>> found = figures({name: value.item() for name, value in counts.items()})
        >>> [round(found[name], 3) for name in ("accuracy_src", "accuracy_mix", "acc2", "acc3", "acc3_dup")]
        [0.5, 0.5, 0.75, 0.667, 0.333]
    """
    found = {}
    for subset in SUBSETS:
        for name, (above, *below) in QUOTIENTS.items():
            total = sum(averages[count + subset] for count in below)
            if total:
                found[name + subset] = averages[above + subset] / total
    return found


def _histogram(index: Tensor, n_labels: int) -> Tensor:
    """Number of occurrences of each class [B, C] in class indices [B, any number]."""
    return F.one_hot(index, n_labels + 1).sum(1)[:, :n_labels]
