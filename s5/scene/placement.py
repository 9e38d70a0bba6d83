"""Draws the contents of a scene by the rules of DCASE 2026 (SpAudSyn with the baseline's data set) and of 2025.

The numbers of events, repeats and interferers are given; files, positions and onsets are drawn here. A draw that cannot
be completed raises :class:`RejectedDraw` with the reason; the sampler tries again or refuses the request.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from s5.scene.formats import scaper2025
from s5.scene.pool import AudioFile, RoomInfo, SourcePool
from s5.scene.rendering.room import SofaRoom
from s5.scene.rendering.variation import BANDS
from s5.scene.silence import cut_with_sound
from s5.scene.spec import ROOM_MODULE, Event, Room, Scene, SceneConfig
from s5.utils.errors import InputError

if TYPE_CHECKING:
    from s5.scene.config import SamplerConfig

INCREMENT_2025 = 0.1
"""Time step in s of the overlap test of 2025, and the margin that it adds to both ends of the other events."""

TRIES_2025 = 100
"""Number of onsets that the rules of 2025 try for an event."""


BLEND_SNR = (-12.0, 0.0)
"""Level of a blend's second recording in dB, relative to the first."""


class RejectedDraw(Exception):
    """A draw that cannot be completed, with the reason in words."""


class PlacementRules2026:
    """Draws scenes by the rules of DCASE 2026.

    Args:
        config: checked configuration of the sampler.
        material: the files and rooms to choose from.
    """

    def __init__(self, config: SamplerConfig, material: SourcePool) -> None:
        self.config, self.material = config, material
        self._folders: dict[str, list[AudioFile]] = {}
        for file in (file for files in material.events.values() for file in files):
            folder = file.source_folder(config.same_class_folder_depth)
            if folder is not None:
                self._folders.setdefault(folder, []).append(file)

    def scene(self, rng: np.random.Generator, n_events: int, n_repeats: int, n_interferers: int) -> Scene:
        """Draws a scene with ``n_events`` events, of which ``n_repeats`` repeat a label of the others.

        Raises:
            RejectedDraw: no file, position or onset is left for an event.
            InputError: a background does not fit the rooms.
        """
        config, material = self.config, self.material
        room = choose(rng, material.rooms)
        events: list[Event] = []
        if n_events - n_repeats > len(config.labels):
            raise RejectedDraw(f"{n_events - n_repeats} different labels out of {len(config.labels)}")
        for i in rng.permutation(len(config.labels))[: n_events - n_repeats]:
            label = str(config.labels[i])
            file = choose(rng, material.events[label])
            events.append(self._event(rng, label, file, self._position(rng, room), events, "foreground"))
        chosen = [event.label for event in events]
        for _ in range(n_repeats):
            label = str(choose(rng, chosen))
            same = [event for event in events if event.label == label]
            file = choose(rng, self._unused(label, same))
            events.append(self._event(rng, label, file, self._apart(rng, room, same), events, "foreground"))
        interferers: list[Event] = []
        for _ in range(n_interferers):
            kind = choose(rng, list(material.interference))
            file = choose(rng, material.interference[kind])
            interferers.append(self._event(rng, kind, file, self._position(rng, room), interferers, "interference"))
        backgrounds = [self._background(rng, room)] if material.noise else []
        scene = self._scene(room, events, backgrounds, interferers)
        if config.room_colour:
            scene.extra["room_colour"] = _gains(rng.spawn(1)[0], config.room_colour)
        return scene

    def _event(
        self,
        rng: np.random.Generator,
        label: str,
        file: AudioFile,
        position: np.ndarray,
        others: list[Event],
        role: str,
    ) -> Event:
        config = self.config
        duration, source_time = file.duration, 0.0
        if duration > config.max_event_duration:
            source_time = float(rng.uniform(0, duration - config.max_event_duration))
            duration = config.max_event_duration
            folder = config.dirs.sound_event if role == "foreground" else config.dirs.interference
            path = os.path.join(self.material.root, str(folder), file.name)
            source_time = cut_with_sound(rng, path, duration, source_time)
        low, high = config.event_snr if role == "foreground" else config.interference_snr
        event = Event(
            label=label,
            source_file=file.name,
            source_time=source_time,
            event_time=self._onset(rng, duration, others),
            event_duration=duration,
            event_position=[position.tolist()],
            snr=float(rng.uniform(low, high)),
            role=role,
        )
        self._vary(rng, event, file)
        return event

    def _vary(self, rng: np.random.Generator, event: Event, file: AudioFile) -> None:
        """Draws an event's variations from children of ``rng``, so that nothing else of a scene depends on them."""
        config = self.config
        if config.colour:
            event.extra["colour"] = _gains(rng.spawn(1)[0], config.colour)
        if config.blend and event.role == "foreground":
            child, folder = rng.spawn(1)[0], file.source_folder(config.same_class_folder_depth)
            others = [other for other in self._folders.get(folder or "", ()) if other.name != file.name]
            if others and child.random() < config.blend:
                second, duration = choose(child, others), event.event_duration
                longer = second.duration - duration
                event.extra["blend"] = {
                    "source_file": second.name,
                    "source_time": float(child.uniform(0, max(0, longer))),
                    "event_time": float(child.uniform(0, max(0, -longer))),
                    "event_duration": min(second.duration, duration),
                    "snr": float(child.uniform(*BLEND_SNR)),
                }

    def _position(self, rng: np.random.Generator, info: RoomInfo) -> np.ndarray:
        return info.room.positions[rng.integers(info.room.n_positions)]

    def _onset(self, rng: np.random.Generator, duration: float, others: Sequence[Event]) -> float:
        return onset_2026(rng, self.config.duration, duration, others, self.config.max_event_overlap)

    def _unused(self, label: str, used: Sequence[Event]) -> list[AudioFile]:
        """Files of a label outside the source folders in use. A file above such folders only excludes itself."""
        depth = self.config.same_class_folder_depth
        names = {event.source_file for event in used}
        files = self.material.events[label]
        folders = {file.source_folder(depth) for file in files if file.name in names} - {None}
        files = [file for file in files if file.name not in names and file.source_folder(depth) not in folders]
        if not files:
            raise RejectedDraw(f"no other source folder of {label}" if depth else f"no other file of {label}")
        return files

    def _apart(self, rng: np.random.Generator, info: RoomInfo, events: Sequence[Event]) -> np.ndarray:
        """Draws a position further than the minimum angle from all events."""
        taken = [event.event_position[0] for event in events if event.event_position]
        # The margin keeps rounding from admitting a neighbour at exactly the angle on some machines only.
        least = math.radians(self.config.same_class_min_angle) + 1e-9
        free = np.flatnonzero((angles(info.room.positions, taken) > least).all(axis=1))
        if not len(free):
            raise RejectedDraw(f"{info.path}: no position {self.config.same_class_min_angle:g} degrees away")
        return info.room.positions[free[rng.integers(len(free))]]

    def _background(self, rng: np.random.Generator, info: RoomInfo) -> Event:
        file, duration = choose(rng, self.material.noise), self.config.duration
        if file.channels != info.room.n_channels:
            path = os.path.join(self.material.root, str(self.config.dirs.noise), file.name)
            raise InputError(path, f"{file.channels} channels", f"{info.room.n_channels}, as {info.path} has")
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

    def _scene(self, info: RoomInfo, events: list[Event], backgrounds: list[Event], others: list[Event]) -> Scene:
        config = self.config
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
            room=describe_room(info.path, info.room, window),
        )


