"""Draws the taggers' features of a mixture: waveform, mel spectrogram, roll-off and chroma (Fig. 1 of Park et al.).

The features are those of the networks (:mod:`s5.tagging.logmel`, :mod:`s5.tagging.features`), with windows of 25 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s5.data import DataDir
from s5.utils.errors import InputError, one_of
from s5.utils.plotting import ACCENT, DARK, new_figure, save, tidy
from s5.utils.spectrogram import COLOUR_MAP

N_MELS = 80
RANGE_DB = 80.0
"""Levels further below the loudest are drawn as the darkest colour."""
PITCHES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


@dataclass(frozen=True)
class Features:
    """Features of one waveform.

    Attributes:
        mel_db: level relative to the loudest [N_MELS, frames], in dB.
        mel_hz: centre frequency of each band [N_MELS], in Hz.
        rolloff: roll-off frequency [frames], in Hz.
        chroma: share of each pitch class [12, frames], from 0 to 1.
        hop: step between frames in seconds.
    """

    mel_db: np.ndarray
    mel_hz: np.ndarray
    rolloff: np.ndarray
    chroma: np.ndarray
    hop: float


def extract(waveform: np.ndarray, fs: int) -> Features:
    """Computes the features of a waveform [T] at fs Hz."""
    import torch

    from s5.tagging.features import Chroma, SpectralRolloff
    from s5.tagging.logmel import mel_level

    size, hop = round(0.025 * fs), round(0.01 * fs)
    batch = torch.from_numpy(np.asarray(waveform, np.float32))[None]
    with torch.inference_mode():
        mel_db, centre = mel_level(waveform, fs, N_MELS)
        rolloff = SpectralRolloff(fs, size, hop).extract(batch)[0].numpy()
        chroma = Chroma(fs, size, hop).extract(batch)[0].numpy()
    return Features(mel_db, centre, rolloff, chroma, hop / fs)


def choose_mixture(mixtures: Sequence[Mapping[str, Any]]) -> str | None:
    """Name of the best separated mixture with two sources of different classes; None if there is none.

    Args:
        mixtures: entries of scores.json.
    """
    two = [m for m in mixtures if len(m["ref_labels"]) == len(set(m["ref_labels"])) == 2 and m.get("CAPI-SDRi")]
    return max(two, key=lambda m: (m["CAPI-SDRi"], m["utt"]))["utt"] if two else None


def draw_features(data: DataDir, utt: str, out: Path) -> None:
    """Draws Fig. 1 of Park et al. for a mixture, with bars where each source is active.

    Args:
        data: the data set.
        utt: the mixture.
        out: PNG file to write.

    Raises:
        InputError: the data set has no such mixture.
    """
    if utt not in data.utts:
        raise InputError(data.path, f"no mixture {utt}", one_of(data.utts[:10], utt))
    mixture, fs = data.mixture(utt)
    labels = data.labels.get(utt, ())
    sources = data.sources(utt)[: len(labels)] if data.has_sources else np.zeros((0, mixture.shape[1]))
    found = extract(mixture[0], fs)
    seconds = mixture.shape[1] / fs
    figure = new_figure(7.2, 8.0, f"{utt}: {', '.join(labels) or 'no source'}")
    all_axes = figure.subplots(4, 1, sharex=True, height_ratios=[1.1 + 0.12 * len(labels), 1.3, 0.9, 1.1])

    axes = all_axes[0]
    time = np.arange(mixture.shape[1]) / fs
    axes.plot(time, mixture[0], color=DARK, linewidth=0.4)
    peak = float(np.abs(mixture[0]).max()) or 1.0
    for i, (label, source) in enumerate(zip(labels, sources, strict=True)):
        y = -peak * (1.25 + 0.3 * i)
        times = active_times(source, fs)
        for begin, end in times:
            axes.plot([begin, end], [y, y], color=ACCENT, linewidth=3, solid_capstyle="butt")
        first, last = (times[0][0], times[-1][1]) if times else (0.0, 0.0)
        late = last > 0.8 * seconds  # no room behind the bar
        place, side = ((first, y), "right") if late and first > 0.2 * seconds else ((last, y), "left")
        offset = (-4 if side == "right" else 4, 0)
        axes.annotate(label, place, offset, textcoords="offset points", va="center", ha=side, fontsize=8)
    axes.set_ylim(-peak * (1.15 + 0.3 * len(labels)), 1.1 * peak)
    axes.set_ylabel("amplitude")
    axes.set_title("(a) waveform, reference channel; bars: where the sources are active")

    edges = np.arange(found.mel_db.shape[1] + 1) * found.hop - found.hop / 2
    shades = {"cmap": COLOUR_MAP, "shading": "flat", "rasterized": True}
    axes = all_axes[1]
    low = max(-RANGE_DB, float(found.mel_db.min()))
    bands = np.arange(N_MELS + 1) - 0.5
    image = axes.pcolormesh(edges, bands, found.mel_db, vmin=low, vmax=0, **shades)
    wanted = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16000) if found.mel_hz[0] <= hz <= found.mel_hz[-1]]
    axes.set_yticks(np.interp(wanted, found.mel_hz, np.arange(N_MELS)), [f"{hz / 1000:g}" for hz in wanted])
    axes.set_ylabel("mel band (kHz)")
    axes.set_title(f"(b) mel spectrogram, {N_MELS} bands")
    _bar(figure, image, axes, "dB below the loudest")

    axes = all_axes[2]
    axes.plot(np.arange(len(found.rolloff)) * found.hop, found.rolloff / 1000, color=DARK, linewidth=0.8)
    axes.set_ylim(0, fs / 2000)
    axes.set_ylabel("roll-off (kHz)")
    axes.set_title("(c) spectral roll-off: 85 % of the spectrum lies below")

    axes = all_axes[3]
    image = axes.pcolormesh(
        edges[: found.chroma.shape[1] + 1], np.arange(13) - 0.5, found.chroma, vmin=0, vmax=1, **shades
    )
    axes.set_yticks(range(12), PITCHES)
    axes.set_ylabel("pitch class")
    axes.set_xlabel("time (s)")
    axes.set_title("(d) chroma")
    axes.set_xlim(0, seconds)
    _bar(figure, image, axes, "share of the frame's largest")
    for axes in all_axes:
        tidy(axes)
        axes.title.set_ha("left")
        axes.title.set_x(0)
    save(figure, out)


def active_times(source: np.ndarray, fs: int) -> list[tuple[float, float]]:
    """Start and end in seconds of each stretch where a dry source is above 1 % of its peak.

    Gaps of less than 0.1 s are bridged.

    Example:
        >>> active_times(np.repeat([0.0, 1.0, 0.0, 1.0], 1000), 1000)
        [(1.0, 2.0), (3.0, 4.0)]
    """
    loud = np.flatnonzero(np.abs(source) > 0.01 * np.abs(source).max()) if np.any(source) else np.empty(0, int)
    if not len(loud):
        return []
    gaps = np.flatnonzero(np.diff(loud) > 0.1 * fs)
    begins, ends = [loud[0], *loud[gaps + 1]], [*loud[gaps], loud[-1]]
    return [(float(a / fs), float((b + 1) / fs)) for a, b in zip(begins, ends, strict=True)]


def _bar(figure: Any, image: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
