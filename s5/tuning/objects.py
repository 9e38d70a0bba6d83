"""Data and search for the settings of an objects system: loops, weight of the prior, and thresholds.

A setting changes the labels and the active slots of a pass, and so what the next extraction gets. The cache holds the
tree of all passes that any setting leads to: at each node the classifier's outputs and the inner products of the
waveforms, references and mixture. The networks run once for each node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy.special import expit

from s5.data import DataDir
from s5.fusion.objects import class_log_probability, decide, queries, without_duplicates
from s5.inference.results import Tables
from s5.labels import LabelSet
from s5.system.config import SystemConfig
from s5.system.system import S5System
from s5.tuning.products import improvement
from s5.tuning.space import Space

Index = tuple[int, ...]
"""Class of each slot, C for a silent one: what an extraction is asked for."""


@dataclass
class Node:
    """All slots of a mixture after a pass.

    Attributes:
        logits: [K, C] of the source classifier.
        active: [K] logits of being active.
        products: inner products [K + R + 1, K + R + 1] float64 of the slots, the references and the mixture's reference
            channel.
        children: the next pass by what it is asked for.
    """

    logits: np.ndarray
    active: np.ndarray
    products: np.ndarray
    children: dict[Index, Node] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The tree as mappings of arrays."""
        return {**vars(self), "children": {key: node.plain() for key, node in self.children.items()}}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Node:
        """The tree of :meth:`plain`."""
        return cls(**{**plain, "children": {key: cls.of(node) for key, node in plain["children"].items()}})

    def __len__(self) -> int:
        return 1 + sum(map(len, self.children.values()))


@dataclass
class Tree:
    """One mixture."""

    utt: str
    ref_labels: list[str]
    prior: np.ndarray | None
    """Probability of each class in the mixture by the taggers [C]; None without taggers."""
    root: Node


@dataclass
class Trees:
    """All mixtures of a validation set."""

    labels: LabelSet
    items: list[Tree]

    def plain(self) -> dict[str, Any]:
        """The content as plain data."""
        items = [{**vars(item), "root": item.root.plain()} for item in self.items]
        return {"labels": self.labels.names, "items": items}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Trees:
        """The content of :meth:`plain`."""
        items = [Tree(**{**item, "root": Node.of(item["root"])}) for item in plain["items"]]
        return cls(LabelSet(tuple(plain["labels"])), items)


@dataclass
class Grow:
    """Job that makes the tree of a mixture."""

    system: S5System
    data: DataDir
    posteriors: Tables | None
    space: Space

    def __call__(self, utt: str) -> Tree:
        """Runs USS, and all passes that any setting leads to."""
        system, config = self.system, self.system.config
        mixture, _ = self.data.mixture(utt, system.sampling_rate)
        ref_labels = list(self.data.labels[utt])
        fixed = np.concatenate([self.data.sources(utt)[: len(ref_labels)], mixture[:1]]).astype(np.float64)
        prior = system.prior(self.posteriors.of(utt)) if self.posteriors else None
        networks, limits = system.networks, config.objects.limits(system.labels)
        alphas = dict.fromkeys([config.objects.alpha, *self.space.alpha]) if prior is not None else [0.0]
        low, high = [f([*limits, *self.space.thresholds]) for f in (min, max)]

        def node(waveforms: np.ndarray, features: Any, allowed: np.ndarray, depth: int) -> Node:
            logits, active = (one[0] for one in networks.classify(waveforms, features))
            active = np.where(allowed, active, -np.inf)
            stacked = np.concatenate([waveforms[0].astype(np.float64), fixed])
            found = Node(logits, active, stacked @ stacked.T)
            for index in _reachable(found, alphas, prior, low, high) if depth else ():
                kept = np.array(index) < len(limits)
                enrolments = waveforms * kept[None, :, None].astype(np.float32)
                asked = queries(np.array([index]), len(limits))
                child = networks.extract(mixture[None], asked, enrolments)
                found.children[index] = node(child, None, kept, depth - 1)
            return found

        waveforms, features = networks.separate(mixture[None])
        everything = np.ones(waveforms.shape[1], dtype=bool)
        root = node(waveforms, features, everything, max([config.objects.loops, *self.space.loops]))
        return Tree(utt, ref_labels, prior, root)


def _reachable(
    node: Node, alphas: Iterable[float], prior: np.ndarray | None, low: float, high: float
) -> Iterator[Index]:
    """Queries that any setting makes for the next extraction. A slot is silent below all thresholds, active above all
    of them, and either between. An extraction of nothing is left out.
    """
    active = expit(node.active.astype(np.float64))
    found: dict[Index, None] = {}
    for alpha in alphas:
        classes = class_log_probability(node.logits, alpha, prior).argmax(-1).tolist()
        silent = node.logits.shape[1]
        choices = [
            [silent] * bool(share < high) + [label] * bool(share >= low and allowed)
            for label, share, allowed in zip(classes, active.tolist(), node.active > -np.inf, strict=True)
        ]
        found |= dict.fromkeys(index for index in product(*choices) if min(index) < silent)
    yield from found