class PlacementRules2025(PlacementRules2026):
    """Draws scenes by the rules of DCASE 2025: distinct labels in class order, positions as in the SOFA file."""

    def _position(self, rng: np.random.Generator, info: RoomInfo) -> np.ndarray:
        return info.room.own_positions[rng.integers(info.room.n_positions)]

    def _onset(self, rng: np.random.Generator, duration: float, others: Sequence[Event]) -> float:
        return onset_2025(rng, self.config.duration, duration, others, self.config.max_event_overlap)

    def _scene(self, info: RoomInfo, events: list[Event], backgrounds: list[Event], others: list[Event]) -> Scene:
        config = self.config
        scaper: dict[str, Any] = {"foreground_dir": config.dirs.sound_event}
        for key, folder in (("background_dir", config.dirs.noise), ("interference_dir", config.dirs.interference)):
            if folder is not None:
                scaper[key] = folder
        scaper |= {
            "rir_dir": os.path.dirname(info.path),
            "duration": config.duration,
            "sr": config.sampling_rate,
            "max_event_overlap": config.max_event_overlap,
            "max_event_dur": config.max_event_duration,
            "ref_db": config.ref_db,
            "return_dry": True,
            "return_wet": False,
            "return_ir": False,
            "return_background": False,
            "ref_channel": 0,
            "spatialize_direct_path_time_ms": list(config.direct_range_ms),
        }
        for event in others:
            event.role = "foreground"  # the Scaper's name for them
        return scaper2025.new_scene(
            scaper,
            os.path.basename(info.path),
            sorted(events, key=lambda event: event.event_time),
            backgrounds,
            others,
            sorted((str(event.label) for event in events), key=config.labels.index),
        )


