"""Search for the settings with the highest CAPI-SDRi, one coordinate after the other, on the cached data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from s5.fusion import GateConfig, align_all, gate, is_multi_hot, match, slots_by_label
from s5.fusion.gates import FLOOR
from s5.system.config import SystemConfig
from s5.tuning.cache import Cache, Item
from s5.tuning.objects import ObjectsSearch, ObjectsTuning, Trees
from s5.tuning.products import improvement
from s5.tuning.space import Space

Weights = tuple[float, ...]
"""Fusion weight of each separator."""


@dataclass(frozen=True)
class Tuning:
    """One point of the search."""

    vote: int
    """Index of the cache's settings."""
    gate: tuple[float | None, float | None]
    """Silence threshold and margin."""
    sharpen: tuple[float, ...]
    """Strength of each separator."""
    default: Weights
    """Fusion weights of labels without weights of their own."""
    classes: tuple[tuple[str, Weights], ...]
    """Fusion weights of labels with weights of their own."""

    def weights(self, label: str | None) -> Weights:
        """Fusion weights of a label; None: the default."""
        return dict[str | None, Weights](self.classes).get(label, self.default)

    def with_weights(self, label: str | None, weights: Weights) -> Tuning:
        """The point with other weights for a label, or by default. A label drops weights that equal the default."""
        if label is None:
            return replace(self, default=weights)
        classes = {**dict(self.classes), label: weights}
        if weights == self.default:
            del classes[label]
        return replace(self, classes=tuple(sorted(classes.items())))


Found = tuple[Tuning | None, float, int]
"""The best point, its score, and the number of points tried."""
Shown = Callable[[Tuning], str]


class Step(NamedTuple):
    """Gain of one setting."""

    name: str
    before: str
    after: str
    gain: float
    tried: int


@dataclass
class Outcome:
    """Result of a search."""

    first: float
    """CAPI-SDRi in dB before the search."""
    last: float
    """CAPI-SDRi in dB after it."""
    steps: list[Step]
    tuning: Tuning | ObjectsTuning
    """The best point."""
    changed: dict[str, Any] = field(default_factory=dict)
    """Changed keys of the system's YAML, as nested mappings."""


def tune(cache: Cache | Trees, config: SystemConfig, space: Space) -> Outcome:
    """Tunes vote, gate, sharpening, fusion weights and the weights of each class in turn, until nothing is gained; of
    an objects system its loops, the weight of the prior and the thresholds.

    Each is set to the value with the highest mean CAPI-SDRi while all others are fixed. A setting changes only if that
    gains ``space.min_gain`` or more. All figures are those before a refinement, which the search leaves out, and of the
    extraction alone if an objects system has separators.
    """
    if config.refine is not None:
        logging.warning("the search leaves out the refinement of the system: all figures are those before it")
    search: Any = ObjectsSearch(cache, config) if isinstance(cache, Trees) else _Search(cache, config)
    start = point = search.start()
    first = best = search.score(point)
    steps: list[Step] = []
    for round_ in range(space.rounds):
        before_round = best
        for name, shown, find in search.coordinates(point, space):
            found, score, tried = find(point)
            gain = score - best
            if found is None or gain < space.min_gain:
                steps.append(Step(name, shown(point), shown(point), 0.0, tried))
                continue
            steps.append(Step(name, shown(point), shown(found), gain, tried))
            point, best = found, score
        logging.info("round %d: CAPI-SDRi %.3f dB", round_ + 1, best)
        if best - before_round < space.min_gain:
            break
    return Outcome(first, best, steps, point, search.yaml(start, point))


