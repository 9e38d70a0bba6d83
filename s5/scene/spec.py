"""Dataclasses of a scene, after SpAudSyn's scene metadata.

A scene fully determines a mixture. Its JSON has the form of SpAudSyn, the synthesiser of DCASE 2026 Task 4:
:meth:`Scene.load` reads the metadata of the official validation set, and :meth:`Scene.save` writes them back unchanged,
with unknown keys. :meth:`Scene.load` also reads the format of 2025 (:mod:`s5.scene.formats.scaper2025`), and
:mod:`s5.scene.formats.lists` reads lists of scenes. A foreground event in a file:

    {
        "label": "Speech",
        "source_file": "Speech/spk2/c.wav",              relative to config.foreground_dir, or a full path
        "source_time": 0,                                seconds into the file
        "event_time": 0.5178351343187518,                onset in the scene, seconds
        "event_duration": 0.75,                          seconds of the file that are used
        "event_position": [[0.75, -1.299038105676658, 0.0]],   cartesian, metres, as in the room's SOFA file
        "snr": 14.780475451312027,                       dB above config.ref_db
        "role": "foreground"
    }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from s5.data.header import RATES
from s5.scene.config import LARGEST, LOUDEST, MAX_SAMPLES
from s5.scene.rendering.rules import DCASE2026, RenderRules
from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.text import read_json

ROOM_MODULE = "src.modules.spatial_audio_synthesizer.room"
"""Module that the official code loads rooms from; scenes name it so that the official code can read them."""

_NUMBER = (int, float)
_NULL = type(None)


def pop_fields(data: Any, where: str, kinds: Mapping[str, tuple[type, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a JSON object into the required keys, whose types ``kinds`` gives, and all others.

    Raises InputError, naming ``where``, if ``data`` is no object, a key is missing or of another type, a number is not
    finite or too large, or a text has characters that no file name has.
    """
    if not isinstance(data, dict):
        raise InputError(where, type(data).__name__, "a JSON object")
    known = {}
    for key, allowed in kinds.items():
        if key not in data:
            raise InputError(where, f"no key {key}", "one")
        value = data[key]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join({_NULL: "null", dict: "object", list: "list"}.get(k, k.__name__) for k in allowed)
            raise InputError(f"{where}.{key}", ascii(value)[:80], names)
        if isinstance(value, _NUMBER):
            check_number(value, f"{where}.{key}")
        if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            raise InputError(f"{where}.{key}", ascii(value)[:80], "text")
        known[key] = value
    return known, {key: value for key, value in data.items() if key not in kinds}


def check_number(value: float, where: str, largest: float = LARGEST) -> None:
    """Raises InputError for a number that is not finite or has a magnitude above ``largest``."""
    if not -largest <= value <= largest:  # NaN fails too
        raise InputError(where, ascii(value)[:80], f"a number of at most {largest:g}")


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number that is not too large."""
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


@cache
def _kinds(cls: type) -> dict[str, tuple[type, ...]]:
    """JSON types of a dataclass's fields except ``extra``, from the type hints; whole numbers are numbers."""
    hints = {key: hint for key, hint in get_type_hints(cls).items() if key != "extra"}
    options = {key: get_args(hint) if isinstance(hint, UnionType) else (hint,) for key, hint in hints.items()}
    plain = {key: tuple(get_origin(option) or option for option in some) for key, some in options.items()}
    return {key: (int, *some) if float in some else some for key, some in plain.items()}


@dataclass
class Event:
    """One foreground, interference or background event; :mod:`s5.scene.spec` explains the fields.

    A background has neither label nor position; its ``source_time`` is null if the file is repeated to the scene's
    length. A moving event (simulator spatialscaper) has several positions and passes them at equal intervals.
    """

    label: str | None
    source_file: str
    source_time: float | None
    event_time: float
    event_duration: float
    event_position: list[list[float]] | None
    snr: float
    role: str
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Any, where: str = "event") -> Event:
        """Reads an event's JSON object. Raises InputError naming ``where`` and the key."""
        known, extra = pop_fields(data, where, _kinds(Event))
        event = cls(**known, extra=extra)
        check_number(event.snr, f"{where}.snr", LOUDEST)
        if event.event_duration <= 0 or event.event_time < 0 or (event.source_time or 0) < 0:
            times = f"source_time {event.source_time}, event_time {event.event_time}, duration {event.event_duration}"
            raise InputError(where, times, "no negative time and a positive duration")
        if event.role != "background":
            if event.label is None or event.source_time is None:
                raise InputError(where, "a null label or source_time", "values (only a background may have null)")
            points = event.event_position
            if not points or not all(_is_point(point) for point in points):
                raise InputError(f"{where}.event_position", ascii(points)[:80], "[[x, y, z]], several if it moves")
        return event

    def to_dict(self) -> dict[str, Any]:
        """The event's JSON object."""
        return {key: getattr(self, key) for key in _kinds(Event)} | self.extra


