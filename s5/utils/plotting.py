"""Style of all figures: size, type, marks that need no colour, and atomic files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s5.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
DARK, MIDDLE, LIGHT = "#2b4a6f", "#7f9cc0", "#d3deeb"
"""Shades of one colour, which remain in order in grey print and without colour vision."""
ACCENT = "#b5541c"
HATCHES = ("", "////", "....", "xxxx", "----")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_RINGS = [np.zeros(2)] + [
    radius * np.array([np.sin(angle), np.cos(angle)])
    for radius in range(12, 80, 6)
    for angle in np.linspace(0, 2 * np.pi, radius, endpoint=False)
]
"""Offsets from a mark to places for its label, the nearest first."""


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Makes an empty figure of a size in inches. It does not use pyplot, which needs a display and shares state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def tidy(axes: Axes, grid: str = "") -> None:
    """Sets small type and removes the frame at the top and right. ``grid`` (``x`` or ``y``) adds lines to an axis."""
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, linewidth=0.4, color="0.85")  # type: ignore[arg-type]


def errors(values: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> np.ndarray | None:
    """Lengths of error bars below and above [2, n] for matplotlib; None if there is no interval.

    Example:
        >>> errors([1.0, 2.0], [[0.5, 2.0], None]).tolist()
        [[0.5, 0.0], [1.0, 0.0]]
    """
    if not any(intervals):
        return None
    pairs = zip(values, intervals, strict=True)
    return np.array([[max(v - i[0], 0), max(i[1] - v, 0)] if i else [0.0, 0.0] for v, i in pairs]).T


def label_offsets(points: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Offsets of labels from their marks [n, 2], so that labels do not cover each other.

    A label is on its mark if possible, else at the nearest place without labels and marks.

    Args:
        points: positions of the marks [n, 2], in typographic points.
        size: width and height of a label.

    Example:
        >>> label_offsets(np.array([[0, 0], [40, 0], [0, 0]]), (10, 8)).round().tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 12.0]]
    """
    places: list[np.ndarray] = []
    for i, point in enumerate(points):
        others = np.delete(points, i, axis=0)
        for step in _RINGS:
            taken = any((np.abs(point + step - place) < size).all() for place in places)
            beside_a_mark = step.any() and (np.abs(point + step - others) < size).all(axis=1).any()
            if not taken and not beside_a_mark:
                places.append(point + step)
                break
        else:
            places.append(point)
    return np.array(places) - points


def save(figure: Any, path: Path) -> None:
    """Writes a figure as a PNG and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
