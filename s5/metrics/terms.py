"""Expresses every figure of a test set as a quotient of two sums over mixtures.

So means over mixtures, means over sources and accuracies have one form: a numerator and a denominator for each mixture.
Sums over the test set yield the figure, sums over resampled sets its interval (:mod:`s5.metrics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from s5.metrics.class_aware import repeats
from s5.metrics.labels import Counts, label_counts_by_class

Row = dict[str, Any]
"""Scores of one mixture, see :func:`s5.metrics.score_mixture`."""

Quotient = tuple[float, float]

Item = TypeVar("Item")

COUNT_METRICS = ("accuracy_src", "precision", "recall")
METRICS = ("CAPI-SDRi", "CA-SDRi", "PI-SDRi", "SDRi", "accuracy_mix", "Acc1", "Acc2", "Acc3", *COUNT_METRICS)
"""Figures of a set of mixtures; :func:`s5.metrics.scorer.summarise` defines them."""
CLASS_METRICS = ("CAPI-SDRi", "SDRi", *COUNT_METRICS)
"""Figures of one class."""
SOURCE_METRICS = ("SDRi", "recall")
"""Figures of a selection of reference sources, to which no false alarm belongs."""


@dataclass(frozen=True)
class PartialSums:
    """Numerators and denominators of some figures.

    Attributes:
        names: names of the figures [m].
        numerator: [mixtures, m]; percentages include the factor 100.
        denominator: [mixtures, m]; 0 if a mixture does not count.
    """

    names: tuple[str, ...]
    numerator: np.ndarray
    denominator: np.ndarray

    def values(self) -> dict[str, float | None]:
        """Figures over all mixtures; None if nothing counts."""
        sums = zip(self.names, self.numerator.sum(axis=0), self.denominator.sum(axis=0), strict=True)
        return {name: float(top / bottom) if bottom else None for name, top, bottom in sums}


def mixture_terms(rows: Iterable[Row]) -> PartialSums:
    """Terms of :data:`METRICS`, by mixture. CA-SDRi is undefined for a set in which references repeat a label.

        figure = sum of numerators / sum of denominators, e.g. accuracy_src = sum of TP / sum of (TP + FP + FN)

    Example:
        >>> row = {"ref_labels": ["Cough"], "CAPI-SDRi": 10.0, "PI-SDRi": 10.0, "tp": 1, "fp": 0, "fn": 0}
        >>> mixture_terms([{**row, "pairs": [{"sdri": 10.0}]}]).values()["CAPI-SDRi"]
        10.0
    """
    rows = list(rows)
    terms = _terms(METRICS, rows, _of_mixture)
    if any(repeats(row["ref_labels"]) for row in rows):
        for part in (terms.numerator, terms.denominator):
            part[:, METRICS.index("CA-SDRi")] = 0
    return terms


def class_terms(rows: Iterable[Row], label: str, penalty_fn: float = 0.0, penalty_fp: float = 0.0) -> PartialSums:
    """Terms of :data:`CLASS_METRICS` for one class, by mixture. Its CAPI-SDRi is P of Eq. (10) over N of Eq. (7).

    Args:
        rows: mixtures.
        label: the class.
        penalty_fn: value of a missed source in dB.
        penalty_fp: value of a false source in dB.

    Example:
        >>> row = {"ref_labels": ["Cough", "Pour"], "est_labels": ["Cough"], "pairs": [{"label": "Cough", "sdri": 9.0}]}
        >>> class_terms([row], "Cough").values()["SDRi"], class_terms([row], "Pour").values()["recall"]
        (9.0, 0.0)
    """

    def of_class(row: Row) -> list[Quotient]:
        counts = label_counts_by_class(row["est_labels"], row["ref_labels"]).get(label, Counts())
        gain = sum(pair["sdri"] for pair in row["pairs"] if pair["label"] == label)
        penalty = counts.fn * penalty_fn + counts.fp * penalty_fp
        return [(gain + penalty, counts.total), (gain, counts.tp), *_of_counts(counts)]

    return _terms(CLASS_METRICS, rows, of_class)


def source_terms(rows: Iterable[Row], slots: Iterable[Collection[int]]) -> PartialSums:
    """Terms of :data:`SOURCE_METRICS` for a selection of references, by mixture.

    Args:
        rows: mixtures.
        slots: slots of the references that count in each mixture.
    """

    def of_sources(row_and_slots: tuple[Row, Collection[int]]) -> list[Quotient]:
        row, chosen = row_and_slots
        found = [pair["sdri"] for pair in row["pairs"] if pair["ref"] in chosen]
        return [(sum(found), len(found)), (100.0 * len(found), len(chosen))]

    return _terms(SOURCE_METRICS, zip(rows, slots, strict=True), of_sources)


def counts_of(row: Mapping[str, Any]) -> Counts:
    """Counts of one mixture."""
    return Counts(row["tp"], row["fp"], row["fn"])


def _of_mixture(row: Row) -> list[Quotient]:
    counts, gains = counts_of(row), [pair["sdri"] for pair in row["pairs"]]
    n_sources = counts.tp + counts.fn
    correct = (100.0 * counts.correct, 1)
    return [
        _mean_of(row["CAPI-SDRi"]),
        _mean_of(row.get("CA-SDRi")),
        _mean_of(row["PI-SDRi"]),
        (sum(gains), len(gains)),
        correct,
        correct,
        (100.0 * counts.tp / n_sources, 1) if n_sources else (0.0, 0),
        (100.0 * counts.tp / counts.total if counts.total else 100.0, 1),
        *_of_counts(counts),
    ]


def _of_counts(counts: Counts) -> list[Quotient]:
    """Quotients of :data:`COUNT_METRICS`."""
    right = 100.0 * counts.tp
    return [(right, counts.total), (right, counts.tp + counts.fp), (right, counts.tp + counts.fn)]


def _mean_of(value: float | None) -> Quotient:
    return (0.0, 0) if value is None else (value, 1)


def _terms(names: tuple[str, ...], rows: Iterable[Item], of_row: Callable[[Item], list[Quotient]]) -> PartialSums:
    quotients = np.array([of_row(row) for row in rows], dtype=np.float64).reshape(-1, len(names), 2)
    return PartialSums(names, quotients[..., 0].copy(), quotients[..., 1].copy())
