"""Finds audio and rooms that no scene should use, before one is made.

Bad audio has no samples, no sound, NaN or the wrong channels; bad rooms have impulse responses of zeros or NaN. The
files below a sampler's folders, or in a list of scenes, are read once, in parallel. The results are kept with the time
and size of each file, so the next check is quick. The content of a set therefore does not depend on which scene met a
bad file first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from s5.scene import audio
from s5.scene.config import SamplerConfig
from s5.scene.pool import SOFA, audio_names, room_names
from s5.scene.rendering.plan import event_path
from s5.scene.rendering.room import ZERO_CHANNEL, SofaRoom, open_room
from s5.scene.silence import STRETCH, is_silent, sounds
from s5.scene.spec import Scene
from s5.utils.errors import InputError
from s5.utils.files import write_bytes, write_text
from s5.utils.parallel import run_jobs
from s5.utils.text import read_json

REPORT = "bad_audio.tsv"
"""File in a data directory that lists each bad file and the reason, separated by a tab."""

EXCLUDED = "excluded.txt"
"""File in a virtual data directory that lists the audio that its scenes do not use."""

ALL_ZERO = "only zeros"
FAINT = "no sound above the rounding of its samples"
CANCELLED = "channels that cancel each other when they are mixed down"
SILENT = (ALL_ZERO, FAINT, CANCELLED)


@dataclass(frozen=True)
class Use:
    """The use of a file by scenes."""

    kind: Literal["source", "background", "room"]
    channels: frozenset[int] | None = None
    """Allowed numbers of channels; None: any."""
    reference: int = 0
    """Reference channel of the targets, for a room."""


@dataclass(frozen=True)
class Examined:
    """Result of reading a file."""

    channels: int = 0
    bad: str = ""
    """Defect of the file in words, if any."""
    silent_source: str = ""
    """Defect of the file as a source, which is mixed down."""
    zeros: dict[str, int] = field(default_factory=dict)
    """First response of a room in which a channel is zero, by the number of the channel."""

    def complaint(self, use: Use) -> str:
        """Defect of the file for a use; empty if it is good."""
        if self.bad:
            return self.bad
        if use.channels is not None and self.channels not in use.channels:
            return f"{self.channels} channels instead of {' or '.join(map(str, sorted(use.channels)))}"
        if use.kind == "room" and str(use.reference) in self.zeros:
            return f"zeros in the reference channel {use.reference} of Data.IR[{self.zeros[str(use.reference)]}]"
        return self.silent_source if use.kind == "source" else ""


@dataclass(frozen=True)
class Finding:
    """A bad file."""

    path: str
    reason: str
    silent: bool = False
    """Whether the file can be read but would be a silent event."""

    @property
    def name(self) -> str:
        """The path in its short form."""
        return os.path.normpath(self.path)


def material_files(config: SamplerConfig, labels: Sequence[str], root: str = ".") -> dict[str, Use]:
    """All audio files and rooms in a sampler's folders, by their paths as the sampler returns them.

    Takes the configuration, because a sampler cannot be made while a file is bad. ``labels`` are the folders of events
    that are used; relative paths start from ``root``.
    """
    dirs = config.dirs
    rooms = [path for name in room_names(root, dirs.room_ir) if os.path.exists(path := os.path.join(root, name))]
    files = dict.fromkeys(rooms, Use("room"))
    background = Use("background", frozenset(filter(None, map(_channels, rooms))) or None)
    for folder, label, use in (
        *((dirs.sound_event, label, Use("source")) for label in labels),
        (dirs.interference, "", Use("source")),
        (dirs.noise, "", background),
    ):
        if folder is not None:
            base = os.path.join(root, folder)
            files |= {os.path.join(base, name): use for name in audio_names(base, label)}
    return files


def scene_files(scene: Scene, root: str | Path = ".") -> dict[str, Use]:
    """The files that a scene uses. Its backgrounds may also have one channel."""
    config = scene.config
    room = os.path.join(root, scene.room.sofa_path)
    files = {room: Use("room", reference=scene.rules.reference_channel)}
    for folder, events in ((config.foreground_dir, scene.fg_events), (config.interference_dir, scene.int_events)):
        files |= {event_path(root, folder, event): Use("source") for event in events}
    channels = _channels(room)
    use = Use("background", frozenset((1, channels)) if channels else None)
    return files | {event_path(root, config.background_dir, event): use for event in scene.bg_events}


def silent_cuts(scene: Scene, root: str | Path = ".") -> list[Finding]:
    """Targets of a scene that are silent in the stretch of the file that the scene uses.

    Raises InputError if a file cannot be read.
    """
    found = []
    for event in scene.fg_events:
        path = event_path(root, scene.config.foreground_dir, event)
        cut = audio.clip(path, event.source_time or 0, event.event_duration)
        if not cut.whole and is_silent(cut):
            times = f"{event.source_time:g} to {(event.source_time or 0) + event.event_duration:g} s"
            found.append(Finding(path, f"no sound from {times}", silent=True))
    return found


def find_bad_audio(files: Mapping[str, Use], memory: Path | None = None, nj: int = 1) -> list[Finding]:
    """Reads all files and returns the bad ones, sorted by path.

    Args:
        files: use of each file by its path.
        memory: JSON file with earlier results, which is updated; None: no results are kept.
        nj: number of processes.
    """
    known = _remembered(memory)
    stamps = {path: _stamp(path) for path in sorted(files)}
    keys = {path: os.path.abspath(path) for path in stamps}
    unknown = [path for path, stamp in stamps.items() if known.get(keys[path], ("", None))[0] != stamp]
    for path, found in zip(unknown, run_jobs(examine, unknown, nj, "check audio"), strict=True):
        known[keys[path]] = (stamps[path], found)
    if memory is not None and unknown:
        memory.parent.mkdir(parents=True, exist_ok=True)
        content = {key: [stamp, asdict(found)] for key, (stamp, found) in sorted(known.items())}
        write_text(memory, json.dumps(content, indent=0))
    return [
        Finding(path, reason, reason in SILENT)
        for path, use in sorted(files.items())
        if (reason := known[keys[path]][1].complaint(use))
    ]


def examine(path: str) -> Examined:
    """Reads a whole file, a recording or a room.

    Example:
        >>> examine("missing.wav").bad
        'no file'
    """
    try:
        return _examine_room(path) if path.lower().endswith(SOFA) else _examine_audio(path)
    except InputError as e:
        return Examined(bad=str(e).removeprefix(f"{path}: ").removeprefix("found ").partition(", expected ")[0])


def _examine_audio(path: str) -> Examined:
    """Decodes a recording as the renderer does, so the renderer accepts every file that passes."""
    recording = audio.clip(path)
    info = recording.info
    loud = mixed = some = False
    for frames in audio.blocks(recording, info.n_frames, audio.BLOCK):
        for first in range(0, 0 if mixed else len(frames), STRETCH):
            as_it_is, as_source = sounds(frames[first : first + STRETCH], info.quietest)
            loud, mixed = loud or as_it_is, mixed or as_source
            if mixed:
                break
        some = some or loud or bool(frames.any())
    if not loud:
        return Examined(info.channels, bad=FAINT if some else ALL_ZERO)
    return Examined(info.channels, silent_source="" if mixed else CANCELLED)


def _examine_room(path: str) -> Examined:
    """Reads all impulse responses of a room."""
    room = SofaRoom(path)
    zeros: dict[str, int] = {}
    try:
        for index, energy in room.energies():
            if not np.isfinite(energy).all():
                return Examined(bad=f"Data.IR[{index}] with a number that is not finite")
            if not energy.any():
                return Examined(bad=f"only zeros in Data.IR[{index}]")
            for channel in np.flatnonzero(energy <= ZERO_CHANNEL * energy.max()):
                zeros.setdefault(str(channel), index)
    finally:
        room.close()
    return Examined(room.n_channels, zeros=zeros)


def write_report(findings: Sequence[Finding], out: Path) -> Path:
    """Writes the list of bad files into a data directory, or removes it if there are none."""
    return _write_lines(out / REPORT, [f"{finding.name}\t{finding.reason}" for finding in findings])


def write_excluded(paths: Sequence[str], out: Path) -> None:
    """Writes the list of files that a virtual set excludes, or removes it if there are none."""
    _write_lines(out / EXCLUDED, paths)


def _write_lines(path: Path, lines: Sequence[str]) -> Path:
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, os.fsencode("".join(f"{line}\n" for line in lines)))
    else:
        path.unlink(missing_ok=True)
    return path


def read_excluded(out: Path) -> list[str]:
    """Files that a virtual set excludes."""
    try:
        return os.fsdecode((out / EXCLUDED).read_bytes()).splitlines()
    except FileNotFoundError:
        return []


def _channels(room: str) -> int:
    """Channels of a room; 0 if it cannot be opened."""
    try:
        return open_room(room).n_channels
    except InputError:
        return 0


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:
        return "missing"
    return f"{stat.st_mtime_ns} {stat.st_size}"


def _remembered(memory: Path | None) -> dict[str, tuple[str, Examined]]:
    """Earlier results; none if the file is missing or damaged, which only costs time."""
    try:
        data = read_json(memory, "earlier results") if memory is not None else {}
        return {path: (str(stamp), Examined(**found)) for path, (stamp, found) in data.items()}
    except (InputError, ValueError, TypeError, AttributeError):
        return {}
