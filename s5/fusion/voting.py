"""Combines the posteriors of several taggers into labels: by a weighted vote in each slot, or by averaging.

Posteriors of a track-based tagger are [K, C + 1] (rows sum to 1, silence last), of a multi-hot tagger [1, C] (one
probability per class, no silence). All taggers of a system are of one kind.
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
"""Greatest number of slots for which all assignments are tried; above it, scipy's solver finds the best."""


@dataclass
class VoteConfig:
    """The key ``vote`` of a system."""

    rule: Literal["vote", "average"] = "vote"
    """``vote``: Eq. (1) of Deng et al., see :func:`vote`; ``average``: weighted mean of probabilities (Park et al.)."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of each tagger by name (alpha); it overrides the tagger's own ``weight``."""
    gamma: float = 1.0
    """Confidence power of the vote."""
    align: bool | Literal["assignment", "none"] = True
    """Whether the taggers' slots are aligned first, by assignment; ``none`` is the literal reading of Deng et al.."""
    threshold: float = 0.5
    """Multi-hot taggers: a class at or above this probability is present."""
    n_min: int = 1
    """Multi-hot taggers: least number of classes (2025: every mixture has a source)."""

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
        probability: probability of each class [n], 0 to 1.
        silence: [taggers, n] silence posteriors in these slots; None for multi-hot taggers.
    """

    index: np.ndarray
    probability: np.ndarray
    silence: np.ndarray | None = None


@dataclass(frozen=True)
class Vote:
    """Labels of one mixture by name.

    Attributes:
        labels: labels of the active slots; a label may repeat.
        probabilities: probabilities of the labels.
        silence: silence posteriors in these slots by tagger, [n] float32; None for multi-hot taggers, or if not needed.
        given: whether the user gave the labels; then they are final.
    """

    labels: list[str]
    probabilities: list[float]
    silence: dict[str, np.ndarray] | None = None
    given: bool = False


def check_weights(weights: Mapping[str, float], where: object) -> None:
    """Checks weights. Raises InputError if one is negative or not finite, or all are zero."""
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise InputError(where, f"{name}: {weight}", "a finite weight of 0 or more")
    if weights and not any(weights.values()):
        raise InputError(where, "zeros only", "at least one weight above 0")


def decide(
    posteriors: Sequence[np.ndarray], weights: Sequence[float], config: VoteConfig, n_labels: int, n_slots: int
) -> Decision:
    """Decides the labels of one mixture from the posteriors of a system's taggers.

    Track-based taggers: one label per slot by the rule; silent slots are dropped. Multi-hot taggers: the classes whose
    weighted mean probability reaches the threshold, by falling probability, at least ``n_min`` and at most K.

    Args:
        posteriors: posteriors of each tagger, all of one kind.
        weights: weight of each tagger.
        config: the rule.
        n_labels: C.
        n_slots: K.

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
    probability = np.minimum(probability, 1.0)  # rounding may raise a mean of ones above 1
    return Decision(winner[active], probability[active], np.stack([p[active, n_labels] for p in aligned]))


def is_multi_hot(posteriors: Sequence[np.ndarray], n_labels: int) -> bool:
    """Whether posteriors are multi-hot, [1, C], instead of track-based, [K, C + 1].

    Raises:
        InputError: the kinds differ, or the number of labels is another.
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
    """Scores of the classes in a mixture, whatever the slot: a weighted mean over the taggers.

    A track-based tagger's score of a class is the highest over the slots, of silence the lowest (all slots must be
    silent). A multi-hot tagger's scores are its probabilities, and 0 for silence.

    Args:
        posteriors: posteriors of each tagger.
        weights: weight of each tagger.
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
    """Reorders a tagger's slots to fit another's: permutation-invariant training leaves their order open.

    The assignment maximises the summed overlap (inner product of the slots' distributions). Among equal assignments the
    first in lexicographic order wins, so slots that already fit keep their places.

    Args:
        posterior: [K, C + 1], rows sum to 1.
        reference: posterior [K, C + 1] of the tagger to align with.

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
        # Rounding makes ties of sums of the same terms in another order.
        return posterior[table[overlap[np.arange(n), table].sum(axis=1).round(12).argmax()]]
    from scipy.optimize import linear_sum_assignment  # its import takes a second, which most commands avoid

    return posterior[linear_sum_assignment(overlap, maximize=True)[1]]


def align_all(posteriors: Sequence[np.ndarray], align: bool = True) -> list[np.ndarray]:
    """Aligns the slots of all taggers with those of the first; without ``align`` they stay unchanged."""
    return [posteriors[0], *(align_slots(p, posteriors[0]) if align else p for p in posteriors[1:])]


def vote(aligned: Sequence[np.ndarray], weights: Sequence[float], gamma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Votes in each slot (Eq. (1), Deng et al.).

    Each tagger adds ``weight * confidence ** gamma`` points to its top class. Silence is an ordinary candidate. Of tied
    classes the lower index wins, so silence wins no tie. A slot without points is silent.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned (:func:`align_all`).
        weights: alpha of each tagger.
        gamma: confidence power.

    Returns:
        Class indices [K] int64 (C is silence), and the winners' shares of the points in their slots [K], 0 to 1; for a
        single tagger its confidence instead.

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
    """Averages the taggers' distributions in each slot by their weights (Park et al.'s ensemble, for tracks).

    Ties and empty slots are treated as in :func:`vote`.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned (:func:`align_all`).
        weights: weight of each tagger.

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
    """Winners of all slots under many settings of a vote at once, for searches over settings.

    Args:
        aligned: [K, C + 1] of each tagger, slots aligned.
        weights: [S, taggers].
        gammas: [S] for the vote; unused for the average.
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
    """Points [S, n] in one slot, and the classes [n] that they belong to, by rising index."""
    tops = [int(row.argmax()) for row in rows]
    classes = np.unique(tops)
    points = np.zeros((len(weights), len(classes)))
    for i, (row, top) in enumerate(zip(rows, tops, strict=True)):
        points[:, np.searchsorted(classes, top)] += weights[:, i] * row[top] ** gammas
    return points, classes


def _mean_scores(rows: Sequence[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean [S, C + 1] of one slot's distributions, and the classes [C + 1]."""
    total = sum(weights[:, i, None] * row for i, row in enumerate(rows))
    return np.asarray(total / weights.sum(axis=1, keepdims=True)), np.arange(len(rows[0]))


def _by_slot(aligned: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Distributions [C + 1] float64 of all taggers in each slot."""
    return [[p[slot].astype(np.float64) for p in aligned] for slot in range(len(aligned[0]))]