@dataclass
class SceneConfig:
    """The ``config`` of a scene: the settings that it was drawn with."""

    duration: float
    """Length of the scene in seconds."""
    sr: int
    """Sampling rate in Hz."""
    max_event_overlap: float
    max_event_dur: float
    ref_db: float
    """Level of the background in dB: 10 log10 of the mean square over channels and samples."""
    foreground_dir: str
    background_dir: str | None
    interference_dir: str | None
    room_config: dict[str, Any] | None = None
    verbose: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Any, where: str = "config") -> SceneConfig:
        """Reads the JSON object ``config``. Raises InputError naming ``where`` and the key."""
        known, extra = pop_fields(data, where, _kinds(SceneConfig))
        config = cls(**known, extra=extra)
        check_number(config.ref_db, f"{where}.ref_db", LOUDEST)
        check_length(config.duration, config.sr, where)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The JSON object ``config``."""
        return {key: getattr(self, key) for key in _kinds(SceneConfig)} | self.extra

    @property
    def n_samples(self) -> int:
        """Length of the scene in samples."""
        return int(self.duration * self.sr)


@dataclass
class Room:
    """The room of a scene: a SOFA file and facts about it (None if the scene's format lacks them)."""

    sofa_path: str
    sr: float | None = None
    """Sampling rate of the impulse responses in Hz."""
    nchan: int | None = None
    nrir: int | None = None
    rir_len: int | None = None
    """Length of the impulse responses in samples."""
    direct_range_ms: list[float] = field(default_factory=lambda: [6, 50])
    """Direct part of an impulse response: milliseconds before and after its largest sample."""
    module: str = ROOM_MODULE
    main: str = "SofaRoom.from_metadata"
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Any, where: str = "room") -> Room:
        """Reads the JSON object ``room``. Raises InputError naming ``where`` and the key."""
        outer, extra = pop_fields(data, where, {"module": (str,), "main": (str,), "args": (dict,)})
        args, extra_args = pop_fields(outer["args"], f"{where}.args", {"metadata": (dict,)})
        known, extra_metadata = pop_fields(args["metadata"], f"{where}.args.metadata", cls._metadata())
        check_range_ms(known["direct_range_ms"], f"{where}.args.metadata.direct_range_ms")
        others = {"room": extra, "args": extra_args, "metadata": extra_metadata}
        return cls(**known, module=outer["module"], main=outer["main"], extra={k: v for k, v in others.items() if v})

    @staticmethod
    def _metadata() -> dict[str, tuple[type, ...]]:
        """JSON types of ``args.metadata``, which SpAudSyn always fills."""
        kinds = {key: some for key, some in _kinds(Room).items() if key not in ("module", "main")}
        return {key: tuple(kind for kind in some if kind is not _NULL) for key, some in kinds.items()}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object ``room``."""
        metadata = {key: getattr(self, key) for key in self._metadata()} | self.extra.get("metadata", {})
        args = {"metadata": metadata} | self.extra.get("args", {})
        return {"module": self.module, "main": self.main, "args": args} | self.extra.get("room", {})


def check_length(duration: float, rate: int, where: str, keys: tuple[str, str] = (".duration", ".sr")) -> None:
    """Raises InputError if a scene of ``duration`` (s) at ``rate`` (Hz) has no sample, or too many for memory.

    The error names ``where`` followed by the key of the duration or of the rate.
    """
    low, high = RATES
    if not low <= rate <= high:
        raise InputError(f"{where}{keys[1]}", f"{rate} Hz", f"{low} to {high}")
    if not 1 <= duration * rate <= MAX_SAMPLES:
        expected = f"a sample or more, at most {MAX_SAMPLES // rate} s at {rate} Hz"
        raise InputError(f"{where}{keys[0]}", f"{duration:g} s", expected)


def check_range_ms(value: Any, where: str) -> None:
    """Raises InputError unless ``value`` is a range of the direct part, [before, after] in ms."""
    if not (isinstance(value, list) and len(value) == 2 and all(is_number(x) and x >= 0 for x in value)):
        raise InputError(where, ascii(value)[:80], "two numbers of ms, e.g. [6, 50]")


@dataclass
class Scene:
    """A scene: foreground events (the sources to separate), background, interference and a room.

    Directories and file names are relative to the folder that the scene is rendered from.

    Attributes:
        rules: rules of rendering, which also decide the file format.
        slots: labels in the order of the slots (2025: ``ref_event``); None: in onset order.
        extra: unknown keys of the file (2025: the whole document, see :mod:`s5.scene.formats.scaper2025`).
    """

    config: SceneConfig
    fg_events: list[Event]
    bg_events: list[Event]
    int_events: list[Event]
    room: Room
    extra: dict[str, Any] = field(default_factory=dict)
    rules: RenderRules = DCASE2026
    slots: list[str] | None = None

    @classmethod
    def from_dict(cls, data: Any, where: str = "scene") -> Scene:
        """Reads a scene's JSON object, of either challenge. Raises InputError naming ``where`` and the key."""
        scene = next(form for form in FORMATS.values() if form.matches(data)).read(data, where)
        for i, event in enumerate(scene.fg_events):
            if str(event.label).split() != [event.label]:
                raise InputError(f"{where}: fg_events[{i}].label", ascii(event.label)[:80], "a word")
            if int(event.event_time * scene.config.sr) >= scene.config.n_samples:
                found = f"{event.event_time:g} s in a scene of {scene.config.duration:g} s"
                raise InputError(f"{where}: fg_events[{i}].event_time", found, "a time within the scene")
        return scene

    def to_dict(self) -> dict[str, Any]:
        """The scene's JSON object: SpAudSyn's keys in SpAudSyn's order, or those of 2025."""
        return FORMATS[self.rules.name].write(self)

    @classmethod
    def load(cls, path: str | Path) -> Scene:
        """Reads a scene's JSON file, of either challenge. Raises InputError naming the file and the key."""
        return cls.from_dict(read_json(path, "a scene's JSON file"), str(path))

    def save(self, path: str | Path) -> None:
        """Writes the scene's JSON file as SpAudSyn does (under a temporary name first). The folder has to exist."""
        write_text(path, json.dumps(self.to_dict(), indent=4))

    @property
    def targets(self) -> list[Event]:
        """Foreground events in the order of the slots: by onset, unless ``slots`` says otherwise."""
        events = sorted(self.fg_events, key=lambda event: event.event_time)
        if self.slots is None:
            return events
        place = {label: slot for slot, label in enumerate(self.slots)}
        return sorted(events, key=lambda event: place[str(event.label)])

    @property
    def interferers(self) -> list[Event]:
        """Interference in onset order."""
        return sorted(self.int_events, key=lambda event: event.event_time)

    @property
    def labels(self) -> list[str]:
        """Labels of the foreground events in the order of the slots."""
        return [str(event.label) for event in self.targets]

    def with_slots(self, slots: list[str], where: object = "ref_event") -> Scene:
        """The scene with its slots in another order. Raises InputError if these are not the scene's labels."""
        listed = isinstance(slots, list) and all(isinstance(label, str) for label in slots)
        if not listed or sorted(slots) != sorted(self.labels) or len(set(slots)) < len(slots):
            expected = f"the scene's labels ({', '.join(self.labels) or 'none'}), each once"
            raise InputError(where, ascii(slots)[:80], expected)
        return replace(self, slots=list(slots))


FORMATS: dict[str, ModuleType] = {}
"""Formats of scene files: modules of :mod:`s5.scene.formats`, by the name of their scenes' rendering rules.

Each has ``matches(document)``, which says whether a JSON document is of this format (exactly one format matches each
document), ``read(document, where)``, which returns its scene or raises InputError, and ``write(scene)``, which returns
the document of a scene.
"""
