"""Data of a validation set that a search needs, from one run of the networks.

The cache holds the posteriors of each mixture. For every label sequence that a setting of the vote leads to, it holds
the inner products of all waveforms: the separators' outputs at all strengths of sharpening, the references and the
mixture. The SDR of any weighted sum of the outputs follows from them (|s - sum w y|^2 is a quadratic form of w).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s5.checkpoints import allowing, plain_kinds
from s5.data import DataDir
from s5.fusion import is_multi_hot
from s5.inference import stages
from s5.inference.results import Results, Tables
from s5.labels import LabelSet
from s5.system.system import NETWORKS, S5System
from s5.tuning.objects import Grow, Trees
from s5.tuning.space import Setting, Space, decisions, vote_settings
from s5.utils.errors import InputError
from s5.utils.files import atomic_write
from s5.utils.parallel import run_jobs

FILE = "tuning.pt"
FORBIDDEN = ("test", "eval")
"""Beginnings of words that mark a data directory as a test set, which is not tuned on."""


@dataclass
class Item:
    """One mixture."""

    utt: str
    posteriors: list[np.ndarray]
    """Posteriors of each tagger, in the system's order."""
    ref_labels: list[str]
    n_samples: int
    choice: np.ndarray
    """Row of ``winners`` for each setting of the vote [settings]."""
    winners: np.ndarray
    """Classes of the slots [n, K], C for silence."""
    products: dict[tuple[int, ...], np.ndarray]
    """Inner products [signals, signals] float64 of each label sequence. The signals are the active slots of each
    variant, then the references, then the mixture's reference channel."""


@dataclass
class Cache:
    """All mixtures of a validation set."""

    labels: LabelSet
    n_slots: int
    variants: list[tuple[str, float]]
    """Separator and strength of sharpening of each block of ``products``."""
    settings: list[Setting]
    """Settings of the vote. The first one is the system's own."""
    items: list[Item]

    def plain(self) -> dict[str, Any]:
        """The content as plain data."""
        items = [vars(item) for item in self.items]
        return {**vars(self), "labels": self.labels.names, "settings": [(*s,) for s in self.settings], "items": items}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Cache:
        """The content of :meth:`plain`."""
        settings = [Setting(*setting) for setting in plain["settings"]]
        items = [Item(**item) for item in plain["items"]]
        return cls(**{**plain, "labels": LabelSet(plain["labels"]), "settings": settings, "items": items})


def collect(system: S5System, data: DataDir, out: str | Path, space: Space, nj: int = 1) -> Cache | Trees:
    """Reads the cache of a system on a validation set from ``<out>/tuning.pt``, or makes and writes it.

    Args:
        system: the system.
        data: validation set with references. InputError for a test set or for one without references.
        out: results folder. A new cache also writes ``<out>/posteriors``.
        space: settings to search.
        nj: number of processes.
    """
    _refuse_test_set(data)
    path = Path(out, FILE)
    mark = _fingerprint(system, data, space)
    objects = system.config.kind == "objects"
    kind = Trees if objects else Cache
    if path.is_file() and (cached := _load(path, mark, kind)) is not None:
        logging.info("%s is up to date: the networks do not run again", path)
        return cached
    posteriors = None
    if taggers := [model.name for model in system.config.taggers]:
        stages.tag(system, data, out, nj=nj)
        posteriors = Results(out).posteriors.load(taggers)
    nj = stages.processes(system, nj)
    cache = _grown(system, data, posteriors, space, nj) if objects else _collected(system, data, posteriors, space, nj)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(cache, path, mark)
    return cache


def _collected(system: S5System, data: DataDir, posteriors: Tables | None, space: Space, nj: int) -> Cache:
    assert posteriors is not None
    given = [posteriors.of(data.utts[0])[m.name] for m in system.config.taggers]
    weights = list(system.config.weights().values())
    settings = vote_settings(space, system.config.vote, weights, is_multi_hot(given, len(posteriors.labels)))
    variants = _variants(system, space)
    job = _Collect(system, data, posteriors, settings, variants)
    items = list(run_jobs(job, data.utts, nj, "collect", NETWORKS))
    n_queries = sum(len(item.products) for item in items)
    logging.info("%d mixtures, %d settings of the vote, %d queries separated", len(items), len(settings), n_queries)
    return Cache(posteriors.labels, posteriors.n_slots, variants, settings, items)


