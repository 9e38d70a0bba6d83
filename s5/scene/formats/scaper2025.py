"""Scene files of DCASE 2025 Task 4, as the baseline's subclass of SpatialScaper writes them.

They are read into the same :class:`~s5.scene.spec.Scene` as those of 2026, with the rendering rules of 2025, and are
written back unchanged. A file in outline:

    {
        "config": {                                     the arguments of the Scaper; "init_args" in older files
            "foreground_dir": "data/dev_set/sound_event/valid", "background_dir": ..., "interference_dir": ...,
            "rir_dir": "data/dev_set/room_ir/valid",
            "duration": 10.0, "sr": 32000, "max_event_overlap": 3, "ref_db": -50,
            "ref_channel": 0, "spatialize_direct_path_time_ms": [6, 50], ...
        },
        "fg_events": [{"label": "Speech", "source_file": "Speech/a.wav", "source_time": 0, "event_time": 1.5,
                       "event_duration": 3.2, "snr": 9.1, "role": "foreground", "pitch_shift": null,
                       "time_stretch": null, "event_position": [[0.5, 1.2, 0.0]]}, ...],
        "bg_events": [...],
        "int_events": [...],                            missing in the first version, without interference
        "room": "place1.sofa"                           in rir_dir
    }

Positions are in the SOFA file's own coordinates, also spherical ones. ``pitch_shift`` and ``time_stretch`` were never
applied; they are kept, not rendered. ``ref_event``, the order of the slots, is in the second version of the list of
scenes (``valid.json``); it is also read, and written, beside ``room``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from s5.scene.config import LARGEST
from s5.scene.rendering.rules import DCASE2025
from s5.scene.spec import Event, Room, Scene, SceneConfig, check_range_ms, pop_fields
from s5.utils.errors import InputError

SCAPER_DEFAULTS: dict[str, Any] = {
    "duration": 60,
    "sr": 24000,
    "max_event_overlap": 2,
    "max_event_dur": 10.0,
    "ref_db": -60,
    "background_dir": None,
    "interference_dir": None,
}
"""The Scaper's defaults for keys that ``config`` lacks."""

DIRECT_RANGE_MS = [6, 50]
"""Default direct part of the dry target."""

NOT_APPLIED = ("pitch_shift", "time_stretch")
"""Keys of an event that the synthesiser of 2025 ignores."""

_FIRST = ("label", "source_file", "source_time", "event_time", "event_duration", "snr", "role")
KEYS = (*_FIRST, *NOT_APPLIED, "event_position")
"""Keys of an event, in the order of the Scaper's records."""

_LISTS = ("fg_events", "bg_events", "int_events")
_NULL = type(None)


def matches(data: Any) -> bool:
    """Whether a JSON object is a scene of the 2025 format: its room is the name of a file."""
    return isinstance(data, dict) and isinstance(data.get("room"), str)


def read(data: dict[str, Any], where: str = "scene") -> Scene:
    """Scene of a JSON object of the 2025 format. Raises InputError naming ``where`` and the key."""
    name = "config" if "config" in data or "init_args" not in data else "init_args"
    known, _ = pop_fields(data, where, {name: (dict,), "fg_events": (list,), "bg_events": (list,), "room": (str,)})
    config = known[name]
    pop_fields(config, f"{where}: {name}", {"rir_dir": (str,), "foreground_dir": (str,)})
    keys = [*SCAPER_DEFAULTS, "foreground_dir"]
    scene_config = SceneConfig.from_dict(
        {key: config.get(key, SCAPER_DEFAULTS.get(key)) for key in keys} | {"room_config": None, "verbose": False},
        f"{where}: {name}",
    )
    range_ms = config.get("spatialize_direct_path_time_ms") or DIRECT_RANGE_MS
    check_range_ms(range_ms, f"{where}: {name}.spatialize_direct_path_time_ms")
    fg_events, bg_events, int_events = (_events(data.get(key) or [], f"{where}: {key}") for key in _LISTS)
    scene = Scene(
        scene_config,
        fg_events,
        bg_events,
        int_events,
        Room(os.path.join(config["rir_dir"], known["room"]), direct_range_ms=list(range_ms)),
        # The document with its lists emptied, so that unknown keys are written back unchanged.
        extra={key: None if key in _LISTS else value for key, value in data.items() if key != "ref_event"},
        rules=replace(DCASE2025, reference_channel=_channel(config, f"{where}: {name}")),
    )
    if data.get("ref_event") is None:
        return scene
    return scene.with_slots(data["ref_event"], f"{where}: ref_event")


def write(scene: Scene) -> dict[str, Any]:
    """JSON object of a scene with the rules of 2025, with the keys of its file in their order."""
    document = dict(scene.extra)
    name = "config" if "config" in document else "init_args"
    config = dict(document[name])
    for key in (*SCAPER_DEFAULTS, "foreground_dir"):
        value = getattr(scene.config, key)
        if key in config or value != SCAPER_DEFAULTS[key]:
            config[key] = value
    document[name] = config
    for key in _LISTS:
        events = getattr(scene, key)
        if key in document or events:
            document[key] = [_record(event) for event in events]
    document["room"] = os.path.relpath(scene.room.sofa_path, config["rir_dir"])
    return document if scene.slots is None else document | {"ref_event": scene.slots}


def new_scene(
    config: dict[str, Any],
    room: str,
    fg_events: Sequence[Event],
    bg_events: Sequence[Event],
    int_events: Sequence[Event],
    slots: list[str],
) -> Scene:
    """New scene with the rules of 2025.

    ``config`` holds the arguments of the Scaper, ``room`` is the name of a SOFA file in its ``rir_dir``, and ``slots``
    are the labels in the order of the slots.
    """
    events = {"fg_events": fg_events, "bg_events": bg_events, "int_events": int_events}
    records = {key: [_record(event) for event in some] for key, some in events.items()}
    return read({"config": config, **records, "room": room, "ref_event": slots})


def _events(records: Any, where: str) -> list[Event]:
    if not isinstance(records, list):
        raise InputError(where, type(records).__name__, "a list of events")
    events = []
    for i, record in enumerate(records):
        here = f"{where}[{i}]"
        pop_fields(record, here, dict.fromkeys(NOT_APPLIED, (int, float, _NULL)))
        event = Event.from_dict(record, here)
        for key in NOT_APPLIED:
            if record[key] is not None:
                logging.warning("%s.%s is %s: not applied, as in the 2025 synthesiser", here, key, record[key])
        events.append(event)
    return events


def _record(event: Event) -> dict[str, Any]:
    values = event.to_dict()
    return {key: values.pop(key, None) for key in KEYS} | values


def _channel(config: dict[str, Any], where: str) -> int:
    channel = config.get("ref_channel", 0)
    if not isinstance(channel, int) or isinstance(channel, bool) or not 0 <= channel <= LARGEST:
        raise InputError(f"{where}.ref_channel", ascii(channel)[:80], "a channel's number, from 0")
    return channel
