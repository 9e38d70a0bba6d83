"""From several taggers to one set of labels: weighted voting, slot by slot, or averaged probabilities.

Posteriors are [K, C + 1] of a track-based tagger (rows sum to 1, silence last) or [1, C] of a multi-hot one (a
probability a class, no silence). Taggers of one system are all of one kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal

import numpy as np

from s5.tagging.decision import decide_multihot
from s5.utils.errors import InputError

BRUTE_FORCE = 5
"""Slots up to which every assignment is tried in turn; beyond, scipy's solver finds the best."""


@dataclass
class VoteConfig:
    """The key ``vote`` of a system."""

    rule: Literal["vote", "average"] = "vote"
    """``vote``: Eq. (1) of Deng et al., see :func:`vote`; ``average``: weighted mean of probabilities (Park et al.)."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each tagger by name (alpha); one that is not named has its own ``weight``."""
    gamma: float = 1.0
    """Confidence power of the vote."""
    align: bool | Literal["assignment", "none"] = True
    """Whether the taggers' slots are aligned first (by assignment); ``none`` is the literal reading of Deng et al.."""
    threshold: float = 0.5
    """Multi-hot: a class at or above it is present."""
    n_min: int = 1
    """Multi-hot: classes that are taken at least (2025: every mixture has a source)."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError("vote: key threshold", self.threshold, "0 to 1")
        if not 0 <= self.gamma < float("inf"):
            raise InputError("vote: key gamma", self.gamma, "0 or more")
        if self.n_min < 0:
            raise InputError("vote: key n_min", self.n_min, "0 or more")

    @property
    def aligned(self) -> bool:
        """Whether slots are aligned."""
        return self.align not in (False, "none")


@dataclass(frozen=True)
class Decision:
    """Labels of one mixture.

    Attributes:
        index: classes of the active slots [n] int64; a class may repeat.
        probability: of each [n], 0 to 1.
        silence: [taggers, n]: what each tagger gives silence in these slots; None of multi-hot taggers.
    """

    index: np.ndarray
    probability: np.ndarray
    silence: np.ndarray | None = None


@dataclass(frozen=True)
class Vote:
    """Labels of one mixture by name.

    Attributes:
        labels: of the active slots; one may repeat.
        probabilities: of the labels.
        silence: by tagger [n] float32: what it gives silence in these slots; None of multi-hot taggers, or where nobody
            asks.
        given: the labels were given, not voted: they are final.
    """

    labels: list[str]
    probabilities: list[float]
    silence: dict[str, np.ndarray] | None = None
    given: bool = False


def check_weights(weights: Mapping[str, float], where: object) -> None:
    """Refuses weights that are negative, not finite, or all zero."""
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise InputError(where, f"{name}: {weight}", "a finite weight of 0 or more")
    if weights and not any(weights.values()):
        raise InputError(where, "zeros only", "at least one weight above 0")


def decide(
    posteriors: Sequence[np.ndarray], weights: Sequence[float], config: VoteConfig, n_labels: int, n_slots: int
) -> Decision:
    """Labels of one mixture from the posteriors of a system's taggers.

    Tracks: one label a slot by the rule, silent slots left out. Multi-hot: the weighted mean of the probabilities, then
    the classes at or above the threshold, by falling probability, at least ``n_min`` and at most K of them.

    Args:
        posteriors: of each tagger, all of one kind.
        weights: of each tagger.
        config: the rule.
        n_labels: C.
        n_slots: K, labels at most.

    Raises:
        InputError: posteriors of both kinds or of another number of labels, or a vote of several multi-hot taggers.
    """
    if is_multi_hot(posteriors, n_labels):
        if config.rule == "vote" and len(posteriors) > 1:
            raise InputError("vote: key rule", "vote", "average: multi-hot taggers have no slots to vote on")
        scores = class_scores(posteriors, weights, n_labels)[:n_labels]
        index, probability = decide_multihot(scores, config.threshold, min(config.n_min, n_slots), n_slots)
        return Decision(index, probability)
    aligned = align_all(posteriors, config.aligned)
    averaged = config.rule == "average"
    winner, probability = average(aligned, weights) if averaged else vote(aligned, weights, config.gamma)
    active = np.flatnonzero(winner != n_labels)
    probability = np.minimum(probability, 1.0)  # a mean of ones may be rounded to more
    return Decision(winner[active], probability[active], np.stack([p[active, n_labels] for p in aligned]))


def is_multi_hot(posteriors: Sequence[np.ndarray], n_labels: int) -> bool:
    """Whether posteriors are multi-hot, [1, C], and not [K, C + 1] of tracks.

    Raises:
        InputError: some are and some are not, or they have another number of labels.
    """
    shapes = {p.shape for p in posteriors}
    width = next(iter(shapes))[1]
    if len(shapes) > 1 or width not in (n_labels, n_labels + 1):
        found = " and ".join(sorted(str(list(shape)) for shape in shapes))
        raise InputError(
            "posteriors", f"shapes {found}", f"of all taggers [K, {n_labels + 1}] (tracks), or [1, {n_labels}]"
        )
    return width == n_labels


def class_scores(posteriors: Sequence[np.ndarray], weights: Sequence[float], n_labels: int) -> np.ndarray:
    """How sure the taggers are that a class occurs at all, whatever the slot.

    Of tracks: the highest of a class over the slots, and of silence the lowest (all slots have to be silent). Of
    multi-hot posteriors: the probabilities; silence has 0. Then the weighted mean over the taggers.

    Args:
        posteriors: of each tagger.
        weights: of each tagger.
        n_labels: C.

    Returns:
        [C + 1] float64, silence last.

    Example:
        >>> class_scores([np.array([[0.7, 0.1, 0.2], [0.0, 0.1, 0.9]])], [1.0], 2).tolist()
        [0.7, 0.1, 0.2]
    """
    rows = []
    for posterior in posteriors:
        silence = posterior[:, n_labels].min() if posterior.shape[1] > n_labels else 0.0
        rows.append([*posterior[:, :n_labels].max(axis=0), silence])
    return np.average(np.array(rows, dtype=np.float64), axis=0, weights=weights)


def align_slots(posterior: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Reorders a tagger's slots to fit another's: taggers trained with permutation-invariant training share no order.

    The assignment maximises the summed overlap (the inner product of the slots' distributions); of equal ones it is the
    first in lexicographic order, so that what fits as it is stays as it is.

    Args:
        posterior: [K, C + 1], rows sum to 1.
        reference: [K, C + 1] of the tagger to align with.

    Returns:
        [K, C + 1]: the rows of ``posterior`` in the order of ``reference``.

    Example:
        >>> align_slots(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.8, 0.2], [0.1, 0.9]]
    """
    overlap = reference.astype(np.float64) @ posterior.astype(np.float64).T
    n = len(overlap)
    if n <= BRUTE_FORCE:
        table = np.array(list(permutations(range(n))))
        # Rounded: sums of the same terms in another order are ties.
        return posterior[table[overlap[np.arange(n), table].sum(axis=1).round(12).argmax()]]
    from scipy.optimize import linear_sum_assignment  # takes a second to import, which most commands can spare

    return posterior[linear_sum_assignment(overlap, maximize=True)[1]]


