"""Reads recordings for scenes: slices them, mixes them down and resamples them.

The scale of the samples is arbitrary (16-bit files are read as their integers), because a scene brings every signal to
a level. Prepared recordings (:mod:`s5.scene.ready`) are read in their prepared form; others are decoded from the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import soxr

from s5.data import next_frames, open_audio
from s5.data.header import COMPRESSED
from s5.scene.ready import Stamp, file_of, stamp_of
from s5.scene.ready import read as read_array
from s5.utils.errors import InputError

STEPS = {"PCM_16": 1.0, "PCM_S8": 2.0**-7, "PCM_U8": 2.0**-7, "PCM_24": 2.0**-23}
"""Quantization step of each integer format, in the unit of the samples read (see the module's docstring)."""

BLOCK = 1 << 22
"""Most frames in memory when whole files are read."""


@dataclass(frozen=True)
class AudioInfo:
    """Facts from a file's header."""

    n_frames: int
    rate: int
    """Sampling rate in Hz."""
    channels: int
    kind: str
    """numpy's name of the type that holds the file's samples: int16 or float32."""
    uncompressed: bool
    quietest: float
    """Largest magnitude that counts as silence, in the samples' unit: two quantization steps, or 1e-6 of full scale."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a file. Two clips of the same samples are equal, so a clip can be a cache's key."""

    path: str
    stamp: Stamp
    start: int
    """First frame."""
    n_frames: int
    info: AudioInfo
    ready: str = ""
    """Folder of prepared material; empty if there is none."""

    @property
    def whole(self) -> bool:
        """Whether the clip is the whole file."""
        return self.start == 0 and self.n_frames == self.info.n_frames

    @property
    def whole_file(self) -> Clip:
        """Clip of the whole file."""
        return replace(self, start=0, n_frames=self.info.n_frames)

    @property
    def nbytes_of_file(self) -> int:
        """Size of the decoded file in bytes."""
        return self.info.n_frames * self.info.channels * np.dtype(self.info.kind).itemsize


def clip(path: str, start_time: float = 0.0, duration: float | None = None, ready: str = "") -> Clip:
    """Clip of a file from ``start_time``, ``duration`` seconds long (None: to the end).

    Both times are truncated to frames, as in SpAudSyn. ``ready`` is the folder of prepared material. Raises InputError
    for a file that is missing or unreadable, or has no sample there.
    """
    stamp = stamp_of(path, "an audio file")
    info = _header(path, stamp)
    start = min(int(start_time * info.rate), info.n_frames)
    n = info.n_frames - start
    if duration is not None:
        n = min(n, int(duration * info.rate))
    if n <= 0:
        raise InputError(path, "no sample" if start == 0 else f"no sample at {start_time:g} s", "audio")
    return Clip(path, stamp, start, n, info, ready)


def read(wanted: Clip) -> np.ndarray:
    """Frames [n, C] of a clip, int16 or float32, as the file has them.

    Raises InputError for damaged or truncated audio and for samples that are not finite.
    """
    if wanted.ready and not wanted.info.uncompressed:
        file = file_of(wanted.ready, "frames", wanted.path, wanted.stamp)
        frame = np.dtype(wanted.info.kind).itemsize * wanted.info.channels
        shape = (wanted.n_frames, wanted.info.channels)
        found = read_array(file, wanted.info.kind, wanted.start * frame, shape)
        if found is not None:
            return found
    return decode(wanted)


def decode(wanted: Clip) -> np.ndarray:
    """Frames [n, C] of a clip, decoded from the original file. Raises as :func:`read`."""
    with open_audio(wanted.path) as sound:
        return next_frames(sound, wanted.n_frames, wanted.path, wanted.info.kind, wanted.start)


def blocks(wanted: Clip, n_frames: int, size: int) -> Iterator[np.ndarray]:
    """Yields the first ``n_frames`` of a clip in blocks [size or fewer, C]. Raises as :func:`read`."""
    with open_audio(wanted.path) as sound:
        for start in range(0, n_frames, size):
            # After the first block the decoder is at the right position.
            first = None if start else wanted.start
            yield next_frames(sound, min(size, n_frames - start), wanted.path, wanted.info.kind, first)


def source(wanted: Clip, rate: int) -> np.ndarray:
    """Clip as a source: [n] float32, mixed down to one channel, at ``rate`` (Hz). Raises as :func:`read`."""
    if wanted.info.rate == rate:
        return mono(read(wanted))
    if wanted.ready and wanted.whole:
        n = resampled(wanted.n_frames, wanted.info.rate, rate)
        found = read_array(file_of(wanted.ready, "source", wanted.path, wanted.stamp), "float32", 0, (n,))
        if found is not None:
            return found
    return resample(mono(read(wanted))[:, None], wanted.info.rate, rate)[:, 0]


def ambience(wanted: Clip, rate: int) -> np.ndarray:
    """Clip as a background: [n, C] at ``rate`` (Hz). Raises as :func:`read`."""
    frames = read(wanted)
    return frames if wanted.info.rate == rate else resample(frames.astype(np.float32), wanted.info.rate, rate)


def resample(frames: np.ndarray, rate: float, target: float) -> np.ndarray:
    """Resamples [n, C] to [ceil(n * target / rate), C] of the same type, with soxr's high quality."""
    if rate == target or not len(frames):
        return frames
    n = resampled(len(frames), rate, target)
    out = np.zeros((n, frames.shape[1]), dtype=frames.dtype)
    for channel in range(frames.shape[1]):
        new = soxr.resample(frames[:, channel], rate, target, quality="HQ")
        out[: len(new), channel] = new[:n]
    return out


def resampled(n: int, rate: float, target: float) -> int:
    """Number of samples at rate ``target`` for ``n`` samples at ``rate``."""
    return int(np.ceil(n * (target / rate)))


def mono(frames: np.ndarray) -> np.ndarray:
    """Mean of the channels of [n, C]: [n] float32."""
    if frames.shape[1] == 1:
        return frames[:, 0].astype(np.float32, copy=False)
    return frames.mean(axis=1, dtype=np.float32)


@lru_cache(50_000)
def _header(path: str, stamp: Stamp) -> AudioInfo:
    with open_audio(path) as sound:
        kind = "int16" if sound.subtype == "PCM_16" else "float32"
        quietest = max(2 * STEPS.get(sound.subtype, 0.0), 0.0 if kind == "int16" else 1e-6)
        uncompressed = sound.format not in COMPRESSED
        return AudioInfo(sound.frames, sound.samplerate, sound.channels, kind, uncompressed, quietest)
