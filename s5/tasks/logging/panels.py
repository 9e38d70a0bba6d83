"""Figures of examples: drawn once with all that stays, and then again and again with what a model makes of them.

A figure of matplotlib takes some tenths of a second, which a short epoch does not have. What stays (axes, text, the
mixture, the references) is drawn once and kept as pixels; later only what changes is drawn onto a copy of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s5.utils.plotting import ACCENT, tidy
from s5.utils.spectrogram import COLOUR_MAP, RANGE_DB, level, power

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DPI = 100
ROWS = 128
"""Frequency bands of a drawn spectrogram, at most: about one a pixel."""
LEAST_SHOWN = 0.1
"""Probabilities below this are not written into their cell."""


class _Panels:
    """A figure whose animated artists are drawn anew onto the pixels of the others."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.still: Any = None

    def _inches(self, left: float, right: float, top: float, bottom: float) -> dict[str, float]:
        """Margins in inches as matplotlib's fractions of the figure."""
        width, height = self.figure.get_size_inches()
        return {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height}

    def _draw(self, changed: Sequence[tuple[Axes, Artist]]) -> np.ndarray:
        """Pixels [height, width, 3] uint8 with these artists drawn, later ones over earlier ones."""
        if self.still is None:
            self.canvas.draw()
            self.still = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self.still)
        for axes, artist in changed:
            axes.draw_artist(artist)
        return np.ascontiguousarray(np.asarray(self.canvas.buffer_rgba())[..., :3])


