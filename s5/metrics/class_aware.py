"""Computes the class-aware SDR improvement of one mixture: estimates are paired with references of their label.

The pairing needs only the matrix of pairwise SDRs, so no waveform is processed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np

from s5.labels import SILENCE
from s5.metrics.labels import Counts, active, label_counts, label_counts_by_class
from s5.metrics.sdr import as_waveform, as_waveforms, check_finite, pairwise_levels

Select = Literal["sdr", "sdri"]

_ENUMERATED = 3


@dataclass(frozen=True)
class Pair:
    """An estimate and its reference.

    ``est`` and ``ref`` are indices into the arguments of :func:`match`; the SDRs are in dB.
    """

    label: str
    est: int
    ref: int
    sdr: float
    sdr_mixture: float

    @property
    def sdri(self) -> float:
        """Improvement over the mixture (Eq. (11), CA-PI-SDR)."""
        return self.sdr - self.sdr_mixture


@dataclass(frozen=True)
class Matching:
    """Pairs of one mixture and the counts of its labels."""

    pairs: tuple[Pair, ...]
    counts: Counts

    def value(self, penalty_fn: float = 0.0, penalty_fp: float = 0.0) -> float | None:
        """(sum of SDRi + FN penalty_fn + FP penalty_fp) / (TP + FP + FN), Eqs. (10) and (12), CA-PI-SDR.

        Args:
            penalty_fn: value of a missed source in dB.
            penalty_fp: value of a false source in dB.

        Returns:
            dB; None if nothing is active on either side.
        """
        if not self.counts.total:
            return None
        penalty = self.counts.fn * penalty_fn + self.counts.fp * penalty_fp
        return (sum(pair.sdri for pair in self.pairs) + penalty) / self.counts.total


@dataclass(frozen=True)
class Levels:
    """SDRs of one mixture in dB; NaN for silent slots.

    ``sdr`` is [references, estimates]; ``mixture`` [references] takes the mixture as the estimate.
    """

    sdr: np.ndarray
    mixture: np.ndarray


def capi_sdri(
    est_labels: Sequence[str],
    est: np.ndarray,
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    select: Select = "sdr",
    penalty_fn: float = 0.0,
    penalty_fp: float = 0.0,
) -> float | None:
    """Class-aware permutation-invariant SDRi of one mixture in dB (Eqs. (10) to (12), CA-PI-SDR).

        CAPI-SDRi = (sum of SDRi over the best pairs within each class + FN penalty_fn + FP penalty_fp) / (TP + FP + FN)

    Args:
        est_labels: label of each estimate, ``silence`` for a silent slot.
        est: estimates [n, samples].
        ref_labels: label of each reference, ``silence`` for a silent slot.
        ref: references [m, samples].
        mixture: reference channel of the mixture [samples].
        select: criterion of the pairing within a class: ``"sdr"`` as in the official scorer, ``"sdri"`` as in Eq. (10).
            They differ only if a class has more references than estimates.
        penalty_fn: value of a missed source in dB.
        penalty_fp: value of a false source in dB.

    Returns:
        The mean over true and false predictions; None if nothing is active on either side.

    Raises:
        ValueError: the numbers of labels and waveforms or the lengths differ, or a value is not finite.

    Example:
        >>> ref = np.eye(2, 8)
        >>> mixture = ref.sum(axis=0)
        >>> value = capi_sdri(["Speech"] * 2, 0.9 * ref[::-1], ["Speech"] * 2, ref, mixture)
        >>> with_a_false_one = capi_sdri(["Speech"] * 3, [*(0.9 * ref), mixture], ["Speech"] * 2, ref, mixture)
        >>> round(value, 2), round(with_a_false_one, 2)
        (20.0, 13.33)
        >>> capi_sdri(["silence"], np.zeros((1, 8)), [], [], mixture) is None
        True
    """
    matching = match(est_labels, est, ref_labels, ref, mixture, select)
    return matching.value(penalty_fn, penalty_fp)


def ca_sdri(
    est_labels: Sequence[str],
    est: np.ndarray,
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    penalty_fn: float = 0.0,
    penalty_fp: float = 0.0,
) -> float | None:
    """Class-aware SDRi of one mixture in dB, the metric of 2025: labels are distinct on either side.

        CA-SDRi = (sum of SDRi over classes on both sides + FN penalty_fn + FP penalty_fp) / (TP + FP + FN)

    Arguments and result as in :func:`capi_sdri`, which has the same value on such mixtures.

    Raises:
        ValueError: a label repeats, or as in :func:`capi_sdri`.

    Example:
        >>> ref = np.eye(2, 8)
        >>> mixture = ref.sum(axis=0)
        >>> round(ca_sdri(["Cough", "Pour"], 0.9 * ref, ["Cough", "Speech"], ref, mixture), 2)
        6.67
    """
    for name, labels in (("estimates", est_labels), ("references", ref_labels)):
        if repeats(labels):
            raise ValueError(f"CA-SDRi: {name} have the labels {' '.join(labels)}, expected distinct ones")
    return capi_sdri(est_labels, est, ref_labels, ref, mixture, penalty_fn=penalty_fn, penalty_fp=penalty_fp)


def pi_sdri(est: np.ndarray, ref: np.ndarray, mixture: np.ndarray, select: Select = "sdr") -> float | None:
    """Permutation-invariant SDRi of one mixture in dB, whatever the labels (CA-PI-SDR, section 4.3).

        PI-SDRi = sum of SDRi over the best pairs / max(n, m)

    The report uses it for equal numbers of estimates and references; otherwise a source without a partner counts 0.

    Args:
        est: estimates [n, samples].
        ref: references [m, samples].
        mixture: reference channel of the mixture [samples].
        select: as in :func:`capi_sdri`.

    Example:
        >>> ref = np.eye(2, 8)
        >>> round(pi_sdri(0.9 * ref[::-1], ref, ref.sum(axis=0)), 2)
        20.0
    """
    return capi_sdri(["source"] * len(est), est, ["source"] * len(ref), ref, mixture, select)


def match(
    est_labels: Sequence[str],
    est: np.ndarray,
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    select: Select = "sdr",
) -> Matching:
    """Pairs each estimate with a reference of its label; arguments as in :func:`capi_sdri`.

    Example:
        >>> ref = np.eye(2, 8)
        >>> found = match(["Cough"], ref[1:], ["Cough", "Cough"], ref, ref.sum(axis=0))
        >>> [(pair.est, pair.ref) for pair in found.pairs], found.counts
        ([(0, 1)], Counts(tp=1, fp=0, fn=1))
    """
    return pair(est_labels, ref_labels, levels(est_labels, est, ref_labels, ref, mixture), select)


def levels(
    est_labels: Sequence[str], est: np.ndarray, ref_labels: Sequence[str], ref: np.ndarray, mixture: np.ndarray
) -> Levels:
    """SDRs of every active estimate and of the mixture against every active reference (see :func:`capi_sdri`).

    Waveforms of silent slots are ignored.
    """
    est, ref, mixture = as_waveforms(est, "est"), as_waveforms(ref, "ref"), as_waveform(mixture, "mixture")
    for name, labels, waveforms in (("est", est_labels, est), ("ref", ref_labels, ref)):
        if len(labels) != len(waveforms):
            raise ValueError(f"{name}: {len(labels)} labels for {len(waveforms)} waveforms, expected as many")
        if len(waveforms) and waveforms.shape[1] != len(mixture):
            raise ValueError(f"{name}: {waveforms.shape[1]} samples, expected the mixture's {len(mixture)}")
    est_slots, ref_slots = _active_slots(est_labels), _active_slots(ref_labels)
    matrix = np.full((len(ref_labels), len(est_labels)), np.nan)
    over_mixture = np.full(len(ref_labels), np.nan)
    doubtful = bool(est_slots)  # false alarms have no SDR to check
    if ref_slots:
        # The mixture is one more column, so each reference is read once.
        found = pairwise_levels([*(est[i] for i in est_slots), mixture], [ref[i] for i in ref_slots])
        matrix[np.ix_(ref_slots, est_slots)] = found[:, :-1]
        over_mixture[ref_slots] = found[:, -1]
        doubtful = not np.isfinite(found).all()
    if doubtful:
        for i in est_slots:
            check_finite(est[i], "est")
        for waveform, name in [(ref[i], "ref") for i in ref_slots] + [(mixture, "mixture")] * bool(ref_slots):
            check_finite(waveform, name)
    return Levels(matrix, over_mixture)


def pair(est_labels: Sequence[str], ref_labels: Sequence[str], given: Levels, select: Select = "sdr") -> Matching:
    """Pairs estimates and references as :func:`match`, from known levels."""
    pairs: list[Pair] = []
    for label, counts in label_counts_by_class(est_labels, ref_labels).items():
        if not counts.tp:
            continue
        est_slots = [i for i, name in enumerate(est_labels) if name == label]
        ref_slots = [i for i, name in enumerate(ref_labels) if name == label]
        matrix, mixture = given.sdr[np.ix_(ref_slots, est_slots)], given.mixture[ref_slots]
        for i, j in best_assignment(_criterion(matrix, mixture, select)):
            pairs.append(Pair(label, est_slots[j], ref_slots[i], float(matrix[i, j]), float(mixture[i])))
    return Matching(tuple(pairs), label_counts(est_labels, ref_labels))


def repeats(labels: Sequence[str]) -> bool:
    """Whether a label other than ``silence`` repeats.

    Example:
        >>> repeats(["Cough", "silence", "silence"]), repeats(["Cough", "Cough"])
        (False, True)
    """
    names = active(labels)
    return len(set(names)) < len(names)


def best_assignment(values: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) of the assignment with the highest sum, by ascending row.

    Among equal sums the first wins, rows before columns, as in the official scorer: a silent estimate has the same SDR
    (0 dB) against every reference.

    Args:
        values: [rows, columns].

    Example:
        >>> best_assignment(np.array([[0.0, 5.0], [4.0, 6.0]]))
        [(0, 1), (1, 0)]
        >>> best_assignment(np.zeros((3, 1)))
        [(0, 0)]
    """
    n_rows, n_columns = values.shape
    if max(n_rows, n_columns) > _ENUMERATED:
        from scipy.optimize import linear_sum_assignment

        return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(values, maximize=True), strict=True)]
    n = min(n_rows, n_columns)
    candidates = (
        list(zip(rows, columns, strict=True))
        for rows in combinations(range(n_rows), n)
        for columns in permutations(range(n_columns), n)
    )
    return max(candidates, key=lambda pairs: sum(float(values[i, j]) for i, j in pairs))


def _criterion(matrix: np.ndarray, mixture: np.ndarray, select: Select) -> np.ndarray:
    """Criterion of the pairing [references, estimates]."""
    if select == "sdr":
        return matrix
    if select == "sdri":
        return matrix - mixture[:, None]
    raise ValueError(f"select={select!r}: expected 'sdr' or 'sdri'")


def _active_slots(labels: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(labels) if name != SILENCE]
