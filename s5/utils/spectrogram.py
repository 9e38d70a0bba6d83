"""Spectrograms as small images without axes, which the listening page adds as text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

RANGE_DB = 70
"""Range of the drawn levels below 0 dB. Lower levels have the darkest colour."""

COLOUR_MAP = "magma"
"""Colours from dark to light in even steps, which remain in order in grey print and without colour vision."""

_COLUMNS = 480
_LEVELS = 64  # steps of about 1 dB, as fine as an eye can see, in half the bytes of 256


def power(waveform: np.ndarray, fs: int) -> np.ndarray:
    """Power spectrogram with a Hann window of 32 ms.

    Args:
        waveform: [T].
        fs: sampling rate in Hz.

    Returns:
        [frequency, time] float32, lowest frequency first, from above 0 Hz to fs / 2; at most 480 columns.
    """
    size = 2 ** round(np.log2(0.032 * fs))
    # Up to 15 s the hop is below the window, so that no sample is left out.
    hop = max(1, -(-len(waveform) // _COLUMNS))
    padded = np.pad(np.asarray(waveform, np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:-1:hop]
    spectrum = np.fft.rfft(frames * np.hanning(size + 1)[:-1].astype(np.float32), axis=1)
    return (np.abs(spectrum[:, 1:]) ** 2).T.astype(np.float32)


def pooled(spectrogram: np.ndarray, rows: int = 128) -> np.ndarray:
    """A spectrogram [frequency, time] of about ``rows`` bands. Each is the loudest of its neighbours: lines survive."""
    bins = max(1, len(spectrogram) // rows)
    rows = len(spectrogram) // bins
    return spectrogram[: rows * bins].reshape(rows, bins, -1).max(1)


def save_png(path: str | Path, spectrogram: np.ndarray, reference: float) -> None:
    """Writes a power spectrogram [frequency, time] as a PNG, low frequencies at the bottom.

    Args:
        path: file to write.
        spectrogram: as :func:`power` returns it.
        reference: power of 0 dB, the lightest colour.
    """
    from PIL import Image

    levels = level(pooled(spectrogram), reference)
    steps = np.clip(np.round((levels / RANGE_DB + 1) * (_LEVELS - 1)), 0, _LEVELS - 1).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(steps[::-1]), "P")
    image.putpalette(colours(_LEVELS).tobytes())
    image.save(path, format="PNG", compress_level=6)


@cache
def colours(n: int) -> np.ndarray:
    """Colour scale [n, 3] uint8, lowest level first."""
    import matplotlib

    return (matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, n))[:, :3] * 255).round().astype(np.uint8)


def envelope(waveform: np.ndarray, columns: int = 240) -> np.ndarray:
    """Energy over time: the mean power in consecutive equal parts of the signal.

    Args:
        waveform: [T].
        columns: number of parts; fewer if there are fewer samples.

    Returns:
        [columns] float64.
    """
    edges = np.linspace(0, len(waveform), min(columns, len(waveform)) + 1).astype(int)
    energy = np.add.reduceat(np.asarray(waveform, np.float64) ** 2, edges[:-1])
    return np.asarray(energy / np.diff(edges))


def level(power: np.ndarray, reference: float, range_db: float = RANGE_DB) -> np.ndarray:
    """Level of a power in dB relative to ``reference``, not below ``-range_db``."""
    return np.asarray(np.maximum(10 * np.log10(np.maximum(power / max(reference, 1e-30), 1e-30)), -range_db))
