"""Weighted top-1 voting of taggers, slot by slot (seed 000, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def align_slots(posterior: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Reorders a tagger's slots to fit another's: taggers trained with permutation-invariant training share no order.

    The assignment maximises the summed overlap (the inner product of the slots' distributions).

    Args:
        posterior: [K, C + 1], rows sum to 1.
        reference: [K, C + 1] of the tagger to align with.

    Returns:
        [K, C + 1]: the rows of ``posterior`` in the order of ``reference``.

    Example:
        >>> align_slots(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.8, 0.2], [0.1, 0.9]]
    """
    from scipy.optimize import linear_sum_assignment  # takes a second to import, which most commands can spare

    _, column = linear_sum_assignment(reference @ posterior.T, maximize=True)
    return posterior[column]


def vote(
    posteriors: Sequence[np.ndarray], weights: Sequence[float], gamma: float = 1.0, align: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Fuses taggers: each gives its top class of a slot ``weight * confidence ** gamma`` points (Eq. (1), seed 000).

    Silence is an ordinary candidate. Active slots are moved to the front, in their order; of tied classes the one with
    the lower index wins.

    Args:
        posteriors: [K, C + 1] of each tagger.
        weights: alpha of each tagger.
        gamma: confidence power.
        align: align the slots with those of the first tagger before voting.

    Returns:
        Class indices [K] int64 (C is silence), and the winners' shares of their slots' points [K] in 0 .. 1.

    Example:
        >>> a, b = np.array([[0.6, 0.3, 0.1]]), np.array([[0.1, 0.8, 0.1]])
        >>> labels, share = vote([a, b], [0.5, 0.5], gamma=0.5)
        >>> labels.tolist(), share.round(3).tolist()
        ([1], [0.536])
    """
    aligned = [posteriors[0], *(align_slots(p, posteriors[0]) if align else p for p in posteriors[1:])]
    n_slots, n_classes = aligned[0].shape
    points = np.zeros((n_slots, n_classes))
    for posterior, weight in zip(aligned, weights, strict=True):
        top = posterior.argmax(axis=1)
        points[np.arange(n_slots), top] += weight * posterior[np.arange(n_slots), top].astype(np.float64) ** gamma
    winner = points.argmax(axis=1)
    if len(aligned) == 1:  # one tagger alone: its confidence says more than its share of its own points
        share = aligned[0].max(axis=1).astype(np.float64)
    else:
        total = points.sum(axis=1)
        share = points.max(axis=1) / np.where(total > 0, total, 1)
    order = np.argsort(winner == n_classes - 1, kind="stable")
    return winner[order].astype(np.int64), share[order]
