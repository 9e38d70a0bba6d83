"""Random scenes by the rules of DCASE 2026 Task 4.

A sampler knows the folders (files with their durations, rooms with their positions) and draws scenes; rendering is
apart.
A scene depends on the configuration, the folders' content and one seed, on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from s5.config import load_yaml, parse, resolve
from s5.errors import InputError
from s5.labels import LabelSet
from s5.scene.room import SofaRoom
from s5.scene.spec import ROOM_MODULE, Event, Room, Scene, SceneConfig

AUDIO = (".flac", ".ogg", ".wav")
MAX_TRIES = 100
"""Draws of a scene's events before its request is refused."""


@dataclass
class SceneDirs:
    """Folders of the raw material, in the official layout; null where a scene shall hold none of a kind."""

    sound_event: str
    """``<Label>/<source folder>/<file>`` or ``<Label>/<file>``."""
    room_ir: str
    """A folder of SOFA files, or one such file."""
    interference: str | None = None
    """``<label>/<file>``."""
    noise: str | None = None
    """Multi-channel backgrounds."""


@dataclass
class SamplerConfig:
    """Keys of a sampler's YAML. Times in seconds, levels in dB, angles in degrees; ranges include both ends."""

    labels: str | list[str]
    """Path of a file with one label a line, or the labels."""
    sampling_rate: int
    duration: float
    dirs: SceneDirs
    seed: int = 0
    num_scenes: int = 1000
    """Scenes of a fixed set, or of one epoch."""
    n_events: tuple[int, int] = (0, 3)
    n_slots: int = 3
    same_class_probability: float = 0.5
    """Of a scene with two or more events to repeat labels."""
    same_class_min_angle: float = 60.0
    """Events of a label lie further apart than this, seen from the microphone."""
    max_same_class: int = 2
    """Most events that repeat a label already chosen."""
    max_event_overlap: int = 3
    max_event_duration: float = 10.0
    ref_db: float = -55.0
    event_snr: tuple[float, float] = (5.0, 20.0)
    interference: tuple[int, int] = (0, 2)
    interference_snr: tuple[float, float] = (0.0, 15.0)
    direct_range_ms: tuple[float, float] = (6.0, 50.0)
    """The dry target's part of the impulse response, before and after its largest sample."""


@dataclass(frozen=True)
class _File:
    name: str
    """Relative to its directory."""
    duration: float
    sampling_rate: int
    channels: int


@dataclass
class _RoomInfo:
    path: str
    room: SofaRoom
    directions: np.ndarray = field(init=False)
    """[M, 3] unit vectors; zero for a position at the microphone, which has no direction."""

    def __post_init__(self) -> None:
        distance = np.linalg.norm(self.room.positions, axis=1, keepdims=True)
        self.directions = self.room.positions / np.where(distance > 0, distance, np.inf)


class _Impossible(Exception):
    """A draw that cannot be completed; the reason in words."""


