"""Prepares recordings and rooms in the form that scenes read (:mod:`s5.scene.ready`), once before a set is made.

Uncompressed recordings at the scenes' rate need no preparation.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from s5.scene import audio
from s5.scene.ready import Form, file_of, folder_of
from s5.scene.rendering.cpu import normalised, resampled_length
from s5.scene.rendering.plan import event_path
from s5.scene.rendering.room import open_room
from s5.scene.sampler import Sampler
from s5.scene.spec import Scene
from s5.utils.files import atomic_write, leftovers
from s5.utils.parallel import run_jobs

KEPT_FREE = 1 << 30
"""Bytes of the disk that stay free."""

ABANDONED = 3600.0
"""Age in seconds of a half-written file that a killed run left."""


@dataclass(frozen=True, order=True)
class Wanted:
    """A file and the form to prepare."""

    path: str
    form: Form


def of_sampler(sampler: Sampler) -> Iterator[Wanted]:
    """Yields the material that the scenes of a sampler read."""
    config = sampler.config
    for path in sampler.material.backgrounds():
        yield from _recording(path, config.sampling_rate, background=True)
    for path, duration in sampler.material.sources():
        yield from _recording(path, config.sampling_rate, cut=duration > config.max_event_duration)
    for path in sampler.material.room_paths():
        yield Wanted(path, "room")


def of_scenes(scenes: Iterable[Scene], root: str) -> dict[int, set[Wanted]]:
    """Material that scenes read, by their sampling rate."""
    found: dict[int, set[Wanted]] = {}
    for scene in scenes:
        config = scene.config
        wanted = found.setdefault(config.sr, set())
        wanted.add(Wanted(os.path.join(root, scene.room.sofa_path), "room"))
        for event in scene.bg_events:
            wanted.update(_recording(event_path(root, config.background_dir, event), config.sr, background=True))
        for folder, events in ((config.foreground_dir, scene.fg_events), (config.interference_dir, scene.int_events)):
            for event in events:
                path = event_path(root, folder, event)
                whole = audio.clip(path, event.source_time or 0, event.event_duration).whole
                wanted.update(_recording(path, config.sr, cut=not whole))
    return found


def _recording(path: str, rate: int, cut: bool = False, background: bool = False) -> Iterator[Wanted]:
    info = audio.clip(path).info
    if info.rate != rate and not cut and not background:
        yield Wanted(path, "source")
    elif not info.uncompressed:
        yield Wanted(path, "frames")


def prepare(wanted: Iterable[Wanted], rate: int, data: str | Path, nj: int = 1) -> str:
    """Writes the material that is missing and logs its size; if the disk is too small, only warns.

    Args:
        wanted: the files, already checked (:mod:`s5.scene.bad_audio`).
        rate: sampling rate of the scenes in Hz.
        data: folder of the data directories.
        nj: number of processes.

    Returns:
        The folder of the material, for :func:`s5.scene.rendering.plan.plan`.

    Raises:
        InputError: a file cannot be read.
    """
    folder = folder_of(data, rate)
    work = _Work(folder, rate)
    missing = [one for one in sorted(set(wanted)) if not os.path.exists(work.file(one))]
    if not missing:
        return folder
    size = sum(map(work.size, missing))
    os.makedirs(folder, exist_ok=True)
    for partial in leftovers(folder):
        if time.time() - partial.stat().st_mtime > ABANDONED:
            partial.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    what = f"{len(missing)} prepared recordings and rooms for scenes at {rate} Hz ({_amount(size)})"
    if size + KEPT_FREE > free:
        logging.warning("%s: no disk space for %s, %s free: scenes take longer", folder, what, _amount(free))
        return folder
    logging.info("%s: writing %s", folder, what)
    for _ in run_jobs(work.make, missing, nj, "prepare material"):
        pass
    return folder


@dataclass(frozen=True)
class _Work:
    """The work of a process; it is pickled."""

    folder: str
    rate: int

    def file(self, wanted: Wanted) -> str:
        """Path of a file's prepared form."""
        stamp = open_room(wanted.path).stamp if wanted.form == "room" else audio.clip(wanted.path).stamp
        return file_of(self.folder, wanted.form, wanted.path, stamp)

    def size(self, wanted: Wanted) -> int:
        """Size of the prepared form in bytes."""
        if wanted.form == "room":
            room = open_room(wanted.path)
            return 4 * room.n_positions * (1 + room.n_channels * resampled_length(room, self.rate))
        clip = audio.clip(wanted.path)
        if wanted.form == "source":
            return 4 * audio.resampled(clip.n_frames, clip.info.rate, self.rate)
        return clip.nbytes_of_file

    def make(self, wanted: Wanted) -> None:
        """Writes the prepared form and removes that of older versions of the file."""
        file = Path(self.file(wanted))
        with atomic_write(file) as out:
            if wanted.form == "room":
                self._write_room(out, wanted.path)
            elif wanted.form == "source":
                audio.source(audio.clip(wanted.path), self.rate).tofile(out)
            else:
                clip = audio.clip(wanted.path)
                for frames in audio.blocks(clip, clip.n_frames, audio.BLOCK):
                    frames.tofile(out)
            for old in file.parent.glob(f"{file.name.split('.')[0]}.*.{wanted.form}"):
                old.unlink(missing_ok=True)

    def _write_room(self, out: IO[bytes], path: str) -> None:
        room = open_room(path)
        lengths = np.zeros(room.n_positions, np.int32)
        n = resampled_length(room, self.rate)
        lengths.tofile(out)
        for index, rir in room.responses():
            padded = np.zeros((room.n_channels, n), np.float32)
            found = normalised(room, index, rir, self.rate)
            lengths[index] = found.shape[1]
            padded[:, : found.shape[1]] = found
            padded.tofile(out)
        out.seek(0)
        lengths.tofile(out)


def _amount(n_bytes: int) -> str:
    """Readable number of bytes.

    Example:
        >>> _amount(300_000_000), _amount(12_345_678_901)
        ('300 MB', '12.3 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
