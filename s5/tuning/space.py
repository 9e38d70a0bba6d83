"""Grids of the settings to search, from a YAML."""

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

PARTS = ("vote", "gate", "sharpen", "fusion", "objects")
"""Parts that can be searched alone, see :meth:`Space.only`."""


@dataclass
class Space:
    """Grids of all settings, e.g. conf/tune.yaml. An empty list keeps the setting of the system."""

    vote_step: float | None = 0.04
    """Step of the taggers' weights, which sum to 1; None keeps the weights of the system."""
    vote_step_many: float | None = 0.1
    """Step for four taggers or more."""
    gamma: list[float] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    """Thresholds of multi-hot taggers."""
    gate_silence: list[float | None] = field(default_factory=list)
    gate_margin: list[float | None] = field(default_factory=list)
    """Margins in dB."""
    sharpen: list[float] = field(default_factory=list)
    """Strengths of each separator."""
    fusion: list[float] = field(default_factory=list)
    """Weights of each separator but the first, which has the rest to 1."""
    loops: list[int] = field(default_factory=list)
    """Numbers of extractions of an objects system."""
    alpha: list[float] = field(default_factory=list)
    """Weights of its taggers' prior."""
    thresholds: list[float] = field(default_factory=list)
    """Thresholds of its slots, of all labels and of each."""
    min_gain: float = 0.001
    """Smallest gain in dB of CAPI-SDRi that changes a setting."""
    min_mixtures: int = 5
    """Smallest number of mixtures with a class that gets fusion weights of its own."""
    rounds: int = 2
    """Largest number of passes over all settings."""

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
        """The space with some of :data:`PARTS` only. The others keep the settings of the system.

        Raises:
            InputError: an unknown part.

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
        if "objects" not in parts:
            off |= {"loops": [], "alpha": [], "thresholds": []}
        return replace(self, **off)


class Setting(NamedTuple):
    """One setting of a vote: the weight of each tagger, gamma and threshold."""

    weights: tuple[float, ...]
    gamma: float
    threshold: float


def vote_settings(space: Space, config: VoteConfig, weights: Sequence[float], multi_hot: bool) -> list[Setting]:
    """All settings of a vote to search. The system's own is the first.

    Args:
        space: the grids.
        config: the system's vote.
        weights: its taggers' weights.
        multi_hot: whether its taggers are multi-hot.
    """
    gammas = space.gamma if config.rule == "vote" and not multi_hot and len(weights) > 1 else []
    thresholds = space.threshold if multi_hot else []
    step = space.vote_step if len(weights) < 4 else space.vote_step_many
    mixes = _simplex(len(weights), round(1 / step)) if step and len(weights) > 1 else [tuple(weights)]
    grid = product(mixes, gammas or [config.gamma], thresholds or [config.threshold])
    own = Setting(tuple(weights), config.gamma, config.threshold)
    return list(dict.fromkeys([own, *(Setting(*point) for point in grid)]))


def _simplex(n: int, parts: int) -> list[tuple[float, ...]]:
    """All n-tuples of multiples of 1 / parts that sum to 1.

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
    """Decisions of all settings for one mixture, as by :func:`s5.fusion.decide`.

    Returns:
        Class indices [settings, K], C for silence. Track-based taggers have a class for each slot, multi-hot taggers
        have the labels by falling probability.
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