def _grown(system: S5System, data: DataDir, posteriors: Tables | None, space: Space, nj: int) -> Trees:
    if system.config.separators:
        logging.warning("the search leaves out the separators: all figures are those of the extraction alone")
    items = list(run_jobs(Grow(system, data, posteriors, space), data.utts, nj, "collect", NETWORKS))
    passes = sum(len(item.root) for item in items)
    logging.info("%d mixtures, %d passes", len(items), passes)
    return Trees(system.labels, items)


def _refuse_test_set(data: DataDir) -> None:
    name = data.path.resolve().name
    if any(word.startswith(FORBIDDEN) for word in re.split(r"[^a-z0-9]+", name.lower())):
        raise InputError(
            f"--data {data.path}", f"a set named {name}", "a validation set, because a test set must not be tuned on"
        )
    if not data.has_sources:
        raise InputError(data.path, "no labels with dry sources", "a validation set with references")


def _variants(system: S5System, space: Space) -> list[tuple[str, float]]:
    """Each separator without sharpening, with the system's strength, and with the strengths to search."""
    variants = []
    for model in system.config.separators:
        own = system.config.fusion.sharpen.get(model.name, 0.0)
        variants += [(model.name, float(s)) for s in dict.fromkeys([0.0, own, *space.sharpen])]
    return variants


@dataclass
class _Collect:
    """Job that makes the item of a mixture."""

    system: S5System
    data: DataDir
    posteriors: Tables
    settings: Sequence[Setting]
    variants: Sequence[tuple[str, float]]

    def __call__(self, utt: str) -> Item:
        labels, n_slots = self.posteriors.labels, self.posteriors.n_slots
        tables = self.posteriors.of(utt)
        given = [tables[m.name] for m in self.system.config.taggers]
        multi_hot = is_multi_hot(given, len(labels))
        found = decisions(given, self.settings, self.system.config.vote, len(labels), n_slots, multi_hot)
        winners, choice = np.unique(found, axis=0, return_inverse=True)
        mixture, _ = self.data.mixture(utt, self.system.sampling_rate)
        ref_labels = list(self.data.labels[utt])
        references = self.data.sources(utt)[: len(ref_labels)]
        products = {}
        for row in winners:
            key = tuple(int(c) for c in row if c != len(labels))
            if key not in products:
                products[key] = self._products(key, mixture, references)
        return Item(utt, given, ref_labels, mixture.shape[1], choice.reshape(-1), winners, products)

    def _products(self, key: tuple[int, ...], mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
        names = [self.posteriors.labels.name(c) for c in key]
        outputs = self.system.separate(mixture, names) if names else {}
        variants = self.variants if names else ()
        signals = [self.system.sharpen(outputs[name], mixture, strength)[: len(names)] for name, strength in variants]
        stacked = np.concatenate([*signals, references, mixture[:1]]).astype(np.float64)
        return stacked @ stacked.T


def _fingerprint(system: S5System, data: DataDir, space: Space) -> str:
    """Checksum of everything that the cache depends on."""
    from s5.system.trained import best_checkpoint

    config = system.config
    models = [
        [model.name, *_state(best_checkpoint(system.expdir / model.folder(), model.checkpoint))]
        for _, model in config.all_models()
    ]
    files = {utt: _state(data.mixture_path(utt)) for utt in data.utts}
    names = ("vote_step", "vote_step_many", "gamma", "threshold", "sharpen", "loops", "alpha", "thresholds")
    grids = {name: getattr(space, name) for name in names}
    vote = [config.vote.rule, config.vote.aligned, config.vote.n_min, config.vote.gamma, config.vote.threshold]
    labels = sorted(data.labels.items())
    what = [
        models,
        files,
        labels,
        grids,
        vote,
        config.weights(),
        config.fusion.sharpen,
        system.precision,
        vars(config.objects),
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> list[str | int]:
    """Path, size and time of a file, which change when it is written again."""
    try:
        state = path.stat()
    except OSError as e:
        raise InputError(path, e.strerror, "a file") from e
    return [str(path), state.st_size, state.st_mtime_ns]


def _save(cache: Cache | Trees, path: Path, mark: str) -> None:
    with atomic_write(path) as file:
        torch.save({"mark": mark, **cache.plain()}, file)


def _load(path: Path, mark: str, kind: type[Cache] | type[Trees]) -> Cache | Trees | None:
    """Reads a cache; None if the file is damaged or of something else."""
    arrays = [np.ndarray, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]
    try:
        with allowing([*plain_kinds(), *arrays]):
            fields = torch.load(path, weights_only=True)
        return kind.of(fields) if fields.pop("mark") == mark else None
    except Exception as e:  # for example, a damaged file
        logging.warning("%s cannot be read (%s) and is made again", path, type(e).__name__)
        return None
