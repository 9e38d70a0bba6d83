"""Finds events that differ from the others of their class, as proposals for a person to confirm.

Each event is a vector: spectral statistics, or the features of an encoder. Its score compares its distance to its
nearest neighbours in the class with the distances of the other events.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from s5.challenge.corpus.curation import seconds
from s5.data import read_audio
from s5.labels import LabelSet
from s5.scene.pool import AUDIO
from s5.utils.errors import InputError

Embed = Callable[[np.ndarray, int], np.ndarray]
"""(waveform [T], sampling rate in Hz) -> vector [D]."""

FRAME, HOP = 0.032, 0.016
"""Length and step of the frames in seconds."""

BANDS = np.geomspace(50.0, 16000.0, 25)
"""Edges of the frequency bands in Hz."""

DYNAMIC_RANGE = 40.0
"""Frames more than so many dB below the loudest one count as silence."""

LONGEST = 60.0
"""Seconds of a sound that are analysed."""

FEWEST = 5
"""Smallest number of events of a class whose scores mean something."""


def find_events(folder: str | Path, labels: LabelSet, min_duration: float = 0.0) -> dict[str, list[str]]:
    """Paths of the events below a folder by label, sorted.

    Args:
        folder: folder of ``<Label>/...``.
        labels: labels to look for.
        min_duration: smallest duration in seconds; shorter events are left out.

    Raises:
        InputError: a label has no events.
    """
    found = {}
    for label in labels.names:
        files = sorted(
            os.path.relpath(os.path.join(parent, name), folder)
            for parent, _, names in os.walk(Path(folder, label), followlinks=True)
            for name in names
            if name.lower().endswith(AUDIO) and name[0] != "."
        )
        if not files:
            raise InputError(Path(folder, label), "no audio", "events of this label")
        found[label] = [file for file in files if min_duration <= 0 or seconds(Path(folder, file)) >= min_duration]
    return found


def mono(path: str | Path) -> tuple[np.ndarray, int]:
    """An audio file mixed down to one channel [T], and its sampling rate in Hz. Raises InputError for no audio."""
    audio, rate = read_audio(path)
    return audio.mean(axis=0), rate


def spectral_statistics(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Statistics of a sound [2 * 27 + 3] that do not depend on its level.

    Mean and standard deviation over the frames with sound: power in 24 bands relative to the frame's (dB), spectral
    centroid and 85 % roll-off (octaves), flatness (dB). Then standard deviation of the level (dB), share of frames
    with sound, and duration (octaves).

    Args:
        waveform: [T].
        rate: sampling rate in Hz.
    """
    duration, waveform = len(waveform) / rate, waveform[: int(LONGEST * rate)]
    n, hop = int(FRAME * rate), int(HOP * rate)
    peak = np.abs(waveform).max(initial=0.0) or 1.0
    padded = np.pad(waveform.astype(np.float64) / peak, (0, max(0, n - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(n), axis=1)) ** 2 + 1e-12
    level = 10 * np.log10(power.sum(axis=1))
    sounds = level > level.max() - DYNAMIC_RANGE
    power, share = power[sounds], power[sounds] / power[sounds].sum(axis=1, keepdims=True)
    frequency = np.fft.rfftfreq(n, 1 / rate)
    band = np.searchsorted(BANDS, frequency) - 1
    bands = np.stack([share[:, band == b].sum(axis=1) for b in range(len(BANDS) - 1)], axis=1)
    log_bands = 10 * np.log10(bands + 1e-6)
    centroid = np.log2(share @ frequency + 1)
    rolloff = np.log2(frequency[np.argmax(np.cumsum(share, axis=1) >= 0.85, axis=1)] + 1)
    flatness = 10 * (np.log10(power).mean(axis=1) - np.log10(power.mean(axis=1)))
    tracks = np.column_stack([log_bands, centroid, rolloff, flatness])
    whole = [level[sounds].std(), sounds.mean(), np.log2(duration + 1e-3)]
    return np.concatenate([tracks.mean(axis=0), tracks.std(axis=0), whole])


def outlier_scores(vectors: np.ndarray) -> np.ndarray:
    """Scores [N] of a class's events: robust z-scores of the logarithm of each event's distance from the others.

    The distance is the mean distance to the nearest neighbours: a twentieth of the class, at least three, so that a few
    similar wrong files are found too. Dimensions are scaled by their median absolute deviation. With fewer than
    :data:`FEWEST` events all scores are 0.

    Args:
        vectors: [N, D].
    """
    n = len(vectors)
    if n < FEWEST:
        return np.zeros(n)
    x = vectors - np.median(vectors, axis=0)
    scale = 1.4826 * np.median(np.abs(x), axis=0)
    scale = np.where(scale > 0, scale, x.std(axis=0) + 1e-12)
    x = np.clip(x / scale, -10, 10)
    squares = (x**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0))
    np.fill_diagonal(distance, np.inf)
    k = min(n - 1, max(3, n // 20))
    near = np.log(np.partition(distance, k - 1, axis=1)[:, :k].mean(axis=1) + 1e-6)
    spread = 1.4826 * np.median(np.abs(near - np.median(near)))
    return (near - np.median(near)) / (spread if spread > 0 else near.std() + 1e-12)
