"""The loop of an objects system: separate all sources, classify each, extract each by its clues, and again.

The chain USS -> SC -> TSE -> SC -> TSE of Kwon et al. (arXiv 2509.13741): universal sound separation gives a waveform a
slot, the source classifier its label, and target sound extraction takes waveform (enrolment) and label as clues. The
functions here know no network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax

from s5.labels import LabelSet
from s5.utils.errors import InputError, one_of

TINY = 1e-12
"""Least probability of a prior, and least energy of a correlation."""

Separate = Callable[[np.ndarray], tuple[np.ndarray, Any]]
"""USS: mixtures [B, M, n] to foreground waveforms [B, K, n] and their object features for the source classifier."""
Classify = Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
"""SC: waveforms [B, K, n] and object features, or None, to logits [B, K, C] and logits of being active [B, K]."""
Extract = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""TSE: mixtures [B, M, n], one-hot labels [B, K, C] and enrolments [B, K, n] to waveforms [B, K, n]."""


@dataclass
class ObjectsConfig:
    """The key ``objects`` of a system."""

    loops: int = 2
    """Number of extractions; 0 keeps the outputs of USS."""
    alpha: float = 0.0
    """Weight of the mixture taggers' log probability of a class; 0 ignores the taggers."""
    thresholds: float | dict[str, float] = 0.5
    """A slot is silent if its probability of being active is below this value, one for all labels or one a label;
    labels that are not named have 0.5."""
    duplicates: float = 0.9
    """Greatest correlation of two slots with one label; above it the stronger slot alone stays. 1 keeps both."""

    def __post_init__(self) -> None:
        if self.loops < 0:
            raise InputError("objects: key loops", self.loops, "0 or more")
        for key in ("alpha", "duplicates"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise InputError(f"objects: key {key}", getattr(self, key), "0 or more")
        of_labels = self.thresholds if isinstance(self.thresholds, dict) else {"": self.thresholds}
        for label, value in of_labels.items():
            if not 0 <= value <= 1:
                where = f"objects: key thresholds{'.' + label if label else ''}"
                raise InputError(where, value, "a probability from 0 to 1")

    def limits(self, labels: LabelSet, where: object = "objects") -> np.ndarray:
        """Threshold of each label [C]. Raises InputError naming ``where`` for an unknown label."""
        if not isinstance(self.thresholds, dict):
            return np.full(len(labels), self.thresholds)
        limits = np.full(len(labels), 0.5)
        for label, value in self.thresholds.items():
            if label not in labels:
                raise InputError(f"{where}: key thresholds", f"label {label}", one_of(labels.names, label))
            limits[labels.index(label)] = value
        return limits


@dataclass
class Pass:
    """All slots of one mixture after USS (the first pass) or after an extraction.

    Attributes:
        waveforms: [K, n] float32.
        index: [K] classes, C for a silent slot.
        probability: [K] probability of the most probable class, or of the given one.
        active: [K] probability of being active.
    """

    waveforms: np.ndarray
    index: np.ndarray
    probability: np.ndarray
    active: np.ndarray


@dataclass
class Objects:
    """Result of the loop for one mixture.

    Attributes:
        index: classes of the active slots [n].
        probability: [n] probability of the label times that of being active; 1 for given labels.
        sources: [K, samples] float32, the active slots first, zeros after them.
        passes: the slots after each pass.
    """

    index: np.ndarray
    probability: np.ndarray
    sources: np.ndarray
    passes: list[Pass] = field(default_factory=list)


def find_objects(
    mixtures: np.ndarray,
    uss: Separate,
    classify: Classify,
    tse: Extract,
    config: ObjectsConfig,
    limits: np.ndarray,
    priors: np.ndarray | None = None,
    given: Sequence[np.ndarray] | None = None,
) -> list[Objects]:
    """Runs the loop on a batch of mixtures.

    A slot that is silent in one pass is silent in all later ones. Given labels stay as they are: each takes the USS
    slot that fits it best as its first enrolment.

    Args:
        mixtures: [B, M, n].
        uss, classify, tse: the networks.
        config: the settings.
        limits: threshold of each label [C], from :meth:`ObjectsConfig.limits`.
        priors: probability of each class in the mixture by the taggers [B, C]; None without taggers.
        given: known classes of each mixture, at most K.
    """
    n_labels = len(limits)
    rows = range(len(mixtures))
    prior = [None if priors is None else priors[i] for i in rows]
    known = [None if given is None else np.asarray(given[i], dtype=np.int64) for i in rows]
    waveforms, features = uss(mixtures)
    logits, active = classify(waveforms, features)
    passes: list[list[Pass]] = []
    for i in rows:
        log_p, shares = class_log_probability(logits[i], config.alpha, prior[i]), expit(active[i].astype(np.float64))
        order = np.arange(len(shares)) if (names := known[i]) is None else matched_slots(names, log_p, shares)
        passes.append([_pass(waveforms[i, order], log_p[order], shares[order], limits, names)])
    for _ in range(config.loops):
        alive = [i for i in rows if (passes[i][-1].index < n_labels).any()]
        if not alive:
            break
        index = np.stack([passes[i][-1].index for i in alive])
        enrolments = np.stack([passes[i][-1].waveforms for i in alive]) * (index < n_labels)[..., None]
        waveforms = tse(mixtures[alive], queries(index, n_labels), enrolments.astype(np.float32))
        logits, active = classify(waveforms, None)
        for n, i in enumerate(alive):
            log_p = class_log_probability(logits[n], config.alpha, prior[i])
            shares = expit(active[n].astype(np.float64)) * (index[n] < n_labels)
            passes[i].append(_pass(waveforms[n], log_p, shares, limits, known[i], index[n] < n_labels))
    return [_result(one, known[i] is not None, config, n_labels) for i, one in enumerate(passes)]


def _pass(
    waveforms: np.ndarray,
    log_p: np.ndarray,
    active: np.ndarray,
    limits: np.ndarray,
    known: np.ndarray | None,
    allowed: np.ndarray | bool = True,
) -> Pass:
    """The pass of one mixture; slots that are not allowed stay silent."""
    n_labels = len(limits)
    if known is None:
        index = np.where(allowed, decide(log_p, active, limits), n_labels)
    else:
        index = np.concatenate((known, np.full(len(active) - len(known), n_labels, dtype=np.int64)))
    asked = np.where(index < n_labels, index, log_p.argmax(-1))
    probability = np.exp(np.take_along_axis(log_p, asked[:, None], -1)[:, 0])
    return Pass(waveforms, index, probability, active)


def _result(passes: list[Pass], given: bool, config: ObjectsConfig, n_labels: int) -> Objects:
    last = passes[-1]
    x, index = last.waveforms, last.index
    if not given:
        index = without_duplicates(index, x @ x.T, config.duplicates, n_labels)
    slots = np.flatnonzero(index < n_labels)
    sources = np.zeros_like(x)
    sources[: len(slots)] = x[slots]
    probability = np.ones(len(slots)) if given else (last.probability * last.active)[slots]
    return Objects(index[slots], probability, sources, passes)


def class_log_probability(logits: np.ndarray, alpha: float = 0.0, priors: np.ndarray | None = None) -> np.ndarray:
    """Log probabilities of the classes of sources: those of the source classifier, and ``alpha`` times those of the
    mixture.

    Args:
        logits: [..., K, C].
        alpha: weight of the prior.
        priors: probability of each class in the mixture [..., C].

    Example:
        >>> np.exp(class_log_probability(np.zeros((1, 2)), 1.0, np.array([0.9, 0.1]))).round(2).tolist()
        [[0.9, 0.1]]
    """
    scores = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    if priors is None or not alpha:
        return scores
    return log_softmax(scores + alpha * np.log(np.maximum(priors, TINY))[..., None, :], axis=-1)


def decide(log_p: np.ndarray, active: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Classes of slots [..., K]: the most probable class, C if the slot is less active than the class's threshold.

    Args:
        log_p: [..., K, C].
        active: probability of being active [..., K].
        limits: [C].
    """
    index = log_p.argmax(-1)
    return np.where(active >= limits[index], index, len(limits))


def matched_slots(known: np.ndarray, log_p: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Order of the slots [K] in which the first ones fit known classes best: the highest summed log probability of
    being active and of the class.

    Args:
        known: classes [n].
        log_p: [K, C].
        active: [K].
    """
    from s5.fusion.waveforms import match

    n = len(active)
    cost = np.zeros((n, n))
    cost[: len(known)] = -(log_p[:, known].T + np.log(np.maximum(active, TINY)))
    return match(cost)


def without_duplicates(index: np.ndarray, products: np.ndarray, limit: float, n_labels: int) -> np.ndarray:
    """Classes of slots without duplicates: of slots with one class whose waveforms correlate above the limit, the
    strongest stays.

    Args:
        index: classes [K], C for silent slots.
        products: inner products of the waveforms [K, K].
        limit: greatest correlation; 1 or more leaves all slots, whatever the rounding.
        n_labels: C.
    """
    if limit >= 1:
        return index
    energy, kept = np.diag(products), np.full_like(index, n_labels)
    for k in np.argsort(-energy, kind="stable"):
        others = np.flatnonzero((kept == index[k]) & (index[k] < n_labels))
        scale = np.sqrt(np.maximum(energy[k] * energy[others], TINY**2))
        if not (np.abs(products[k, others]) / scale > limit).any():
            kept[k] = index[k]
    return kept


def queries(index: np.ndarray, n_labels: int) -> np.ndarray:
    """One-hot labels [..., K, C] float32 of classes [..., K]; zeros for silent slots."""
    return np.eye(n_labels + 1, dtype=np.float32)[index][..., :n_labels]
