"""What is searched: grids of settings, from a YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s5.fusion import VoteConfig, align_all, class_scores, slot_winners
from s5.utils.config import load_yaml, parse
from s5.utils.errors import InputError, one_of

PARTS = ("vote", "gate", "sharpen", "fusion")
"""What can be searched by itself, see :meth:`Space.only`."""


@dataclass
class Space:
    """Grids of all that is tuned; conf/tune.yaml is one. An empty list leaves a setting as the system has it."""

    vote_step: float | None = 0.04
    """The taggers' weights are multiples of it that sum to 1; None: as the system has them."""
    vote_step_many: float | None = 0.1
    """The same where there are four taggers or more."""
    gamma: list[float] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    """Of multi-hot taggers."""
    gate_silence: list[float | None] = field(default_factory=list)
    gate_margin: list[float | None] = field(default_factory=list)
    """In dB."""
    sharpen: list[float] = field(default_factory=list)
    """Strengths, of each separator."""
    fusion: list[float] = field(default_factory=list)
    """Weight of each separator but the first, which has the rest to one."""
    min_gain: float = 0.001
    """Gain in dB of CAPI-SDRi below which a setting stays as it is."""
    min_mixtures: int = 5
    """Mixtures with a class that there have to be before it gets fusion weights of its own."""
    rounds: int = 2
    """Times that all settings are gone through at most."""

    def __post_init__(self) -> None:
        for name in ("vote_step", "vote_step_many"):
            step = getattr(self, name)
            if step is not None and not 0 < step <= 1:
                raise InputError(f"key {name}", step, "a step above 0, at most 1")
        if self.rounds < 1:
            raise InputError("key rounds", self.rounds, "1 or more")

    @classmethod
    def load(cls, path: str | Path) -> Space:
        """Reads a YAML. Raises InputError naming the file and the key."""
        return parse(cls, load_yaml(path), path)

    def only(self, parts: Sequence[str]) -> Space:
        """The space with some of :data:`PARTS` alone; the others stay as the system has them.

        Raises:
            InputError: another part.

        Example:
            >>> space = Space(gamma=[0.5, 1.0], sharpen=[0.0, 0.5]).only(["sharpen"])
            >>> space.vote_step, space.gamma, space.sharpen
            (None, [], [0.0, 0.5])
        """
        for part in parts:
            if part not in PARTS:
                raise InputError("part of the search", part, one_of(PARTS, part))
        off: dict[str, Any] = {}
        if "vote" not in parts:
            off |= {"vote_step": None, "vote_step_many": None, "gamma": [], "threshold": []}
        if "gate" not in parts:
            off |= {"gate_silence": [], "gate_margin": []}
        off |= {part: [] for part in ("sharpen", "fusion") if part not in parts}
        return replace(self, **off)


class Setting(NamedTuple):
    """One setting of a vote: a weight a tagger, and what its rule has besides."""

    weights: tuple[float, ...]
    gamma: float
    threshold: float


def vote_settings(space: Space, config: VoteConfig, weights: Sequence[float], multi_hot: bool) -> list[Setting]:
    """All settings of a vote that are searched; the system's own is the first.

    Args:
        space: the grids.
        config: the system's vote.
        weights: its taggers' weights.
        multi_hot: whether its taggers are.
    """
    gammas = space.gamma if config.rule == "vote" and not multi_hot and len(weights) > 1 else []
    thresholds = space.threshold if multi_hot else []
    step = space.vote_step if len(weights) < 4 else space.vote_step_many
    mixes = _simplex(len(weights), round(1 / step)) if step and len(weights) > 1 else [tuple(weights)]
    grid = product(mixes, gammas or [config.gamma], thresholds or [config.threshold])
    own = Setting(tuple(weights), config.gamma, config.threshold)
    return list(dict.fromkeys([own, *(Setting(*point) for point in grid)]))


def _simplex(n: int, parts: int) -> list[tuple[float, ...]]:
    """All weights that are multiples of 1 / parts and sum to 1.

    Example:
        >>> _simplex(2, 2)
        [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    if n == 1:
        return [(1.0,)]
    counts = [c for c in product(range(parts + 1), repeat=n - 1) if sum(c) <= parts]
    return [tuple(round(k / parts, 10) for k in (*c, parts - sum(c))) for c in counts]


def decisions(
    posteriors: Sequence[np.ndarray],
    settings: Sequence[Setting],
    config: VoteConfig,
    n_labels: int,
    n_slots: int,
    multi_hot: bool,
) -> np.ndarray:
    """What each setting decides for one mixture, as :func:`s5.fusion.decide` does.

    Returns:
        [settings, K] class indices: of tracks a slot each, C for silence; of multi-hot taggers the labels by falling
        probability, then C.
    """
    weights = np.array([setting.weights for setting in settings])
    if not multi_hot:
        aligned = align_all(posteriors, config.aligned)
        return slot_winners(aligned, weights, np.array([setting.gamma for setting in settings]), config.rule)
    table = np.full((len(settings), n_slots), n_labels, dtype=np.int64)
    scores = np.stack([class_scores(posteriors, w, n_labels)[:n_labels] for w in dict.fromkeys(map(tuple, weights))])
    which = {w: i for i, w in enumerate(dict.fromkeys(map(tuple, weights)))}
    order = np.argsort(-scores, axis=1, kind="stable")
    for row, setting in zip(table, settings, strict=True):
        i = which[setting.weights]
        present = int((scores[i] >= setting.threshold).sum())
        n = min(max(present, min(config.n_min, n_slots)), n_slots)
        row[:n] = order[i, :n]
    return table
