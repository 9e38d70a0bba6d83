"""Draws random scenes by the rules of DCASE 2026 or 2025 Task 4, from a configuration and a seed.

A scene depends on the configuration, the content of the folders and one seed, on nothing else. Rendering is separate
(:mod:`s5.scene.rendering`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from s5.labels import LabelSet
from s5.scene.config import LARGEST, LOUDEST, SamplerConfig, Subset
from s5.scene.placement import PlacementRules2025, PlacementRules2026, RejectedDraw
from s5.scene.pool import SourcePool
from s5.scene.spec import Scene, check_length, check_number
from s5.utils.config import load_inherited, parse, resolve
from s5.utils.errors import InputError

MAX_TRIES = 100
"""Number of draws for a scene before its request is refused."""

MOST_COLOUR = 40.0
"""Largest gain of a colour in dB: a filter of 16 ms follows no steeper one."""

NOT_RULES = ("seed", "num_scenes", "spatialscaper", "rest")
"""Keys that do not enter a sampler's fingerprint."""

LATER_RULES: dict[str, Any] = {
    "rules": "dcase2026",
    "same_class_folder_depth": 1,
    "colour": 0.0,
    "room_colour": 0.0,
    "blend": 0.0,
    "subsets": None,
}
"""Keys that were added later. Their defaults do not enter the fingerprint, so scenes of older configurations stay."""


