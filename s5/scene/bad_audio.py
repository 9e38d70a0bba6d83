"""Audio that no scene should be made of, found before one is: files without samples, of zeros, NaN, wrong channels.

All files that a sampler's folders hold, or a list of scenes names, are read once, in parallel. What a file was found to
be is remembered by its time and size, so a second look is quick. So what a set consists of does not depend on which
scene met a bad file first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5.data import next_frames, open_audio, write_bytes
from s5.errors import InputError
from s5.progress import progress
from s5.scene import audio
from s5.scene.material import AUDIO
from s5.scene.plan import event_path
from s5.scene.room import open_room
from s5.scene.sampler import SamplerConfig
from s5.scene.spec import Scene

REPORT = "bad_audio.tsv"
"""In a data directory: a bad file and what is wrong with it, tab between them, a line."""

EXCLUDED = "excluded.txt"
"""In a virtual data directory: paths of audio that its scenes are drawn without."""

ALL_ZERO = "only zeros"

BLOCK = 1 << 22
"""Frames that are in memory at a time."""

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""``map``, in the order of the items; possibly in several processes."""


@dataclass(frozen=True)
class Finding:
    """A bad file."""

    path: str
    reason: str

    @property
    def name(self) -> str:
        """The path as a person would write it."""
        return os.path.normpath(self.path)


def material_files(config: SamplerConfig, labels: Sequence[str], root: str = ".") -> dict[str, frozenset[int] | None]:
    """All audio files below a sampler's folders, by their paths as the sampler names them.

    Args:
        config: of the sampler, which cannot be made where a file is bad.
        labels: the folders of events that count.
        root: folder that its paths start from.

    Returns:
        Path -> numbers of channels that it may have; None: any (events are mixed down).
    """
    dirs = config.dirs
    files: dict[str, frozenset[int] | None] = {}
    for label in labels:
        files |= dict.fromkeys(_below(root, dirs.sound_event, label))
    if dirs.interference is not None:
        files |= dict.fromkeys(_below(root, dirs.interference))
    if dirs.noise is not None:
        channels = _room_channels(root, dirs.room_ir)
        files |= dict.fromkeys(_below(root, dirs.noise), channels)
    return files


def scene_files(scene: Scene, root: str | Path = ".") -> dict[str, frozenset[int] | None]:
    """The audio files that a scene names; see :func:`material_files`. Backgrounds may have one channel, too."""
    config = scene.config
    files: dict[str, frozenset[int] | None] = {
        event_path(root, folder, event): None
        for folder, events in ((config.foreground_dir, scene.fg_events), (config.interference_dir, scene.int_events))
        for event in events
    }
    if scene.bg_events:
        channels = frozenset((1, open_room(os.path.join(root, scene.room.sofa_path)).n_channels))
        files |= {event_path(root, config.background_dir, event): channels for event in scene.bg_events}
    return files


def find_bad_audio(
    files: Mapping[str, Collection[int] | None], memory: Path | None = None, mapping: Map = map
) -> list[Finding]:
    """Reads all files and lists the bad ones, by path.

    Args:
        files: path -> numbers of channels that it may have.
        memory: a JSON file with earlier results, which is written anew; None: nothing is remembered.
        mapping: how the work is spread.
    """
    known = _remembered(memory)
    stamps = {path: _stamp(path) for path in sorted(files)}
    unknown = [path for path, stamp in stamps.items() if known.get(os.path.abspath(path), ["", ""])[0] != stamp]
    for path, state in zip(unknown, progress(mapping(examine, unknown), len(unknown), "check audio"), strict=True):
        known[os.path.abspath(path)] = [stamps[path], state]
    if memory is not None and unknown:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(memory, json.dumps(known, indent=0, sort_keys=True).encode())
    return [
        Finding(path, reason)
        for path, allowed in sorted(files.items())
        if (reason := _complaint(known[os.path.abspath(path)][1], allowed))
    ]


def examine(path: str) -> str:
    """Decodes a file. Returns the number of its channels if it is sound, else what is wrong with it in words.

    Example:
        >>> examine("missing.wav")
        'no file'
    """
    try:
        with open_audio(path) as sound:
            info = audio.header(sound)
            if not info.n_frames:
                return "no sample"
            sounds, left = False, info.n_frames
            while left:
                # As the renderer reads: so what passes here is not refused there.
                block = next_frames(sound, min(BLOCK, left), path, info.kind)
                sounds, left = sounds or bool(block.any()), left - len(block)
    except InputError as e:
        return str(e).removeprefix(f"{path}: found ").partition(", expected ")[0]
    return str(info.channels) if sounds else ALL_ZERO


def write_report(findings: Sequence[Finding], out: Path) -> Path:
    """Writes the list of bad files into a data directory; removes an older one where there are none."""
    report = out / REPORT
    if findings:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(report, "".join(f"{f.name}\t{f.reason}\n" for f in findings).encode())
    else:
        report.unlink(missing_ok=True)
    return report


def write_excluded(paths: Sequence[str], out: Path) -> None:
    """Writes down what a virtual set does without; removes an older list where it is nothing."""
    if paths:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / EXCLUDED, "".join(f"{path}\n" for path in paths).encode())
    else:
        (out / EXCLUDED).unlink(missing_ok=True)


def read_excluded(out: Path) -> list[str]:
    """What a virtual set does without."""
    try:
        return (out / EXCLUDED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _below(root: str, folder: str, label: str = "") -> Iterator[str]:
    """Paths of audio files as :meth:`s5.scene.Sampler.files` gives them."""
    base = os.path.join(root, folder)
    for parent, _, names in os.walk(os.path.join(base, label), followlinks=True):
        for name in names:
            if name.lower().endswith(AUDIO) and name[0] != ".":
                yield os.path.join(base, os.path.relpath(os.path.join(parent, name), base))


def _room_channels(root: str, folder: str) -> frozenset[int] | None:
    """Numbers of channels of the rooms; None where there is none (the sampler will say so)."""
    path = os.path.join(root, folder)
    if not os.path.isdir(path):
        return frozenset((open_room(path).n_channels,)) if os.path.exists(path) else None
    rooms = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".sofa")]
    return frozenset(open_room(room).n_channels for room in rooms) or None


def _complaint(state: str, allowed: Collection[int] | None) -> str | None:
    if not state.isdigit():
        return state
    if allowed is None or int(state) in allowed:
        return None
    return f"{state} channels instead of {' or '.join(map(str, sorted(allowed)))}"


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:
        return "missing"
    return f"{stat.st_mtime_ns} {stat.st_size}"


def _remembered(memory: Path | None) -> dict[str, list[str]]:
    """Earlier results; none where the file is missing or not ours, which costs time only."""
    try:
        data = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {k: v for k, v in data.items() if isinstance(v, list) and len(v) == 2 and all(isinstance(x, str) for x in v)}