class _Search:
    """Scores of points. Values of mixtures are computed once and kept."""

    def __init__(self, cache: Cache, config: SystemConfig) -> None:
        self.cache, self.config = cache, config
        self.separators = [m.name for m in config.separators]
        self.multi_hot = is_multi_hot(cache.items[0].posteriors, len(cache.labels))
        self._values: dict[Any, float | None] = {}
        self._silences: dict[tuple[int, int], np.ndarray | None] = {}

    def start(self) -> Tuning:
        """The point of the system before the search."""
        fusion, gate_ = self.config.fusion, self.config.gate or GateConfig()
        default = fusion.default or {self.separators[0]: 1.0}
        row = lambda weights: tuple(weights.get(name, 0.0) for name in self.separators)  # noqa: E731
        classes = {label: row(weights) for label, weights in fusion.rules().items() if label in self.cache.labels}
        strengths = tuple(fusion.sharpen.get(name, 0.0) for name in self.separators)
        return Tuning(0, (gate_.silence, gate_.margin), strengths, row(default), tuple(sorted(classes.items())))

    def score(self, point: Tuning) -> float:
        """Mean CAPI-SDRi in dB over the mixtures with a reference or an estimate."""
        values = [self.value(i, int(item.choice[point.vote]), point) for i, item in enumerate(self.cache.items)]
        kept = [value for value in values if value is not None]
        return float(np.mean(kept)) if kept else 0.0

    def best_vote(self, point: Tuning) -> Found:
        """The best of all settings of the vote. It is fast because a mixture has few different winners."""
        total = np.zeros(len(self.cache.settings))
        count = np.zeros(len(self.cache.settings))
        for i, item in enumerate(self.cache.items):
            given = [self.value(i, which, point) for which in range(len(item.winners))]
            values = np.array([np.nan if value is None else value for value in given])[item.choice]
            total += np.nan_to_num(values)
            count += ~np.isnan(values)
        scores = total / np.maximum(count, 1)
        return replace(point, vote=int(scores.argmax())), float(scores.max()), len(scores)

    def best(self, points: Iterable[Tuning]) -> Found:
        """The first point with the highest score, its score, and the number of points."""
        found, highest, tried = None, -np.inf, 0
        for point in points:
            tried += 1
            score = self.score(point)
            if score > highest + 1e-9:
                found, highest = point, score
        return found, float(highest), tried

    def value(self, i: int, which: int, point: Tuning) -> float | None:
        """CAPI-SDRi in dB of mixture ``i`` with row ``which`` of its winners; None without references and estimates."""
        item = self.cache.items[i]
        silence = len(self.cache.labels)
        index = tuple(int(c) for c in item.winners[which] if c != silence)
        labels = [self.cache.labels.name(c) for c in index]
        weights = tuple(point.weights(label) for label in labels)
        # With the winners given, the silence posteriors of the slots do not depend on the vote's weights.
        key = (i, which, point.gate, point.sharpen, weights)
        if key not in self._values:
            self._values[key] = self._compute(item, which, index, labels, weights, point)
        return self._values[key]

    def _compute(
        self,
        item: Item,
        which: int,
        index: tuple[int, ...],
        labels: list[str],
        weights: Sequence[Weights],
        point: Tuning,
    ) -> float | None:
        products = item.products[index]
        mix = self._coefficients(products, labels, weights, point.sharpen)
        energies = np.einsum("ks,st,kt->k", mix, products, mix)
        silence = self._silence(item, which)
        means = np.maximum(np.append(energies, products[-1, -1]) / item.n_samples, FLOOR)
        levels = 10 * np.log10(means)
        keep = gate(GateConfig(*point.gate), silence, levels[:-1], float(levels[-1]))
        labels = [label for label, kept in zip(labels, keep, strict=True) if kept]
        return improvement(products, mix[keep], labels, item.ref_labels)

    def _coefficients(
        self, products: np.ndarray, labels: list[str], weights: Sequence[Weights], sharpen: Sequence[float]
    ) -> np.ndarray:
        """Weight of each signal in each slot's estimate [n, signals]. Outputs of one class are matched as in fusion."""
        n = len(labels)
        mix = np.zeros((n, len(products)))
        blocks = [n * self.cache.variants.index(pair_) for pair_ in zip(self.separators, sharpen, strict=True)]
        for slots in slots_by_label(labels).values():
            for j, block in enumerate(blocks):
                order = slots
                if len(slots) > 1:
                    a, b = [blocks[0] + k for k in slots], [block + k for k in slots]
                    own = np.diag(products)
                    order = [slots[o] for o in match(own[a][:, None] + own[b][None] - 2 * products[np.ix_(a, b)])]
                for slot, source in zip(slots, order, strict=True):
                    mix[slot, block + source] += weights[slot][j]
        return mix

    def _silence(self, item: Item, which: int) -> np.ndarray | None:
        """Silence posteriors [taggers, n] of the active slots by the taggers of the gate."""
        key = (id(item), which)
        if key not in self._silences:
            self._silences[key] = None if self.multi_hot else self._slot_silence(item, which)
        return self._silences[key]

    def _slot_silence(self, item: Item, which: int) -> np.ndarray:
        aligned = align_all(item.posteriors, self.config.vote.aligned)
        silence = len(self.cache.labels)
        active = np.flatnonzero(item.winners[which] != silence)
        asked = self.config.gate.taggers if self.config.gate else None
        names = [m.name for m in self.config.taggers]
        return np.stack(
            [p[active, silence] for p, name in zip(aligned, names, strict=True) if name in (asked or names)]
        )

    def coordinates(self, point: Tuning, space: Space) -> list[tuple[str, Shown, Callable[[Tuning], Found]]]:
        """Each setting: its name, its text, and the search for the best point that differs only in it."""
        found: list[tuple[str, Shown, Callable[[Tuning], Found]]] = []

        def add(name: str, shown: Shown, points: Callable[[Tuning], Iterable[Tuning]]) -> None:
            found.append((name, shown, lambda p: self.best(points(p))))

        if len(self.cache.settings) > 1:
            found.append(("vote", self._show_vote, self.best_vote))
        silences = [] if self.multi_hot else space.gate_silence
        gates = [(s, m) for s in silences or [point.gate[0]] for m in space.gate_margin or [point.gate[1]]]
        if len(gates) > 1:
            add("gate", _show_gate, lambda p: (replace(p, gate=g) for g in [p.gate, *gates]))
        for j, name in enumerate(self.separators if space.sharpen else ()):
            add(f"sharpen {name}", partial(_show_sharpen, j), partial(_sharpened, j, space.sharpen))
        many = [
            label
            for label in self.cache.labels.names
            if sum(label in item.ref_labels for item in self.cache.items) >= space.min_mixtures
        ]
        for label in [None, *many] if space.fusion else ():
            for j, name in enumerate(self.separators[1:], 1):
                shown, points = partial(_show_weights, label), partial(_reweighted, label, j, space.fusion)
                add(f"fusion {name} {label}" if label else f"fusion {name}", shown, points)
        return found

    def _show_vote(self, point: Tuning) -> str:
        setting = self.cache.settings[point.vote]
        rest = f"threshold {setting.threshold:g}" if self.multi_hot else f"gamma {setting.gamma:g}"
        return f"{_numbers(setting.weights)}, {rest}"

    def yaml(self, start: Tuning, point: Tuning) -> dict[str, Any]:
        """Keys of a system's YAML in which two points differ."""
        out: dict[str, Any] = {}
        if point.vote != start.vote:
            setting = self.cache.settings[point.vote]
            names = [m.name for m in self.config.taggers]
            out["vote"] = {"weights": dict(zip(names, setting.weights, strict=True))}
            out["vote"] |= {"threshold": setting.threshold} if self.multi_hot else {"gamma": setting.gamma}
        if point.gate != start.gate:
            out["gate"] = dict(zip(("silence", "margin"), point.gate, strict=True))
        fusion: dict[str, Any] = {}
        named = lambda weights: dict(zip(self.separators, weights, strict=True))  # noqa: E731
        if point.default != start.default:
            fusion["default"] = named(point.default)
        if point.sharpen != start.sharpen:
            fusion["sharpen"] = named(point.sharpen)
        inherited = dict(start.classes)  # inherited weights of a label remain unless they are written again
        classes = {
            label: named(point.weights(label))
            for label in self.cache.labels.names
            if point.weights(label) != inherited.get(label, point.default)
        }
        if classes:
            fusion["classes"] = classes
        return out | ({"fusion": fusion} if fusion else {})


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _show_gate(point: Tuning) -> str:
    silence, margin = ("off" if value is None else f"{value:g}" for value in point.gate)
    return f"silence {silence}, margin {margin}"


def _show_sharpen(j: int, point: Tuning) -> str:
    return f"{point.sharpen[j]:g}"


def _show_weights(label: str | None, point: Tuning) -> str:
    return _numbers(point.weights(label))


def _sharpened(j: int, strengths: Sequence[float], point: Tuning) -> Iterator[Tuning]:
    """The point, and the points that differ in the strength of separator j."""
    for strength in dict.fromkeys([point.sharpen[j], *strengths]):
        yield replace(point, sharpen=(*point.sharpen[:j], strength, *point.sharpen[j + 1 :]))


def _reweighted(label: str | None, j: int, grid: Sequence[float], point: Tuning) -> Iterator[Tuning]:
    """The point, and the points that differ in the weight of separator j; the first separator has the rest to one."""
    yield point
    for weight in grid:
        weights = [weight if i == j else old for i, old in enumerate(point.weights(label))]
        weights[0] = round(1 - sum(weights[1:]), 10)
        if weights[0] >= 0:
            yield point.with_weights(label, tuple(weights))
