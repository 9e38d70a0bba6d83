"""What does not sound: recordings and cuts of which nothing is left to hear once they are a scene's source.

A source is mixed down to one channel (the mean of all, as SpAudSyn takes it) and brought to its event's level, so that
what is left of silence would be raised to it: the rounding of the samples, or zeros as a labelled target. Silent is

* what stays within two steps of a format of whole numbers, or below 1e-6 of full scale (-120 dB);
* what lies 60 dB below the channels that it was mixed from: they cancel each other, and rounding is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from s5.scene import audio
from s5.scene.audio import Clip, clip
from s5.scene.cache import ByteCache

STRETCH = 1024
"""Frames that are looked at together; one that sounds is enough."""

CANCELLED = 1e-6
"""Power of the mean of the channels, as a part of theirs: -60 dB."""

REACH = 0.1
"""Seconds (half of it, in a shorter cut) at the end of a cut that do not count: the delay of the room may push them out
of the scene."""

MAX_DRAWS = 100

_maps: ByteCache[np.ndarray] = ByteCache(16 << 20, lambda x: x.nbytes)


def sounds(frames: np.ndarray, quietest: float) -> tuple[bool, bool]:
    """Whether frames sound: as they are, and mixed down.

    Args:
        frames: [n, C], n at least 1.
        quietest: the largest sample of what does not sound (:attr:`s5.scene.audio.AudioInfo.quietest`).

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
    """Whether a cut is silent as a source; its end does not count. Reads until something sounds.

    Raises:
        InputError: damaged or truncated audio, samples that are not finite.
    """
    reach = min(int(REACH * cut.info.rate), cut.n_frames // 2)
    return not any(sounding for _, sounding in _stretches(cut, cut.n_frames - reach))


def cut_with_sound(rng: np.random.Generator, path: str, duration: float, start: float) -> float:
    """Where a cut of a file starts: at ``start``, or elsewhere if it is silent there.

    Args:
        rng: whose children (``spawn``) draw another start; its own stream is left as it is, so that the rest of a scene
            does not depend on it.
        path: of the file, which is longer than the cut.
        duration: of the cut, s.
        start: that was drawn, s.

    Returns:
        Seconds. ``start`` too where the whole file is silent, which the check of bad audio is there to find.

    Raises:
        InputError: as :func:`is_silent`.
    """
    if not is_silent(clip(path, start, duration)):
        return start
    other, whole = rng.spawn(1)[0], clip(path)
    rate = whole.info.rate
    latest = whole.n_frames / rate - duration
    first = np.flatnonzero(_maps.get((path, whole.stamp), lambda: _map(whole))) * STRETCH / rate
    # Of each stretch that sounds: the starts whose cut holds it before its end.
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


def _map(whole: Clip) -> np.ndarray:
    """Which stretches of a file sound."""
    return np.array([sounding for _, sounding in _stretches(whole, whole.n_frames)])


def _stretches(cut: Clip, n_frames: int) -> Iterator[tuple[int, bool]]:
    """First frame of each stretch of a clip's first frames, and whether it sounds mixed down."""
    for start, frames in audio.blocks(cut, n_frames, STRETCH):
        yield start, sounds(frames, cut.info.quietest)[1]


def _union(low: np.ndarray, high: np.ndarray) -> list[tuple[float, float]]:
    """Intervals whose bounds are sorted, those that touch made one."""
    spans: list[tuple[float, float]] = []
    for a, b in zip(low, high, strict=True):
        if spans and a <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(b, spans[-1][1])
        else:
            spans.append((a, b))
    return spans


def _peak(samples: np.ndarray) -> float:
    return max(float(samples.max()), -float(samples.min()))