def align_all(posteriors: Sequence[np.ndarray], align: bool = True) -> list[np.ndarray]:
    """Posteriors with the slots of all taggers in the order of the first one's; unchanged without ``align``."""
    return [posteriors[0], *(align_slots(p, posteriors[0]) if align else p for p in posteriors[1:])]


def vote(aligned: Sequence[np.ndarray], weights: Sequence[float], gamma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Fuses taggers: each gives its top class of a slot ``weight * confidence ** gamma`` points (Eq. (1), Deng et al.).

    Silence is an ordinary candidate. Of tied classes the one with the lower index wins (so silence wins no tie); a slot
    without any point is silent.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned (:func:`align_all`).
        weights: alpha of each tagger.
        gamma: confidence power.

    Returns:
        Class indices [K] int64 (C is silence), and the winners' shares of their slots' points [K] in 0 .. 1; of one
        tagger alone its confidence, which says more than its share of its own points.

    Example:
        >>> a, b = np.array([[0.6, 0.3, 0.1]]), np.array([[0.1, 0.8, 0.1]])
        >>> labels, share = vote([a, b], [0.5, 0.5], gamma=0.5)
        >>> labels.tolist(), share.round(3).tolist()
        ([1], [0.536])
    """
    table, power = np.array([weights], dtype=np.float64), np.array([gamma])
    winners = slot_winners(aligned, table, power)[0]
    if len(aligned) == 1:
        return winners, aligned[0].max(axis=1).astype(np.float64)
    points = [_vote_scores(rows, table, power)[0][0] for rows in _by_slot(aligned)]
    return winners, np.array([p.max() / p.sum() if p.any() else 0.0 for p in points])


def average(aligned: Sequence[np.ndarray], weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Fuses taggers by the weighted mean of their distributions, slot by slot (Park et al.'s ensemble, for tracks).

    Ties and empty slots as in :func:`vote`.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned (:func:`align_all`).
        weights: of each tagger.

    Returns:
        Class indices [K] int64 (C is silence), and their mean probabilities [K].

    Example:
        >>> a, b = np.array([[0.6, 0.3, 0.1]]), np.array([[0.1, 0.8, 0.1]])
        >>> labels, probability = average([a, b], [3, 1])
        >>> labels.tolist(), probability.round(3).tolist()
        ([0], [0.475])
    """
    table = np.array([weights], dtype=np.float64)
    winners = slot_winners(aligned, table, np.ones(1), "average")[0]
    return winners, np.array([_mean_scores(rows, table)[0][0].max() for rows in _by_slot(aligned)])


def slot_winners(
    aligned: Sequence[np.ndarray], weights: np.ndarray, gammas: np.ndarray, rule: str = "vote"
) -> np.ndarray:
    """Winners of all slots under many settings of a vote at once: what a search over settings asks for.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned.
        weights: [S, taggers].
        gammas: [S] of the vote; the average has none.
        rule: ``vote`` or ``average``.

    Returns:
        [S, K] class indices, C for silence.
    """
    winners = np.empty((len(weights), len(aligned[0])), dtype=np.int64)
    for slot, rows in enumerate(_by_slot(aligned)):
        scores, classes = _vote_scores(rows, weights, gammas) if rule == "vote" else _mean_scores(rows, weights)
        silence = len(rows[0]) - 1
        winners[:, slot] = np.where(scores.max(axis=1) > 0, classes[scores.argmax(axis=1)], silence)
    return winners


def _vote_scores(rows: Sequence[np.ndarray], weights: np.ndarray, gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [S, n] of the classes [n] that a tagger names in one slot, in the order of their index."""
    tops = [int(row.argmax()) for row in rows]
    classes = np.unique(tops)
    points = np.zeros((len(weights), len(classes)))
    for i, (row, top) in enumerate(zip(rows, tops, strict=True)):
        points[:, np.searchsorted(classes, top)] += weights[:, i] * row[top] ** gammas
    return points, classes


def _mean_scores(rows: Sequence[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean [S, C + 1] of one slot's distributions, and all classes."""
    total = sum(weights[:, i, None] * row for i, row in enumerate(rows))
    return np.asarray(total / weights.sum(axis=1, keepdims=True)), np.arange(len(rows[0]))


def _by_slot(aligned: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Each slot's distributions [C + 1] of all taggers, float64."""
    return [[p[slot].astype(np.float64) for p in aligned] for slot in range(len(aligned[0]))]