def scene_seed(config_hash: str, seed: int, epoch: int, item: int | str) -> int:
    """Seed of a scene, the same on any machine and for any number of workers.

    Example:
        >>> scene_seed("abc", 0, 1, 2) == scene_seed("abc", 0, 1, 2) != scene_seed("abc", 0, 2, 2)
        True
    """
    key = json.dumps([config_hash, seed, epoch, item]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little")


class Sampler:
    """Draws scenes.

    Args:
        config: a :class:`SamplerConfig`, or its keys as a mapping.
        root: folder that the configuration's relative paths start from, and that its scenes are rendered from.
        where: the name in errors, e.g. the YAML file.
        exclude: paths of files, as ``material`` returns them, that no scene may use.

    Attributes:
        config: the configuration, with ``labels`` as a list.
        excluded: the paths of ``exclude``.
        material: the files and rooms that scenes may use.
        fingerprint: hash of the rules: the configuration without ``seed``, ``num_scenes``, ``spatialscaper`` and
            ``rest``, and with only the last two names of each folder.

    Raises:
        InputError: a key is unknown, a value is impossible, or a folder is missing or holds nothing usable.

    Example:
        sampler = Sampler.from_yaml("conf/scenes/train.yaml")
        scene = sampler.sample(scene_seed(sampler.fingerprint, sampler.config.seed, epoch, item))
    """

    def __init__(
        self,
        config: SamplerConfig | Mapping[str, Any],
        root: str | Path = ".",
        where: object = "sampler",
        exclude: Iterable[str] = (),
    ) -> None:
        # A configuration made in Python is parsed too, so that 5 and 5.0 have the same fingerprint.
        config = parse(SamplerConfig, asdict(config) if isinstance(config, SamplerConfig) else config, where)
        self.root = str(root)
        self.where = where
        labels: str | list[str] = config.labels
        if isinstance(labels, str):
            path = Path(root, labels)
            labels = list(LabelSet.load(path if path.exists() else resolve(labels)).names)
        self.config = SamplerConfig(**{**vars(config), "labels": list(LabelSet(tuple(labels)).names)})
        _check(self.config, where)
        self.excluded = frozenset(exclude)
        nested = self.config.rules != "dcase2025"
        self.material = SourcePool(self.config.dirs, self.config.labels, self.root, nested, self.excluded)
        self._draw = (PlacementRules2026 if nested else PlacementRules2025)(self.config, self.material)

    @classmethod
    def from_yaml(cls, path: str | Path, root: str | Path = ".", exclude: Iterable[str] = ()) -> Sampler:
        """Reads a sampler's YAML file and those it inherits from. Raises InputError naming the file and the key."""
        return cls(load_inherited(path), root, resolve(path), exclude)

    @property
    def fingerprint(self) -> str:
        """Hash of the rules; see the class."""
        return fingerprint(self.config)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data, for the ``sampler.yaml`` of a virtual set.

        The key ``rest``, which concerns fixed sets alone, is left out.
        """
        keys = json.loads(json.dumps(asdict(self.config)))
        del keys["rest"]
        return keys

    @property
    def n_interference(self) -> int:
        """I, the most interferers of a scene."""
        return self.config.interference[1] if self.material.interference else 0

    def scene(self, epoch: int, item: int | str) -> Scene:
        """Scene of an item in an epoch, with the configuration's seed and the subset of the item."""
        subset = self.subset(item) if isinstance(item, int) else None
        return self.sample(scene_seed(self.fingerprint, self.config.seed, epoch, item), subset)

    def subset(self, item: int) -> Subset | None:
        """Subset of an item (from 0, modulo ``num_scenes``); None without subsets."""
        if self.config.subsets is None:
            return None
        ends = np.cumsum(_shares([subset.num_scenes for subset in self.config.subsets], self.config.num_scenes))
        return self.config.subsets[int(np.searchsorted(ends, item % self.config.num_scenes, side="right"))]

    def sample(self, seed: int, subset: Subset | None = None) -> Scene:
        """Draws the scene of a seed.

        The numbers of events, repeats and interferers are drawn once. Files, positions and onsets are drawn again if a
        draw cannot be completed (no source folder left, no position far enough, no time left).

        Args:
            seed: e.g. from :func:`scene_seed`.
            subset: one of the configuration's subsets; None: drawn by their shares in the set.

        Raises:
            InputError: no draw succeeded; the error names the last reason.
        """
        rng, config = np.random.default_rng(seed), self.config
        if subset is None and config.subsets is not None:
            shares = np.array([subset.num_scenes for subset in config.subsets])
            subset = config.subsets[int(rng.choice(len(shares), p=shares / shares.sum()))]
        of = config if subset is None else subset
        n_events = int(rng.integers(of.n_events[0], of.n_events[1] + 1))
        n_repeats = 0
        if n_events >= 2 and rng.random() < of.same_class_probability:
            most = min(n_events - 1, config.max_same_class)
            n_repeats = int(rng.integers(1, most + 1)) if most else 0
        n_repeats = max(n_repeats, self._least_repeats(of, n_events))
        n_interferers = 0
        if self.material.interference:
            n_interferers = int(rng.integers(config.interference[0], config.interference[1] + 1))
        return self._complete(rng, n_events, n_repeats, n_interferers)

    def check_requests(self) -> None:
        """Draws a scene for each number of events and of repeats of a class, with the most interferers.

        Raises InputError if no draw completes one of them.
        """
        rng, config = np.random.default_rng(0), self.config
        n_interferers = config.interference[1] if self.material.interference else 0
        parts: Sequence[SamplerConfig | Subset] = config.subsets or [config]
        for of in parts:
            for n_events in range(of.n_events[0], of.n_events[1] + 1):
                least = self._least_repeats(of, n_events)
                most = min(n_events - 1, config.max_same_class) if of.same_class_probability > 0 else 0
                for n_repeats in range(least, max(least, most) + 1):
                    self._complete(rng, n_events, n_repeats, n_interferers)

    def _least_repeats(self, of: SamplerConfig | Subset, n_events: int) -> int:
        """Least repeats for which the labels suffice; 0 if the limits forbid them, so that the request is refused."""
        missing = max(0, n_events - len(self.config.labels))
        return missing if of.same_class_probability > 0 and missing <= self.config.max_same_class else 0

    def _complete(self, rng: np.random.Generator, n_events: int, n_repeats: int, n_interferers: int) -> Scene:
        reason = ""
        for _ in range(MAX_TRIES):
            try:
                return self._draw.scene(rng, n_events, n_repeats, n_interferers)
            except RejectedDraw as e:
                reason = str(e)
        raise InputError(
            self.where,
            f"no scene of {n_events} events ({n_repeats} of a repeated class) and {n_interferers} interferers "
            f"in {MAX_TRIES} tries ({reason})",
            "material and limits that allow such a scene",
        )


def fingerprint(config: SamplerConfig) -> str:
    """Hash of a configuration's rules, with its labels as a list; see :class:`Sampler`."""
    rules = asdict(config)
    for key in NOT_RULES:
        rules.pop(key)
    for key, default in LATER_RULES.items():
        if rules[key] == default:
            rules.pop(key)
    for subset in rules.get("subsets", ()):
        for key in ("name", "num_scenes"):
            subset.pop(key)
    rules["dirs"] = {k: None if v is None else "/".join(Path(v).parts[-2:]) for k, v in rules["dirs"].items()}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def _shares(counts: list[int], total: int) -> list[int]:
    """Scales counts to a total; those with the largest remainders are rounded up.

    Example:
        >>> _shares([600, 600, 1800], 10), _shares([600, 600], 1200)
        ([2, 2, 6], [600, 600])
    """
    exact = [count * total / sum(counts) for count in counts]
    shares = [int(share) for share in exact]
    order = sorted(range(len(counts)), key=lambda i: shares[i] - exact[i])
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _check(config: SamplerConfig, where: object, prefix: str = "") -> None:
    """Raises InputError for values that allow no scene."""

    def check(key: str, good: bool, expected: str) -> None:
        if not good:
            found = attrgetter(key)(config)
            found = list(found) if isinstance(found, tuple) else "null" if found is None else found
            raise InputError(f"{where}: key {prefix}{key}", found, expected)

    for key in ("event_snr", "interference_snr", "ref_db", "direct_range_ms"):
        value, most = getattr(config, key), LARGEST if key == "direct_range_ms" else LOUDEST
        for number in value if isinstance(value, tuple) else [value]:
            check_number(number, f"{where}: key {prefix}{key}", most)
    for key in ("n_events", "interference", "event_snr", "interference_snr"):
        low, high = getattr(config, key)
        check(key, low <= high and (low >= 0 or key.endswith("snr")), "[least, most]")
    for key in ("num_scenes", "sampling_rate", "duration", "max_event_duration", "max_event_overlap", "n_slots"):
        check(key, getattr(config, key) > 0, "more than 0")
    check_length(config.duration, config.sampling_rate, f"{where}: key {prefix}", ("duration", "sampling_rate"))
    check("n_events", config.n_events[1] <= config.n_slots, f"at most n_slots ({config.n_slots})")
    check("max_event_duration", config.max_event_duration <= config.duration, f"at most duration ({config.duration})")
    check("same_class_probability", 0 <= config.same_class_probability <= 1, "0 to 1")
    check("blend", 0 <= config.blend <= 1, "0 to 1")
    for key in ("colour", "room_colour"):
        check(key, 0 <= getattr(config, key) <= MOST_COLOUR, f"0 to {MOST_COLOUR:g} dB")
    check("same_class_min_angle", 0 <= config.same_class_min_angle < 180, "0 to below 180 degrees")
    check("spatialscaper.moving_probability", 0 <= config.spatialscaper.moving_probability <= 1, "0 to 1")
    check("spatialscaper.speed_limit", config.spatialscaper.speed_limit > 0, "more than 0 m/s")
    check("direct_range_ms", min(config.direct_range_ms) >= 0, "two numbers of ms from 0")
    least = config.interference[0]
    none_needed = config.dirs.interference is not None or least == 0
    check("dirs.interference", none_needed, f"a folder, as interference starts from {least}")
    check("same_class_folder_depth", config.same_class_folder_depth >= 0, "0 or more")
    distinct = config.rules != "dcase2025" or config.same_class_probability == 0 or bool(config.subsets)
    check("same_class_probability", distinct, "0, as rules is dcase2025: its labels differ")
    check("subsets", config.subsets != [], "one or more")
    for i, subset in enumerate(config.subsets or ()):
        keys = {key: value for key, value in vars(subset).items() if key != "name"}
        _check(replace(config, subsets=None, **keys), where, f"subsets[{i}].")
