"""Counts true positives, false positives and false negatives of label sequences in which a label may repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from s5.labels import SILENCE


class Counts(NamedTuple):
    """Numbers of true positives, false positives and false negatives, Eq. (6), CA-PI-SDR."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def total(self) -> int:
        """TP + FP + FN (Eq. (7), CA-PI-SDR)."""
        return self.tp + self.fp + self.fn

    @property
    def correct(self) -> bool:
        """Whether every label is right, including repeated ones; true if both sides are silent."""
        return self.fp == self.fn == 0

    @classmethod
    def sum(cls, counts: Iterable[Counts]) -> Counts:
        """Sums several counts."""
        return cls(*map(sum, zip(*counts, strict=True)))


def active(labels: Iterable[str]) -> list[str]:
    """The labels without ``silence``, in order.

    Example:
        >>> active(["Speech", "silence", "Speech"])
        ['Speech', 'Speech']
    """
    return [label for label in labels if label != SILENCE]


def label_counts_by_class(est_labels: Sequence[str], ref_labels: Sequence[str]) -> dict[str, Counts]:
    """Counts of each class that occurs on either side, as multi-sets; silence is ignored (Eq. (6), CA-PI-SDR).

        TP = min(n_est, n_ref), FP = max(n_est - n_ref, 0), FN = max(n_ref - n_est, 0)

    Example:
        >>> label_counts_by_class(["Speech", "Speech", "Dishes"], ["Speech", "silence"])
        {'Dishes': Counts(tp=0, fp=1, fn=0), 'Speech': Counts(tp=1, fp=1, fn=0)}
    """
    est, ref = Counter(active(est_labels)), Counter(active(ref_labels))
    return {
        label: Counts(min(est[label], ref[label]), max(est[label] - ref[label], 0), max(ref[label] - est[label], 0))
        for label in sorted(est | ref)
    }


def label_counts(est_labels: Sequence[str], ref_labels: Sequence[str]) -> Counts:
    """Sums of TP, FP and FN over all classes of one mixture.

    Example:
        >>> label_counts(["Speech", "Speech", "silence"], ["Speech", "Cough", "Speech"])
        Counts(tp=2, fp=0, fn=1)
    """
    return Counts.sum(label_counts_by_class(est_labels, ref_labels).values())