@dataclass(frozen=True)
class ObjectsTuning:
    """One point of the search."""

    loops: int
    alpha: float
    thresholds: tuple[float, ...]
    """Threshold of each label."""


class ObjectsSearch:
    """Scores of points, as of :class:`s5.tuning.search._Search`."""

    def __init__(self, cache: Trees, config: SystemConfig) -> None:
        self.cache, self.config = cache, config.objects
        self._values: dict[tuple[int, Index], float | None] = {}

    def start(self) -> ObjectsTuning:
        """The point of the system before the search."""
        limits = self.config.limits(self.cache.labels)
        return ObjectsTuning(self.config.loops, self.config.alpha, tuple(limits.tolist()))

    def score(self, point: ObjectsTuning) -> float:
        """Mean CAPI-SDRi in dB over the mixtures with a reference or an estimate."""
        kept = [value for item in self.cache.items if (value := self._value(item, point)) is not None]
        return float(np.mean(kept)) if kept else 0.0

    def _value(self, item: Tree, point: ObjectsTuning) -> float | None:
        node, limits = item.root, np.array(point.thresholds)
        index = self._decided(node, item, point, limits)
        for _ in range(point.loops):
            if min(index) == len(limits):
                break
            node = node.children[index]
            index = self._decided(node, item, point, limits)
        key = (id(node), index)
        if key not in self._values:
            slots = node.products[: len(index), : len(index)]
            final = without_duplicates(np.array(index), slots, self.config.duplicates, len(limits))
            kept = np.flatnonzero(final < len(limits))
            names = [self.cache.labels.name(int(final[k])) for k in kept]
            self._values[key] = improvement(node.products, np.eye(len(node.products))[kept], names, item.ref_labels)
        return self._values[key]

    @staticmethod
    def _decided(node: Node, item: Tree, point: ObjectsTuning, limits: np.ndarray) -> Index:
        log_p = class_log_probability(node.logits, point.alpha, item.prior)
        return tuple(
            np.where(
                np.isneginf(node.active), len(limits), decide(log_p, expit(node.active.astype(np.float64)), limits)
            ).tolist()
        )

    def best(self, points: Iterable[ObjectsTuning]) -> tuple[ObjectsTuning | None, float, int]:
        """The first point with the highest score, its score, and the number of points."""
        scores = [(point, self.score(point)) for point in points]
        found, highest = max(scores, key=lambda one: round(one[1], 9))
        return found, highest, len(scores)

    def coordinates(
        self, point: ObjectsTuning, space: Space
    ) -> list[tuple[str, Callable[..., str], Callable[..., Any]]]:
        """Each setting: its name, its text, and the search for the best point that differs only in it."""
        found: list[tuple[str, Callable[..., str], Callable[..., Any]]] = []

        def add(name: str, shown: Callable[..., str], points: Callable[..., Iterable[ObjectsTuning]]) -> None:
            found.append((name, shown, lambda p: self.best(points(p))))

        if space.loops:
            add("loops", lambda p: str(p.loops), lambda p: [p, *(replace(p, loops=n) for n in space.loops)])
        if space.alpha and any(item.prior is not None for item in self.cache.items):
            add("alpha", lambda p: f"{p.alpha:g}", lambda p: [p, *(replace(p, alpha=a) for a in space.alpha)])
        if space.thresholds:
            add("thresholds", _shown, partial(_equal, space.thresholds))
        for i, name in enumerate(self.cache.labels.names if space.thresholds else ()):
            if sum(name in item.ref_labels for item in self.cache.items) >= space.min_mixtures:
                add(f"threshold {name}", partial(_one_shown, i), partial(_with, i, space.thresholds))
        return found

    def yaml(self, start: ObjectsTuning, point: ObjectsTuning) -> dict[str, Any]:
        """Keys of a system's YAML in which two points differ."""
        changed: dict[str, Any] = {
            k: getattr(point, k) for k in ("loops", "alpha") if getattr(point, k) != getattr(start, k)
        }
        if point.thresholds != start.thresholds:
            changed["thresholds"] = dict(zip(self.cache.labels.names, point.thresholds, strict=True))
        return {"objects": changed} if changed else {}


def _equal(grid: Sequence[float], point: ObjectsTuning) -> Iterator[ObjectsTuning]:
    """The point, and the points with one threshold for all labels."""
    yield point
    yield from (replace(point, thresholds=(x,) * len(point.thresholds)) for x in grid)


def _with(i: int, grid: Sequence[float], point: ObjectsTuning) -> Iterator[ObjectsTuning]:
    """The point, and the points with another threshold of label i."""
    yield point
    yield from (replace(point, thresholds=(*point.thresholds[:i], x, *point.thresholds[i + 1 :])) for x in grid)


def _shown(point: ObjectsTuning) -> str:
    low, high = min(point.thresholds), max(point.thresholds)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _one_shown(i: int, point: ObjectsTuning) -> str:
    return f"{point.thresholds[i]:g}"
