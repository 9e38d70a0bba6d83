"""Refines labels iteratively: tags the separated sources, corrects the labels, separates again, until they are stable.

Park et al.'s label correction (section 3.3) and the verification of Deng et al. are settings of it; docs/systems.md
lists them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from s5.utils.errors import InputError

Request = tuple[int, ...] | np.ndarray
"""Request of :func:`refinement`: at most K classes whose sources [n, samples] it needs, or sources whose class scores
[n, C + 1] it needs, silence last (:func:`s5.fusion.voting.class_scores`)."""


@dataclass
class CandidateConfig:
    """Further labels to try besides those of the vote (Park et al.: the top three and all above a threshold)."""

    top: int | None = None
    """Least number of candidates, by falling score of the mixture; by default K."""
    threshold: float = 0.5
    """Classes whose score of the mixture is at or above this value are candidates too."""


@dataclass
class RefineConfig:
    """The key ``refine`` of a system."""

    loops: int = 1
    """Greatest number of times that the sources are tagged again; fewer if the labels are stable earlier."""
    disagreement: Literal["remove", "relabel"] = "remove"
    """Treatment of a source whose top class differs from its label: ``remove`` it, or ``relabel`` it with that class.
    Candidates that are not confirmed are dropped in either case: most likely another label has their source."""
    mixture_weight: float = 0.0
    """Weight of the mixture's class scores in those of a source, 0 (the source alone) to 1."""
    candidates: CandidateConfig | None = None
    """Further labels to try; None: only those of the vote."""
    n_min: int = 0
    """Least number of labels that stay, by the mixture's score (2025: 1)."""
    separate_again: bool = True
    """Whether the sources are separated again with the new labels; otherwise the present sources are kept."""
    tagger: str | None = None
    """Source tagger of the system that tags the sources; by default the taggers of the mixture do."""

    def __post_init__(self) -> None:
        if self.loops < 1 or self.n_min < 0:
            raise InputError(
                "refine", f"loops {self.loops}, n_min {self.n_min}", "loops of 1 or more, n_min of 0 or more"
            )
        if self.loops > 1 and not self.separate_again:
            raise InputError("refine", f"loops {self.loops} without separate_again", "one loop, or separate_again")
        if not 0 <= self.mixture_weight <= 1:
            raise InputError("refine: key mixture_weight", self.mixture_weight, "0 to 1")


@dataclass
class Counts:
    """Counts of a refinement, summed over mixtures."""

    mixtures: int = 0
    changed: int = 0
    """Mixtures whose labels changed."""
    removed: int = 0
    """Labels that disappeared."""
    restored: int = 0
    """Labels that were added."""
    loops: int = 0
    queries: int = 0
    """Separations, including the first one."""
    tagged: int = 0
    """Sources that were tagged again."""
    unsettled: int = 0
    """Mixtures whose labels still changed in the last loop."""

    def add(self, other: Counts) -> None:
        """Adds the counts of other mixtures."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Refined:
    """Labels after refinement.

    Attributes:
        index: class indices [n], at most K.
        probability: scores of the classes [n].
        sources: [n, samples].
        counts: counts of this mixture.
    """

    index: list[int]
    probability: list[float]
    sources: np.ndarray
    counts: Counts = field(default_factory=Counts)


@dataclass
class _Check:
    """A label with its source and the source's class scores."""

    label: int
    source: np.ndarray
    scores: np.ndarray
    place: int
    relabel: bool
    """Whether another top class becomes the label; otherwise the source is dropped."""

    @property
    def top(self) -> int:
        return int(self.scores.argmax())

    @property
    def passes(self) -> bool:
        return self.top != len(self.scores) - 1 if self.relabel else self.top == self.label