def scene_seed(config_hash: str, seed: int, epoch: int, item: int | str) -> int:
    """Seed of one scene, the same on any machine and for any number of workers.

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
        root: folder that the configuration's relative paths start from (and that its scenes are rendered from).
        where: what complaints name, e.g. the YAML file.

    Attributes:
        config: with ``labels`` as a list.
        fingerprint: hash of the rules: of the configuration without ``seed`` and ``num_scenes``, wherever its folders
            lie (of a folder, the last two names count).

    Raises:
        InputError: unknown key, impossible value, a folder that is missing or holds nothing usable.

    Example:
        sampler = Sampler.from_yaml("conf/scenes/train.yaml")
        scene = sampler.sample(scene_seed(sampler.fingerprint, sampler.config.seed, epoch, item))
    """

    def __init__(
        self, config: SamplerConfig | Mapping[str, Any], root: str | Path = ".", where: object = "sampler"
    ) -> None:
        # A configuration made in Python is parsed too: 5 and 5.0 have to give one fingerprint.
        config = parse(SamplerConfig, asdict(config) if isinstance(config, SamplerConfig) else config, where)
        self.root = str(root)
        self.where = where
        labels: str | list[str] = config.labels
        if isinstance(labels, str):
            path = Path(root, labels)
            labels = list(LabelSet.load(path if path.exists() else resolve(labels)).names)
        self.config = SamplerConfig(**{**vars(config), "labels": list(LabelSet(tuple(labels)).names)})
        _check(self.config, where)
        dirs = self.config.dirs
        self._events = {label: self._files(f"{dirs.sound_event}/{label}", dirs.sound_event) for label in labels}
        self._interference: dict[str, list[_File]] = {}
        if dirs.interference is not None:
            kinds = self._folders(dirs.interference)
            self._interference = {kind: self._files(f"{dirs.interference}/{kind}", dirs.interference) for kind in kinds}
        self._noise = self._files(dirs.noise, dirs.noise) if dirs.noise is not None else []
        self._rooms = self._find_rooms(dirs.room_ir)

    @classmethod
    def from_yaml(cls, path: str | Path, root: str | Path = ".") -> Sampler:
        """Reads a sampler's YAML file. Raises InputError naming the file and the key."""
        return cls(load_yaml(path), root, resolve(path))

    @property
    def fingerprint(self) -> str:
        """Hash of the rules; see the class."""
        rules = asdict(self.config)
        for key in ("seed", "num_scenes"):
            rules.pop(key)
        rules["dirs"] = {k: None if v is None else "/".join(Path(v).parts[-2:]) for k, v in rules["dirs"].items()}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data: what a virtual data directory's ``sampler.yaml`` holds."""
        return json.loads(json.dumps(asdict(self.config)))

    def files(self) -> Iterator[str]:
        """Paths of all audio files that scenes may use: backgrounds, events, interference."""
        dirs = self.config.dirs
        for folder, files in (
            (dirs.noise, self._noise),
            *((dirs.sound_event, files) for files in self._events.values()),
            *((dirs.interference, files) for files in self._interference.values()),
        ):
            for file in files:
                yield os.path.join(self.root, str(folder), file.name)

    def rooms(self) -> list[str]:
        """Paths of the SOFA files."""
        return [os.path.join(self.root, room.path) for room in self._rooms]

    def scene(self, epoch: int, item: int | str) -> Scene:
        """The scene of an item in an epoch, under the configuration's seed."""
        return self.sample(scene_seed(self.fingerprint, self.config.seed, epoch, item))

    def sample(self, seed: int) -> Scene:
        """Draws the scene of a seed.

        How many events, repeats and interferers there are is drawn once; what they are, where and when is drawn again
        where a draw cannot be completed (no source folder left, no position far enough, no room in time).

        Raises:
            InputError: no draw succeeded; the last reason is given.
        """
        rng, config = np.random.default_rng(seed), self.config
        n_events = int(rng.integers(config.n_events[0], config.n_events[1] + 1))
        n_repeats = 0
        if n_events >= 2 and rng.random() < config.same_class_probability:
            most = min(n_events - 1, config.max_same_class)
            n_repeats = int(rng.integers(1, most + 1)) if most else 0
        n_interferers = 0
        if self._interference:
            n_interferers = int(rng.integers(config.interference[0], config.interference[1] + 1))
        reason = ""
        for _ in range(MAX_TRIES):
            try:
                return self._draw(rng, n_events, n_repeats, n_interferers)
            except _Impossible as e:
                reason = str(e)
        raise InputError(
            self.where,
            f"no scene of {n_events} events ({n_repeats} of a repeated class) and {n_interferers} interferers "
            f"in {MAX_TRIES} tries ({reason})",
            "material and limits that allow one",
        )

    def _draw(self, rng: np.random.Generator, n_events: int, n_repeats: int, n_interferers: int) -> Scene:
        room = self._rooms[rng.integers(len(self._rooms))]
        events: list[Event] = []
        if n_events - n_repeats > len(self.config.labels):
            raise _Impossible(f"{n_events - n_repeats} different labels out of {len(self.config.labels)}")
        for i in rng.permutation(len(self.config.labels))[: n_events - n_repeats]:
            label = str(self.config.labels[i])
            file = _choose(rng, self._events[label])
            events.append(self._event(rng, label, file, _position(rng, room), events, "foreground"))
        chosen = [event.label for event in events]
        for _ in range(n_repeats):
            label = str(_choose(rng, chosen))
            same = [event for event in events if event.label == label]
            file = _choose(rng, self._unused(label, same))
            events.append(self._event(rng, label, file, self._apart(rng, room, same), events, "foreground"))
        interferers: list[Event] = []
        for _ in range(n_interferers):
            kind = _choose(rng, list(self._interference))
            file = _choose(rng, self._interference[kind])
            interferers.append(self._event(rng, kind, file, _position(rng, room), interferers, "interference"))
        backgrounds = [self._background(rng, room)] if self._noise else []
        return self._scene(room, events, backgrounds, interferers)

    def _event(
        self, rng: np.random.Generator, label: str, file: _File, position: np.ndarray, others: list[Event], role: str
    ) -> Event:
        config = self.config
        duration, source_time = file.duration, 0.0
        if duration > config.max_event_duration:
            source_time = float(rng.uniform(0, duration - config.max_event_duration))
            duration = config.max_event_duration
        low, high = config.event_snr if role == "foreground" else config.interference_snr
        return Event(
            label=label,
            source_file=file.name,
            source_time=source_time,
            event_time=_onset(rng, config.duration, duration, others, config.max_event_overlap),
            event_duration=duration,
            event_position=[position.tolist()],
            snr=float(rng.uniform(low, high)),
            role=role,
        )

    def _unused(self, label: str, used: Sequence[Event]) -> list[_File]:
        """Files of a label from other source folders than those used; one directly below the label excludes itself."""
        names = {event.source_file for event in used}
        folders = {_source_folder(name) for name in names} - {None}
        files = [f for f in self._events[label] if f.name not in names and _source_folder(f.name) not in folders]
        if not files:
            raise _Impossible(f"no other source folder of {label}")
        return files

    def _apart(self, rng: np.random.Generator, room: _RoomInfo, events: Sequence[Event]) -> np.ndarray:
        """A position whose direction differs from all those of the events by more than the minimum angle."""
        taken = np.array([event.event_position[0] for event in events if event.event_position])
        distance = np.linalg.norm(taken, axis=1, keepdims=True)
        cosine = room.directions @ (taken / np.where(distance > 0, distance, np.inf)).T
        angle = np.arccos(np.clip(cosine, -1, 1))
        # Further apart, not equally: rounding must not let in a neighbour at exactly the angle.
        least = math.radians(self.config.same_class_min_angle) + 1e-9
        free = np.flatnonzero((angle > least).all(axis=1))
        if not len(free):
            raise _Impossible(f"{room.path}: no position {self.config.same_class_min_angle:g} degrees away")
        return room.room.positions[free[rng.integers(len(free))]]

    def _background(self, rng: np.random.Generator, room: _RoomInfo) -> Event:
        file, duration = _choose(rng, self._noise), self.config.duration
        if file.channels != room.room.n_channels:
            path = os.path.join(self.root, str(self.config.dirs.noise), file.name)
            raise InputError(path, f"{file.channels} channels", f"{room.room.n_channels}, as {room.path} has")
        longer = file.duration > duration
        return Event(
            label=None,
            source_file=file.name,
            source_time=math.floor(rng.uniform(0, file.duration - duration)) if longer else None,
            event_time=0,
            event_duration=duration,
            event_position=None,
            snr=0,
            role="background",
        )

    def _scene(self, info: _RoomInfo, events: list[Event], backgrounds: list[Event], others: list[Event]) -> Scene:
        config, room = self.config, info.room
        window = list(config.direct_range_ms)
        return Scene(
            config=SceneConfig(
                duration=config.duration,
                sr=config.sampling_rate,
                max_event_overlap=config.max_event_overlap,
                max_event_dur=config.max_event_duration,
                ref_db=config.ref_db,
                foreground_dir=config.dirs.sound_event,
                background_dir=config.dirs.noise,
                interference_dir=config.dirs.interference,
                room_config={
                    "module": ROOM_MODULE,
                    "main": "SofaRoom",
                    "args": {"path": config.dirs.room_ir, "direct_range_ms": list(window)},
                },
            ),
            fg_events=sorted(events, key=lambda event: event.event_time),
            bg_events=backgrounds,
            int_events=sorted(others, key=lambda event: event.event_time),
            room=Room(
                sofa_path=info.path,
                sr=int(room.sampling_rate) if room.sampling_rate.is_integer() else room.sampling_rate,
                nchan=room.n_channels,
                nrir=room.n_positions,
                rir_len=room.rir_length,
                direct_range_ms=window,
            ),
        )

    def _folders(self, folder: str) -> list[str]:
        """Names of the folders below one, sorted."""
        path = os.path.join(self.root, folder)
        try:
            names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != ".")
        except OSError as e:
            raise InputError(path, e.strerror or "no folder", "a folder with a folder for each label") from e
        if not names:
            raise InputError(path, "no folder in it", "a folder for each label")
        return names

    def _files(self, folder: str, base: str) -> list[_File]:
        """Audio files at any depth below a folder, sorted, named relative to ``base``."""
        top = os.path.join(self.root, folder)
        if not os.path.isdir(top):
            raise InputError(top, "no folder", f"a folder with audio ({', '.join(AUDIO)})")
        names = sorted(
            os.path.relpath(os.path.join(parent, name), os.path.join(self.root, base))
            for parent, _, names in os.walk(top, followlinks=True)
            for name in names
            if name.lower().endswith(AUDIO) and name[0] != "."
        )
        if not names:
            raise InputError(top, "no audio in it", f"files of {', '.join(AUDIO)}")
        return [_measure(os.path.join(self.root, base, name), name) for name in names]

    def _find_rooms(self, folder: str) -> list[_RoomInfo]:
        path = os.path.join(self.root, folder)
        paths = [folder]
        if os.path.isdir(path):
            paths = [os.path.join(folder, name) for name in sorted(os.listdir(path)) if name.endswith(".sofa")]
        if not paths:
            raise InputError(path, "no SOFA file", "one or more")
        rooms = []
        for name in paths:
            room = SofaRoom(os.path.join(self.root, name))
            room.close()
            rooms.append(_RoomInfo(name, room))
        return rooms


