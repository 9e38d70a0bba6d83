"""Figures of examples: spectrograms of sources and estimates, and probabilities of a tagger, as RGB pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s5.utils.plotting import ACCENT, tidy
from s5.utils.spectrogram import COLOUR_MAP, RANGE_DB, level, pooled, power

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
WIDTH = 9.0
"""Width of a figure in inches."""
LEAST_SHOWN = 0.1
"""Probability from which a cell shows its value."""


def draw_sources(
    mixture: np.ndarray,
    dry: np.ndarray,
    estimates: np.ndarray,
    names: Sequence[str],
    captions: Sequence[str],
    fs: int,
    title: str,
    note: str,
) -> np.ndarray:
    """Spectrograms of a mixture, its sources and their estimates, in dB on one scale.

    0 dB is the loudest point of mixture and references.

    Args:
        mixture: [T], of the reference channel.
        dry: [n, T], one row a source.
        estimates: [n, T], in the order of ``dry``.
        names: of the sources.
        captions: of the estimates.
        fs: sampling rate in Hz.
        title: first line of the figure.
        note: text above the estimates.

    Returns:
        Pixels [height, width, 3] uint8.
    """
    rows = 1 + len(dry)
    height = 1.0 + 1.3 * rows
    figure = _figure(height, title)
    grid = figure.add_gridspec(rows, 2, **_margins(figure, 0.55, 0.95, 0.55, 0.45), hspace=0.32, wspace=0.08)
    references = [power(waveform, fs) for waveform in (mixture, *dry)]
    loudest = float(max(spectrogram.max() for spectrogram in references))
    head = figure.add_subplot(grid[0, 1])
    head.axis("off")
    head.text(0.0, 0.5, note, fontsize=9, va="center", transform=head.transAxes)
    columns: list[tuple[list[Any], list[str]]] = [
        (references, ["mixture", *(f"{name}, reference" for name in names)]),
        ([None, *(power(waveform, fs) for waveform in estimates)], ["", *captions]),
    ]
    image: Any = None
    for column, (spectrograms, labels) in enumerate(columns):
        for row, (spectrogram, label) in enumerate(zip(spectrograms, labels, strict=True)):
            if spectrogram is None:
                continue
            axes = figure.add_subplot(grid[row, column])
            image = _spectrogram(axes, level(pooled(spectrogram), loudest), len(mixture) / fs, fs / 2000)
            axes.text(0.0, 1.03, label, fontsize=8.5, va="bottom", transform=axes.transAxes)
            axes.set_xlabel("time in s" if row == rows - 1 else "")
            axes.set_ylabel("" if column else "kHz")
            axes.tick_params(labelbottom=row == rows - 1, labelleft=not column)
    _colour_bar(figure, image, 0.45 / height, 1 - 1.0 / height)
    return _pixels(figure)


def draw_tags(
    mel_db: np.ndarray,
    seconds: float,
    probability: np.ndarray,
    marked: Sequence[tuple[int, int]],
    rows: Sequence[str],
    classes: Sequence[str],
    title: str,
    note: str,
) -> np.ndarray:
    """Log-mel spectrogram of a mixture, and below it a tagger's probabilities. Frames mark the right labels.

    Args:
        mel_db: [bands, frames] in dB, relative to the loudest.
        seconds: duration.
        probability: [rows, classes].
        marked: the right cells, as (row, column).
        rows: names of the rows of probabilities.
        classes: names of their columns.
        title: first line of the figure.
        note: text above the probabilities.

    Returns:
        Pixels [height, width, 3] uint8.
    """
    from matplotlib.patches import Rectangle

    figure = _figure(4.35 + 0.3 * len(rows), title)
    margins = _margins(figure, 0.8, 0.95, 0.45, 1.1)
    grid = figure.add_gridspec(2, 1, **margins, hspace=0.75, height_ratios=[1.9, 0.3 * len(rows)])
    axes = figure.add_subplot(grid[0])
    image = _spectrogram(axes, mel_db, seconds, len(mel_db))
    axes.set_xlabel("time in s")
    axes.set_ylabel("mel band")
    box = axes.get_position()
    _colour_bar(figure, image, box.y0, box.height)

    axes = figure.add_subplot(grid[1])
    axes.imshow(probability, aspect="auto", cmap="Greys", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    tidy(axes)
    axes.text(0.0, 1.06, note, fontsize=8.5, va="bottom", transform=axes.transAxes)
    for row, column in np.argwhere(probability >= LEAST_SHOWN):
        value = probability[row, column]
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row, f"{value:.2f}", fontsize=7.5, ha="center", va="center", color=colour)
    for row, column in marked:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ACCENT, linewidth=1.6, clip_on=False))
    return _pixels(figure)


def _figure(height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    figure.text(0.06, 1 - 0.2 / height, title, fontsize=10, va="center")
    return figure


def _margins(figure: Figure, left: float, right: float, top: float, bottom: float) -> dict[str, float]:
    """Margins in inches as matplotlib's fractions of the figure."""
    width, height = figure.get_size_inches()
    return {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height}


def _spectrogram(axes: Axes, levels: np.ndarray, seconds: float, top: float) -> Any:
    """Draws levels in dB [frequency, time]; ``top`` is the upper end of the frequency axis."""
    tidy(axes)
    extent = (0, seconds, 0, top)
    return axes.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=-RANGE_DB, vmax=0, cmap=COLOUR_MAP)


def _colour_bar(figure: Figure, image: Any, bottom: float, height: float) -> None:
    bar = figure.add_axes((1 - 0.75 / WIDTH, bottom, 0.12 / WIDTH, height))
    figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=8)
    bar.set_ylabel("level in dB", fontsize=8.5)


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
