"""Events that are unlike the others of their class: proposals for a person to confirm.

Each event is a vector: simple spectral statistics, or what an encoder makes of it. Its distance to its nearest
neighbours in the class, against that of the others, says how far off it lies.
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
"""Seconds."""

BANDS = np.geomspace(50.0, 16000.0, 25)
"""Edges in Hz."""

DYNAMIC_RANGE = 40.0
"""dB below the loudest frame that still counts as sound."""

LONGEST = 60.0
"""Seconds of a sound that are looked at."""

FEWEST = 5
"""Events of a class from which one can be unlike the others."""


def find_events(folder: str | Path, labels: LabelSet, min_duration: float = 0.0) -> dict[str, list[str]]:
    """Paths below a folder of events by label, sorted.

    Raises:
        InputError: a label without events.
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
    """An audio file mixed down: [T] and its sampling rate in Hz. Raises InputError as :func:`s5.data.read_audio`."""
    audio, rate = read_audio(path)
    return audio.mean(axis=0), rate


def spectral_statistics(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Statistics of a sound that do not depend on its level: [2 * 27 + 3].

    Mean and standard deviation over the frames that sound: power in 24 bands relative to the frame's (dB), spectral
    centroid and 85 % roll-off (octaves), flatness (dB). Standard deviation of the level (dB), share of frames that
    sound, duration (octaves).

    Args:
        waveform: [T].
        rate: Hz.
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
    """How far each event of a class lies from the others: robust z-scores of the logarithm of its distance.

    The distance is the mean of those to its nearest neighbours, a twentieth of the class but three at least, so that a
    few wrong files that resemble each other are found too. Dimensions are brought to one scale by their median and
    median absolute deviation.

    Args:
        vectors: [N, D].

    Returns:
        [N]; zeros where there are too few events to tell.
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