def _check(config: SamplerConfig, where: object) -> None:
    """Values that no scene can be made of."""

    def refuse(key: str, found: object, expected: str) -> None:
        raise InputError(f"{where}: key {key}", found, expected)

    for key in ("n_events", "interference", "event_snr", "interference_snr"):
        low, high = getattr(config, key)
        if low > high or (key in ("n_events", "interference") and low < 0):
            refuse(key, [low, high], "[least, most]")
    for key in ("sampling_rate", "duration", "max_event_duration", "max_event_overlap", "n_slots", "num_scenes"):
        if getattr(config, key) <= 0:
            refuse(key, getattr(config, key), "more than 0")
    if config.n_events[1] > config.n_slots:
        refuse("n_events", list(config.n_events), f"at most n_slots ({config.n_slots})")
    if config.max_event_duration > config.duration:
        refuse("max_event_duration", config.max_event_duration, f"at most duration ({config.duration})")
    if not 0 <= config.same_class_probability <= 1:
        refuse("same_class_probability", config.same_class_probability, "0 to 1")
    if not 0 <= config.same_class_min_angle < 180:
        refuse("same_class_min_angle", config.same_class_min_angle, "0 to below 180 degrees")
    if min(config.direct_range_ms) < 0:
        refuse("direct_range_ms", list(config.direct_range_ms), "two numbers of ms from 0")
    if config.interference[0] > 0 and config.dirs.interference is None:
        refuse("dirs.interference", "null", f"a folder, as interference starts from {config.interference[0]}")