def describe_room(path: str, room: SofaRoom, direct_range_ms: list[float]) -> Room:
    """The room of a scene: the path, as the scene names it, and facts about the file."""
    rate = int(room.sampling_rate) if room.sampling_rate.is_integer() else room.sampling_rate
    return Room(path, rate, room.n_channels, room.n_positions, room.rir_length, direct_range_ms)


def _gains(rng: np.random.Generator, most: float) -> list[float]:
    """Gains in dB of a colour."""
    return rng.uniform(-most, most, len(BANDS)).tolist()


def angles(points: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Angles [P, Q] in radians between points [P, 3] and others [Q, 3], seen from the microphone.

    A point at the microphone has no direction; its angle to any other is a right one.

    Example:
        >>> np.degrees(angles([[1, 0, 0], [1, 1, 0]], [[0, 2, 0], [0, 0, 0]])).round().tolist()
        [[90.0, 90.0], [45.0, 90.0]]
    """
    distances = [np.linalg.norm(x, axis=1, keepdims=True) for x in (points, others)]
    a, b = (x / np.where(d > 0, d, np.inf) for x, d in zip((points, others), distances, strict=True))
    return np.arccos(np.clip(a @ b.T, -1, 1))


def choose(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """Draws one of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def onset_2026(rng: np.random.Generator, length: float, duration: float, others: Sequence[Event], limit: int) -> float:
    """Draws an onset (s) such that at most ``limit`` events sound at any time.

    The onset is uniform if there are fewer than ``limit`` others. Otherwise, as in SpAudSyn, one of the free stretches
    of time is chosen, all equally likely whatever their length, and the event is placed in it uniformly.

    Args:
        rng: source of randomness.
        length: length of the scene in s.
        duration: duration of the event in s.
        others: events already placed.
        limit: most events that sound at once.

    Raises:
        RejectedDraw: the event fits into no free stretch.
    """
    if len(others) < limit:
        return float(rng.uniform(0, length - duration))
    free: list[tuple[float, float]] = []
    count, start = 0, 0.0
    for time, change in [*_changes(others), (length, limit)]:
        before, count = count, count + change
        if before < limit <= count and time - start >= duration:
            free.append((start, time))
        elif count < limit <= before:
            start = time
    if duration == length or not free:
        raise RejectedDraw(f"no onset for {duration:g} s under the overlap limit of {limit}")
    start, end = choose(rng, free)
    return float(start + rng.uniform(0, end - start - duration))


def onset_2025(rng: np.random.Generator, length: float, duration: float, others: Sequence[Event], limit: int) -> float:
    """Draws an onset (s) by the rules of 2025; arguments and errors as :func:`onset_2026`.

    The rules test the overlap every 0.1 s, with the other events 0.1 s longer at both ends.
    """
    for _ in range(TRIES_2025):
        onset = float(rng.uniform(0, length - duration))
        times = np.arange(onset, onset + duration, INCREMENT_2025)
        sounding = np.zeros(len(times), dtype=int)
        for other in others:
            end = other.event_time + other.event_duration
            sounding += (times >= other.event_time - INCREMENT_2025) & (times <= end + INCREMENT_2025)
        if not (sounding >= limit).any():
            return onset
    raise RejectedDraw(f"no onset for {duration:g} s under the overlap limit of {limit} in {TRIES_2025} tries")


def _changes(events: Sequence[Event]) -> list[tuple[float, int]]:
    """Times of starts (1) and ends (-1) of events, in order; at equal times the starts come first."""
    starts = [(event.event_time, 1) for event in events]
    ends = [(event.event_time + event.event_duration, -1) for event in events]
    return sorted(starts + ends, key=lambda change: (change[0], -change[1]))