def refinement(
    index: Sequence[int], mixture_scores: np.ndarray, config: RefineConfig, n_slots: int, distinct: bool = False
) -> Generator[Request, np.ndarray, Refined]:
    """Refines the labels of one mixture. The generator yields requests for the networks and receives their answers, so
    the caller can batch the requests of several mixtures.

    Each loop separates the labels and the candidates, in order of the mixture's scores, K at a time, and tags each
    source. A source whose top class differs from its label is removed or relabelled; a candidate is dropped. Of the
    rest, the K with the highest scores stay. No query is made twice.

    Args:
        index: class indices of the vote, at most K.
        mixture_scores: class scores of the mixture [C + 1].
        config: the rule.
        n_slots: K.
        distinct: whether labels must differ (2025).

    Returns:
        The new labels: in the order of their scores if there were candidates or new labels, otherwise unchanged.
    """
    queries: dict[tuple[int, ...], np.ndarray] = {}
    scored: dict[tuple[int, ...], np.ndarray] = {}

    def query(labels: Sequence[int]) -> Generator[Request, np.ndarray, np.ndarray]:
        key = tuple(labels)
        if key not in queries:
            queries[key] = yield key
        return queries[key]

    before = [int(c) for c in index]
    labels = before
    probability = [float(mixture_scores[c]) for c in labels]
    sources = (yield from query(labels)) if labels else None
    counts = Counts(mixtures=1)
    seen = {tuple(sorted(labels))}
    for _ in range(config.loops):
        wanted = _wanted(labels, mixture_scores, config.candidates, n_slots)
        if not wanted:
            break
        counts.loops += 1
        checks = []
        for start in range(0, len(wanted), n_slots):
            group = tuple(wanted[start : start + n_slots])
            found = yield from query(group)
            if group not in scored:
                scored[group] = yield found
                counts.tagged += len(group)
            mixed = (1 - config.mixture_weight) * scored[group] + config.mixture_weight * mixture_scores
            for k, c in enumerate(group):
                relabel = config.disagreement == "relabel" and c in labels
                checks.append(_Check(c, found[k], mixed[k], start + k, relabel))
        kept = _keep(checks, mixture_scores, config, n_slots, distinct)
        settled = sorted(label for label, _, _ in kept) == sorted(labels)
        if settled:  # keep their order, because the query of that order has been made
            kept = [kept.pop([label for label, _, _ in kept].index(c)) for c in labels]
        labels = [label for label, _, _ in kept]
        probability = [score for _, score, _ in kept]
        sources = np.stack([source for _, _, source in kept]) if kept else None
        if settled or tuple(sorted(labels)) in seen or not config.separate_again:
            counts.unsettled += not settled and config.loops > 1
            break
        seen.add(tuple(sorted(labels)))
    else:
        counts.unsettled += config.loops > 1
    if labels and config.separate_again:
        sources = yield from query(labels)
    counts.queries = len(queries)
    had, have = Counter(before), Counter(labels)
    counts.removed, counts.restored = (had - have).total(), (have - had).total()
    counts.changed = int(had != have)
    n_samples = next(iter(queries.values())).shape[1] if queries else 0
    return Refined(
        labels, probability, sources if sources is not None else np.zeros((0, n_samples), np.float32), counts
    )


def _wanted(labels: Sequence[int], scores: np.ndarray, candidates: CandidateConfig | None, n_slots: int) -> list[int]:
    """Labels to try by falling score: the present ones (with repetitions) and the candidates."""
    if candidates is None:
        return list(labels)
    top = n_slots if candidates.top is None else candidates.top
    wanted = list(labels)
    for c in np.argsort(-scores[:-1], kind="stable").tolist():
        if c not in labels and (len(wanted) < top or scores[c] >= candidates.threshold):
            wanted.append(c)
    return sorted(wanted, key=lambda c: (-scores[c], c))


def _keep(
    checks: Sequence[_Check], mixture_scores: np.ndarray, config: RefineConfig, n_slots: int, distinct: bool
) -> list[tuple[int, float, np.ndarray]]:
    """Labels that stay, with their scores and sources."""
    passed = [check for check in checks if check.passes]
    kept = [
        (check.top, float(check.scores.max()), check) for check in passed
    ]  # the top class is the label, or becomes it
    kept.sort(key=lambda item: -item[1])
    if distinct:
        kept = [item for i, item in enumerate(kept) if item[0] not in {other[0] for other in kept[:i]}]
    kept = kept[:n_slots]
    # Too few: the rest of the labels by the mixture's score.
    rest = [check for check in checks if not any(check is other for other in passed)]
    for check in sorted(rest, key=lambda check: -mixture_scores[check.label]):
        if len(kept) < min(config.n_min, n_slots) and not (distinct and check.label in {item[0] for item in kept}):
            kept.append((check.label, float(mixture_scores[check.label]), check))
    if config.candidates is None:
        kept.sort(key=lambda item: item[2].place)
    return [(label, score, check.source) for label, score, check in kept]