class SourcePanels(_Panels):
    """Spectrograms of a mixture, its sources and their estimates, in dB on one scale: 0 dB is the loudest point of
    mixture and references.

    Args:
        mixture: [T], of the reference channel.
        dry: [n, T], one row a source.
        names: of the sources.
        fs: sampling rate in Hz.
        title: in the first line.
    """

    def __init__(self, mixture: np.ndarray, dry: np.ndarray, names: Sequence[str], fs: int, title: str) -> None:
        rows = 1 + len(dry)
        super().__init__(9.0, 1.0 + 1.3 * rows)
        self.fs, self.seconds = fs, len(mixture) / fs
        grid = self.figure.add_gridspec(
            rows, 2, **self._inches(0.55, 0.95, 0.55, 0.45), hspace=0.32, wspace=0.08, width_ratios=[1, 1]
        )
        self.figure.text(0.06, 1 - 0.2 / (1.0 + 1.3 * rows), title, fontsize=10, va="center")
        spectrograms = [power(waveform, fs) for waveform in (mixture, *dry)]
        self.reference = float(max(spectrogram.max() for spectrogram in spectrograms))
        head = self.figure.add_subplot(grid[0, 1])
        head.axis("off")
        self.note = head.text(0.0, 0.5, "", fontsize=9, va="center", transform=head.transAxes, animated=True)
        self.head = head
        image: Any = None
        self.estimates = []
        for row, (spectrogram, name) in enumerate(zip(spectrograms, ("mixture", *names), strict=True)):
            axes = self.figure.add_subplot(grid[row, 0])
            image = self._image(axes, self._level(spectrogram))
            self._text(axes, name if row == 0 else f"{name}, reference")
            self._label(axes, last=row == rows - 1, first=True)
            if row:
                axes = self.figure.add_subplot(grid[row, 1])
                self._label(axes, last=row == rows - 1, first=False)
                empty = self._image(axes, np.full((1, 1), -RANGE_DB))
                empty.set_animated(True)
                text = self._text(axes, "")
                text.set_animated(True)
                self.estimates.append((axes, empty, text))
        height = 1.0 + 1.3 * rows
        bar = self.figure.add_axes((1 - 0.75 / 9.0, 0.45 / height, 0.12 / 9.0, 1 - 1.0 / height))
        self.figure.colorbar(image, cax=bar)
        bar.tick_params(labelsize=8)
        bar.set_ylabel("level in dB", fontsize=8.5)

    def draw(self, estimates: np.ndarray, captions: Sequence[str], note: str) -> np.ndarray:
        """The figure with these estimates [n, T]; RGB pixels [height, width, 3] uint8."""
        changed: list[tuple[Axes, Artist]] = [(self.head, self.note)]
        self.note.set_text(note)
        for (axes, image, text), estimate, caption in zip(self.estimates, estimates, captions, strict=True):
            image.set_data(self._level(power(estimate, self.fs)))
            text.set_text(caption)
            changed += [(axes, image), (axes, text)]
        return self._draw(changed)

    def _level(self, spectrogram: np.ndarray) -> np.ndarray:
        """Power [frequency, time] in dB, with at most :data:`ROWS` bands: of neighbours the louder."""
        bands = max(1, len(spectrogram) // ROWS)
        rows = len(spectrogram) // bands
        return level(spectrogram[: rows * bands].reshape(rows, bands, -1).max(1), self.reference)

    def _image(self, axes: Axes, levels: np.ndarray) -> Any:
        return axes.imshow(
            levels,
            origin="lower",
            aspect="auto",
            extent=(0, self.seconds, 0, self.fs / 2000),
            vmin=-RANGE_DB,
            vmax=0,
            cmap=COLOUR_MAP,
        )

    @staticmethod
    def _text(axes: Axes, text: str) -> Any:
        return axes.text(0.0, 1.03, text, fontsize=8.5, va="bottom", transform=axes.transAxes)

    @staticmethod
    def _label(axes: Axes, last: bool, first: bool) -> None:
        tidy(axes)
        axes.tick_params(labelbottom=last, labelleft=first)
        if last:
            axes.set_xlabel("time in s")
        if first:
            axes.set_ylabel("kHz")


class TagPanels(_Panels):
    """Log-mel spectrogram of a mixture, and below it a tagger's probabilities; frames mark the labels that are right.

    Args:
        mel_db: [bands, frames] in dB, relative to the loudest.
        seconds: duration.
        marked: the right cells of the probabilities, as (row, column).
        rows: names of the rows of probabilities.
        classes: names of their columns.
        title: in the first line.
    """

    def __init__(
        self,
        mel_db: np.ndarray,
        seconds: float,
        marked: Sequence[tuple[int, int]],
        rows: Sequence[str],
        classes: Sequence[str],
        title: str,
    ) -> None:
        from matplotlib.patches import Rectangle

        height = 4.35 + 0.3 * len(rows)
        super().__init__(9.0, height)
        self.figure.text(0.09, 1 - 0.2 / height, title, fontsize=10, va="center")
        grid = self.figure.add_gridspec(
            2, 1, **self._inches(0.8, 0.95, 0.45, 1.1), hspace=0.75, height_ratios=[1.9, 0.3 * len(rows)]
        )
        axes = self.figure.add_subplot(grid[0])
        image = axes.imshow(
            mel_db,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, len(mel_db)),
            vmin=-RANGE_DB,
            vmax=0,
            cmap=COLOUR_MAP,
        )
        tidy(axes)
        axes.set_xlabel("time in s")
        axes.set_ylabel("mel band")
        box = axes.get_position()
        bar = self.figure.add_axes((1 - 0.75 / 9.0, box.y0, 0.12 / 9.0, box.height))
        self.figure.colorbar(image, cax=bar)
        bar.tick_params(labelsize=8)
        bar.set_ylabel("level in dB", fontsize=8.5)

        self.axes = axes = self.figure.add_subplot(grid[1])
        self.cells = axes.imshow(
            np.zeros((len(rows), len(classes))), aspect="auto", cmap="Greys", vmin=0, vmax=1, animated=True
        )
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        tidy(axes)
        self.note = axes.text(0.0, 1.06, "", fontsize=8.5, va="bottom", transform=axes.transAxes, animated=True)
        self.frames = [
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ACCENT, linewidth=1.6))
            for row, column in marked
        ]
        for frame in self.frames:
            frame.set(animated=True, clip_on=False)

    def draw(self, probability: np.ndarray, note: str) -> np.ndarray:
        """The figure with these probabilities [rows, classes]; RGB pixels [height, width, 3] uint8."""
        self.cells.set_data(probability)
        self.note.set_text(note)
        texts = [
            self.axes.text(
                column,
                row,
                f"{probability[row, column]:.2f}",
                fontsize=7.5,
                ha="center",
                va="center",
                color="white" if probability[row, column] > 0.5 else "black",
                animated=True,
            )
            for row, column in np.argwhere(probability >= LEAST_SHOWN)
        ]
        changed: list[Artist] = [self.cells, *texts, *self.frames, self.note]
        pixels = self._draw([(self.axes, artist) for artist in changed])
        for text in texts:
            text.remove()
        return pixels
