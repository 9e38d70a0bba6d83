"""Plans a scene: stretches of files, impulse responses, onsets and levels.

All work on the scene's document and the files' headers is done here, so that the renderers only read and compute
(:mod:`s5.scene.rendering.cpu` on the CPU, :mod:`s5.scene.rendering.gpu` in batches). A plan is small and can be
pickled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s5.scene.audio import Clip, clip
from s5.scene.config import LOUDEST, MAX_SAMPLES
from s5.scene.rendering.room import SofaRoom, open_room
from s5.scene.rendering.rules import RenderRules
from s5.scene.rendering.variation import BANDS, Blend
from s5.scene.spec import Event, Scene, check_number, is_number, pop_fields
from s5.utils.errors import InputError


@dataclass(frozen=True)
class RoomColour:
    """Colour of a room's reverberation (:func:`s5.scene.rendering.variation.colour_room`).

    Attributes:
        gains: gains in dB at :data:`s5.scene.rendering.variation.BANDS`.
        rules, direct_range_ms: they tell the direct part, which has no colour.
    """

    gains: tuple[float, ...]
    rules: RenderRules
    direct_range_ms: tuple[float, float]


@dataclass(frozen=True)
class Response:
    """An impulse response of a room's file at the scene's rate. Hashable, as a cache's key."""

    path: str
    stamp: tuple[int, int]
    index: int
    rate: int
    ready: str = ""
    """Folder of prepared material; empty if there is none."""
    colour: RoomColour | None = None
    """Colour of its reverberation; None: as in the file."""

    @property
    def plain(self) -> Response:
        """The response without colour."""
        return self if self.colour is None else replace(self, colour=None)


@dataclass(frozen=True)
class PlannedEvent:
    """A target or an interferer.

    Attributes:
        clip: the source.
        length: length in samples to which a resampled source is cut; None: it is not cut.
        responses: one impulse response, or those that a moving event passes at equal intervals.
        onset: first sample in the scene.
        level: level of the whole wet signal in dB: 10 log10 of the mean square over channels and samples, with tail.
        slot: slot of a target; None for an interferer.
        blend: a second recording of the source; None: there is none.
        colour: gains in dB at :data:`s5.scene.rendering.variation.BANDS` of the source; empty: no filter.
    """

    clip: Clip
    length: int | None
    responses: tuple[Response, ...]
    onset: int
    level: float
    slot: int | None
    blend: Blend | None = None
    colour: tuple[float, ...] = ()

    @property
    def clips(self) -> list[Clip]:
        """The recordings."""
        return [self.clip] if self.blend is None else [self.clip, self.blend.clip]


@dataclass(frozen=True)
class PlannedBackground:
    """A background.

    Attributes:
        clip: the recording.
        fill: whether the rules extend it to the scene's length; otherwise it has that length, up to one sample.
        level: level in dB.
    """

    clip: Clip
    fill: bool
    level: float


@dataclass(frozen=True)
class Plan:
    """A scene, ready to render.

    Attributes:
        rate: sampling rate in Hz.
        n_samples, n_channels: T and M.
        labels: labels of the targets, by slot.
        events: events in the order of their addition.
        backgrounds: backgrounds, added before the events.
        rules: the scene's rules.
        direct_range_ms: direct part of an impulse response, ms before and after its peak.
    """

    rate: int
    n_samples: int
    n_channels: int
    labels: tuple[str, ...]
    events: tuple[PlannedEvent, ...]
    backgrounds: tuple[PlannedBackground, ...]
    rules: RenderRules
    direct_range_ms: tuple[float, float]

    @property
    def n_interferers(self) -> int:
        """Number of interferers."""
        return sum(event.slot is None for event in self.events)

    def with_slots(self, order: Sequence[int]) -> Plan:
        """The same scene with slot k taken from the present slot ``order[k]``."""
        slot = {int(old): new for new, old in enumerate(order)}
        events = (e if e.slot is None else replace(e, slot=slot[e.slot]) for e in self.events)
        return replace(self, labels=tuple(self.labels[int(old)] for old in order), events=tuple(events))