def _measure(path: str, name: str) -> _File:
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as e:
        raise InputError(path, "a file that libsndfile cannot read", "an audio file") from e
    if not info.frames:
        raise InputError(path, "no sample", "an audio file")
    return _File(name, info.frames / info.samplerate, info.samplerate, info.channels)


def _choose(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))]


def _position(rng: np.random.Generator, room: _RoomInfo) -> np.ndarray:
    return room.room.positions[rng.integers(room.room.n_positions)]


def _source_folder(name: str) -> str | None:
    """The folder directly below the label that a file lies in; None for one directly in its label's folder."""
    parts = name.split(os.sep)
    return parts[1] if len(parts) > 2 else None


def _onset(rng: np.random.Generator, length: float, duration: float, others: Sequence[Event], limit: int) -> float:
    """An onset, uniform over those at which at no time more than ``limit`` events sound."""
    latest = length - duration
    if len(others) < limit:
        return float(rng.uniform(0, latest))
    # Stretches of time in which the others already reach the limit; the event must end before or start after each.
    changes = sorted((t, d) for e in others for t, d in ((e.event_time, 1), (e.event_time + e.event_duration, -1)))
    free: list[tuple[float, float]] = []
    start, count = 0.0, 0
    for time, change in [*changes, (length, limit)]:
        before, count = count, count + change
        if before < limit <= count:
            free.append((start, min(time, length) - duration))
        elif count < limit <= before:
            start = time
    free = [(a, b) for a, b in free if b >= a]
    if not free:
        raise _Impossible(f"no onset for {duration:g} s under the overlap limit of {limit}")
    widths = np.array([b - a for a, b in free])
    total = widths.sum()
    a, b = free[int(rng.choice(len(free), p=widths / total if total > 0 else None))]
    return float(rng.uniform(a, b))
