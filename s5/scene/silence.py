"""Finds silent recordings and silent cuts, so that no target of a scene is silent.

A source is mixed down to one channel (the mean of all, as in SpAudSyn) and brought to its event's level. Silence would
be raised to that level too: rounding noise, or zeros as a labelled target. Audio is silent

* if it stays within two quantization steps of an integer format, or below 1e-6 of full scale (-120 dB);
* if its mix-down lies 60 dB below its channels: they cancel each other, and only rounding is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from s5.scene import audio
from s5.scene.audio import Clip, clip
from s5.scene.cache import ByteCache

STRETCH = 1024
"""Frames examined together; audio sounds if one such stretch does."""

CANCELLED = 1e-6
"""Least power of the mix-down relative to that of the channels: -60 dB."""

REACH = 0.1
"""Seconds at a cut's end (at most half of it) that do not count: the room's delay may push them out of the scene."""

MAX_DRAWS = 100

_maps: ByteCache[np.ndarray] = ByteCache(16 << 20, lambda x: x.nbytes)


def sounds(frames: np.ndarray, quietest: float) -> tuple[bool, bool]:
    """Whether frames [n, C] sound as they are, and whether they sound mixed down.

    ``quietest`` is the largest magnitude that counts as silence (:attr:`s5.scene.audio.AudioInfo.quietest`).

    Example:
        >>> sounds(np.array([[0.5, -0.5], [0.25, -0.25]], np.float32), 1e-6)
        (True, False)
    """
    if not _peak(frames) > quietest:
        return False, False
    if frames.shape[1] == 1:
        return True, True
    mixed = audio.mono(frames)
    power = np.mean(np.square(frames, dtype=np.float64))
    return True, bool(_peak(mixed) > quietest and np.mean(np.square(mixed, dtype=np.float64)) > CANCELLED * power)


def is_silent(cut: Clip) -> bool:
    """Whether a cut is silent as a source, its end excepted. Reads until something sounds.

    Raises InputError for damaged or truncated audio and for samples that are not finite.
    """
    reach = min(int(REACH * cut.info.rate), cut.n_frames // 2)
    return not any(_sounding(cut, cut.n_frames - reach))


def cut_with_sound(rng: np.random.Generator, path: str, duration: float, start: float) -> float:
    """Start (s) of a cut of a file that sounds: ``start``, or another one if the cut is silent there.

    Args:
        rng: generator whose child draws another start; its own stream stays untouched, so the rest of a scene does not
            depend on it.
        path: path of the file, which is longer than the cut.
        duration: duration of the cut in s.
        start: the drawn start in s; returned too if the whole file is silent, which the check of bad audio finds.

    Raises:
        InputError: as :func:`is_silent`.
    """
    if not is_silent(clip(path, start, duration)):
        return start
    other, whole = rng.spawn(1)[0], clip(path)
    rate = whole.info.rate
    latest = whole.n_frames / rate - duration
    sounding = _maps.get((path, whole.stamp), lambda: np.fromiter(_sounding(whole, whole.n_frames), bool))
    first = np.flatnonzero(sounding) * STRETCH / rate
    # For each stretch that sounds: the starts of cuts that contain it before their end.
    reach = min(REACH, duration / 2)
    low, high = np.clip(first + STRETCH / rate - (duration - reach), 0, latest), np.clip(first, 0, latest)
    spans = _union(low, np.maximum(low, high))
    lengths = np.array([b - a for a, b in spans])
    for _ in range(MAX_DRAWS if len(spans) else 0):
        total = lengths.sum()
        chosen = int(other.choice(len(spans), p=lengths / total if total > 0 else None))
        found = float(other.uniform(*spans[chosen]))
        if not is_silent(clip(path, found, duration)):
            return found
    return start


def _sounding(cut: Clip, n_frames: int) -> Iterator[bool]:
    """Yields, for each stretch of a clip's first frames, whether it sounds mixed down."""
    for frames in audio.blocks(cut, n_frames, STRETCH):
        yield sounds(frames, cut.info.quietest)[1]


def _union(low: np.ndarray, high: np.ndarray) -> list[tuple[float, float]]:
    """Union of intervals with sorted bounds."""
    spans: list[tuple[float, float]] = []
    for a, b in zip(low, high, strict=True):
        if spans and a <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(b, spans[-1][1])
        else:
            spans.append((a, b))
    return spans


def _peak(samples: np.ndarray) -> float:
    return max(float(samples.max()), -float(samples.min()))