def plan(scene: Scene, root: str | Path = ".", ready: str = "") -> Plan:
    """Plans a scene from its document and the headers of its files.

    Args:
        scene: the scene.
        root: folder that the scene's relative paths start from.
        ready: folder of prepared material (:mod:`s5.scene.ready`).

    Raises:
        InputError: a file is missing or unreadable, or does not fit the scene.
    """
    config = scene.config
    room = open_room(os.path.join(root, scene.room.sofa_path))
    if room.rir_length * room.n_channels * config.sr / room.sampling_rate > MAX_SAMPLES:
        found = f"{room.rir_length} samples at {room.sampling_rate:g} Hz for a scene at {config.sr} Hz"
        raise InputError(f"{room.path}: Data.IR", found, f"at most {MAX_SAMPLES} samples of all channels")
    backgrounds = [_background(event, scene, room.n_channels, root, ready) for event in scene.bg_events]
    before, after = scene.room.direct_range_ms
    gains = _gains(scene.extra.get("room_colour"), "scene: key room_colour")
    colour = RoomColour(gains, scene.rules, (before, after)) if gains else None
    events = [
        _event(event, scene, room, colour, root, config.foreground_dir, slot, ready)
        for slot, event in enumerate(scene.targets)
    ]
    events += [
        _event(event, scene, room, colour, root, config.interference_dir, None, ready) for event in scene.interferers
    ]
    return Plan(
        rate=config.sr,
        n_samples=config.n_samples,
        n_channels=room.n_channels,
        labels=tuple(scene.labels),
        events=tuple(events),
        backgrounds=tuple(backgrounds),
        rules=scene.rules,
        direct_range_ms=(before, after),
    )


def _held(wanted: Clip, rate: int) -> Clip:
    """Returns a clip that memory can hold at a rate. Raises InputError for a longer one."""
    seconds = wanted.n_frames / wanted.info.rate
    if max(wanted.info.rate, rate) * seconds > MAX_SAMPLES:
        expected = f"at most {MAX_SAMPLES} samples at a time"
        raise InputError(wanted.path, f"{seconds:.0f} s at {wanted.info.rate} Hz for a scene at {rate} Hz", expected)
    return wanted


def event_path(root: str | Path, folder: str | None, event: Event) -> str:
    """Path of an event's file. As in SpAudSyn, its name may start with the folder or not."""
    return _path(root, folder, event.source_file)


def _path(root: str | Path, folder: str | None, name: str) -> str:
    if folder is not None and not name.startswith(folder):
        return os.path.join(root, folder, name)
    return os.path.join(root, name)


def _gains(value: Any, where: str) -> tuple[float, ...]:
    """Gains of a scene's key; empty without the key. Raises InputError naming ``where``."""
    if value is None:
        return ()
    good = isinstance(value, list) and len(value) == len(BANDS) and all(map(is_number, value))
    if not good or max(map(abs, value)) > LOUDEST:
        raise InputError(where, ascii(value)[:80], f"{len(BANDS)} gains in dB")
    return tuple(value)


def _blend(event: Event, root: str | Path, folder: str | None, rate: int, ready: str) -> Blend | None:
    if "blend" not in event.extra:
        return None
    number = (int, float)
    kinds = {"source_file": (str,), **dict.fromkeys(("source_time", "event_time", "event_duration", "snr"), number)}
    found, _ = pop_fields(event.extra["blend"], "event.blend", kinds)
    check_number(found["snr"], "event.blend.snr", LOUDEST)
    if min(found["source_time"], found["event_time"]) < 0 or found["event_duration"] <= 0:
        raise InputError("event.blend", ascii(found)[:80], "no negative time and a positive duration")
    path = _path(root, folder, found["source_file"])
    wanted = _held(clip(path, found["source_time"], found["event_duration"], ready), rate)
    return Blend(wanted, int(found["event_time"] * rate), found["snr"])


def _event(
    event: Event,
    scene: Scene,
    room: SofaRoom,
    colour: RoomColour | None,
    root: str | Path,
    folder: str | None,
    slot: int | None,
    ready: str,
) -> PlannedEvent:
    rate = scene.config.sr
    points = event.event_position or []
    found = _held(clip(event_path(root, folder, event), event.source_time or 0, event.event_duration, ready), rate)
    cut = scene.rules.cut_source and found.info.rate != rate
    return PlannedEvent(
        clip=found,
        length=int(event.event_duration * rate) if cut else None,
        responses=tuple(
            Response(room.path, room.stamp, scene.rules.find(room, p), rate, ready, colour) for p in points
        ),
        onset=int(event.event_time * rate),
        level=scene.config.ref_db + event.snr,
        slot=slot,
        blend=_blend(event, root, folder, rate, ready),
        colour=_gains(event.extra.get("colour"), "event: key colour"),
    )


def _background(event: Event, scene: Scene, n_channels: int, root: str | Path, ready: str) -> PlannedBackground:
    config = scene.config
    path = event_path(root, config.background_dir, event)
    fill = event.source_time is None
    duration = None if fill else event.event_duration
    found = _held(clip(path, event.source_time or 0, duration, ready), config.sr)
    if found.info.channels not in (1, n_channels):
        expected = f"{n_channels}, as the room's impulse responses have"
        raise InputError(path, f"{found.info.channels} channels", expected)
    # Truncating times twice may lose one sample.
    if not fill and found.n_frames * config.sr / found.info.rate + 1 < config.n_samples:
        reached = int((event.source_time or 0) * found.info.rate) + int(event.event_duration * found.info.rate)
        raise InputError(path, f"{found.info.n_frames} frames", f"at least {reached} for the scene's background")
    return PlannedBackground(found, fill, config.ref_db + event.snr)
