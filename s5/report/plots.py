"""Draws a system's results: by class, by number of sources, by scene, confusions, and a map of all systems.

All figures are drawn from ``scores.json`` alone. They use marks, hatching and words rather than colours, and show the
bootstrap intervals that stage 11 computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from s5.labels import SILENCE
from s5.report.results import Bound, Result, by_set
from s5.utils.plotting import (
    ACCENT,
    DARK,
    HATCHES,
    LIGHT,
    MARKERS,
    MIDDLE,
    errors,
    label_offsets,
    new_figure,
    save,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from s5.report.taggers import TaggerAccuracy

SHADES = (MIDDLE, LIGHT, DARK)
SUBSETS = ("DupSet", "NoDupSet", "all")
BOUND_LINES = {"silence": ":", "best gain": "--", "ideal mask": "-"}
"""Lines of floors and ceilings. The mixture is the line of 0 dB."""
BOUND_COLOR = "0.35"

Parts = Mapping[str, Mapping[str, Any]]

_Panel = tuple[Sequence[tuple[str, str, str]], str, str, str, str]
"""Groups for :func:`_bars`, metric, title, and labels of both axes."""


def draw_results(
    own: Sequence[Result], everything: Sequence[Result], folder: Path, bounds: Sequence[Bound] = ()
) -> dict[str, Path]:
    """Draws all figures of one system on one data set that its scores allow.

    Args:
        own: results of the system on the set, with tagged labels, with oracle labels, or both.
        everything: all results on the set, for the map of systems.
        folder: folder to write.
        bounds: floors and ceilings of the set, which are drawn as lines.

    Returns:
        File of each figure by title.
    """
    name, first = own[0].set, own[0]
    drawn: dict[str, Path] = {}

    def add(title: str, file: str, figure: Any) -> None:
        if figure is not None:
            path = folder / f"{name}_{file}.png"
            save(figure, path)
            drawn[title] = path

    add("SDRi by class", "sdri_by_class", sdri_by_class(own, bounds))
    add("SDRi by number of sources and subset", "sdri_by_n_sources", sdri_by_n_sources(own, bounds))
    if not first.oracle:
        add("accuracy by class", "accuracy_by_class", accuracy_by_class(first))
        add("confusions", "confusion", confusion(first))
    add("SDRi by SNR, angle and room", "sdri_by_scene", sdri_by_scene(own, bounds))
    add("map of systems", "systems", system_map(everything, bounds))
    return drawn


def sdri_by_class(results: Sequence[Result], bounds: Sequence[Bound] = ()) -> Any:
    """SDRi of the sources of each class that were given their label, best class on top."""
    known = [r for r in results if r.scores.get("by_class")]
    if not known:
        return None
    order = known[-1].scores["by_class"]  # those of the oracle labels, if there are any: every source counts
    classes = [name for name, part in order.items() if part.get("SDRi") is not None]
    classes.sort(key=lambda name: order[name]["SDRi"])
    if not classes:
        return None
    figure = new_figure(6.4, 1.3 + 0.36 * len(classes), f"{_who(known[0])}: SDRi by class")
    axes = figure.add_subplot()
    for i, result in enumerate(known):
        offset = 0.16 * (len(known) - 1) * (1 - 2 * i)
        cells = [(y + offset, "by_class", label) for y, label in enumerate(classes)]
        points = _points(result, cells, "SDRi")
        values = [point.value for point in points]
        style: dict[str, Any] = {"fmt": MARKERS[i], "color": (DARK, ACCENT)[i % 2]}
        style |= {"markersize": 5, "capsize": 2, "linewidth": 1, "label": f"{result.labels} labels"}
        spans = errors(values, [point.interval for point in points])
        axes.errorbar(values, [point.place for point in points], xerr=spans, **style)
        for point in points:
            count = point.part.get("tp")
            text = f"{point.value:.1f}" + (f" (n = {count})" if count is not None else "")
            _note(axes, text, (point.top, point.place), (4, 0), va="center", color="0.25")
    for bound, style in _bound_styles(bounds):
        points = _points(bound, [(y, "by_class", label) for y, label in enumerate(classes)], "SDRi")
        middles = np.array([point.place for point in points])
        axes.vlines([point.value for point in points], middles - 0.35, middles + 0.35, **style)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("SDRi of the sources with a right label (dB)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.16)
    tidy(axes, "x")
    _legend(axes, known)
    return figure


def sdri_by_n_sources(results: Sequence[Result], bounds: Sequence[Bound] = ()) -> Any:
    """CAPI-SDRi, and SDRi of the sources with a right label, by number of sources and subset."""
    known = [r for r in results if r.scores.get("by_n_sources")]
    if not known:
        return None
    groups = [("by_n_sources", key, f"{key} source{'s' if key != '1' else ''}") for key in _numbers(known)]
    groups += [("by_subset", key, key) for key in ("DupSet", "NoDupSet")]
    panels = [
        (groups, "CAPI-SDRi", "wrong and missed labels count as 0 dB", "", "CAPI-SDRi (dB)"),
        (groups, "SDRi", "sources with a right label", "", "SDRi (dB)"),
    ]
    return _panels(known, panels, f"{_who(known[0])}: improvement by number of sources and subset", 8.4, bounds)


def sdri_by_scene(results: Sequence[Result], bounds: Sequence[Bound] = ()) -> Any:
    """SDRi by SNR of the source, angle between sources of a class and room; None if the scenes are not known."""
    known = [r for r in results if r.scores.get("by_snr")]
    if not known:
        return None
    panels, n_bars = [], 0
    for group, metric, x_label, y_label in (
        ("by_snr", "SDRi", "SNR of the source over the background (dB)", "SDRi, right labels (dB)"),
        ("by_angle", "CAPI-SDRi", "smallest angle between sources\nof one class (degrees)", "CAPI-SDRi (dB)"),
        ("by_room", "CAPI-SDRi", "room", "CAPI-SDRi (dB)"),
    ):
        if keys := known[0].scores.get(group):
            panels.append(([(group, key, key.replace("..", "–")) for key in keys], metric, "", x_label, y_label))
            n_bars += max(2, len(keys))
    return _panels(known, panels, f"{_who(known[0])}: improvement by scene", 1.5 + 0.85 * n_bars, bounds)


def accuracy_by_class(result: Result) -> Any:
    """Source accuracy of each class as a bar, recall and precision as marks."""
    parts: Parts = result.scores.get("by_class") or {}
    classes = [label for label in parts if parts[label].get("accuracy_src") is not None]
    classes.sort(key=lambda label: parts[label]["accuracy_src"])
    if not classes:
        return None
    figure = new_figure(6.4, 1.4 + 0.32 * len(classes), f"{_who(result)}: accuracy by class")
    axes = figure.add_subplot()
    values = [parts[label]["accuracy_src"] for label in classes]
    spans = errors(values, [_interval(result, "by_class", label, "accuracy_src") for label in classes])
    places = np.arange(len(classes))
    style: dict[str, Any] = {"color": LIGHT, "edgecolor": DARK, "hatch": "//", "linewidth": 0.6}
    style |= {"ecolor": "0.3", "capsize": 2, "label": "source accuracy TP / (TP + FP + FN)"}
    axes.barh(places, values, 0.62, xerr=spans, **style)
    for key, marker, color in (("recall", "o", DARK), ("precision", "D", ACCENT)):
        points = [(parts[label][key], y) for y, label in enumerate(classes) if parts[label].get(key) is not None]
        style = {"marker": marker, "color": color, "edgecolors": "white", "linewidths": 0.5, "zorder": 3}
        axes.scatter([x for x, _ in points], [y for _, y in points], s=26, label=key, **style)
    for y, label in enumerate(classes):
        counts = parts[label]
        text = f"{counts['accuracy_src']:.0f} %  ({counts['tp']} found, {counts['fn']} missed, {counts['fp']} false)"
        _note(axes, text, (102, y), (0, 0), va="center", color="0.25", annotation_clip=False)
    axes.set_yticks(places, classes)
    axes.set_xlim(0, 100)
    axes.set_xlabel("%")
    tidy(axes, "x")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    return figure


def confusion(result: Result) -> Any:
    """The confusion matrix (:func:`s5.metrics.confusion_matrix`): counts, shaded by the share of the row."""
    matrix = result.scores.get("confusion")
    if not matrix or len(matrix["labels"]) < 2:
        return None
    labels, counts = matrix["labels"], np.array(matrix["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.6 + 0.42 * len(labels)
    figure = new_figure(size + 0.6, size, f"{_who(result)}: confusions of classes")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    for i, j in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[i, j] > 0.55 else "black"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=7.5, color=color)
    last = len(labels) - 1
    for line in (axes.axhline, axes.axvline):
        line(last - 0.5, color="black", linewidth=1)
    axes.set_xticks(range(len(labels)), [*labels[:-1], "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), [*labels[:-1], "false alarm"])
    assert labels[-1] == SILENCE
    axes.set_xlabel("label of the estimate")
    axes.set_ylabel("class of the reference")
    axes.tick_params(labelsize=8, length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6)
    bar.set_label("share of the row", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def taggers_by_subset(taggers: Sequence[TaggerAccuracy]) -> Any:
    """Accuracies of every tagger alone on one data set, like Table 1 of Nguyen et al.; None without taggers."""
    known = [t for t in taggers if t.mixture["Total"] is not None]
    if not known:
        return None
    known.sort(key=lambda t: (t.mixture["Total"], t.source["Total"], t.name))
    names = [t.name if t.channels is None else f"{t.name} ({t.channels} ch.)" for t in known]
    figure = new_figure(8.4, 1.8 + 0.28 * len(known), f"{known[0].set}: every tagger alone")
    all_axes = figure.subplots(1, 2, sharey=True)
    panels = {"source accuracy TP / (TP + FP + FN) (%)": "source", "mixtures with all labels right (%)": "mixture"}
    marks = {"DupSet": ("s", DARK), "NoDupSet": ("o", "white"), "Total": ("D", ACCENT)}
    for axes, (title, part) in zip(all_axes, panels.items(), strict=True):
        figures = [getattr(t, part) for t in known]
        for y, found in enumerate(figures):
            values = [value for value in found.values() if value is not None]
            axes.plot([min(values), max(values)], [y, y], color=MIDDLE, linewidth=1, zorder=1)
            _note(axes, f"{found['Total']:.1f}", (1, y), (4, 0), xycoords=("axes fraction", "data"), va="center")
        for subset, (marker, face) in marks.items():
            points = [(found[subset], y) for y, found in enumerate(figures) if found[subset] is not None]
            style: dict[str, Any] = {"marker": marker, "facecolors": face, "edgecolors": "black", "linewidths": 0.7}
            axes.scatter([x for x, _ in points], [y for _, y in points], s=30, label=subset, zorder=2, **style)
        axes.set_xlabel(title)
        axes.set_title("Total", loc="right", fontsize=8)
        axes.set_xlim(-3, 103)
        tidy(axes, "x")
    all_axes[0].set_yticks(range(len(known)), names)
    handles = all_axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    return figure


def system_map(results: Sequence[Result], bounds: Sequence[Bound] = ()) -> Any:
    """A map of systems like Fig. 5 of Nguyen et al.; None for fewer than two systems.

    A system's position is the source accuracy of its labels, and the CAPI-SDRi of its separators with oracle labels.
    The size of its mark is the CAPI-SDRi of the system, which is also listed beside the map. Systems without scores
    with oracle labels are left out. Floors and ceilings are listed, and drawn as lines where they lie between systems.
    """
    rows = next(iter(by_set(results).values()), [])
    oracle = {r.system: r for r in rows if r.oracle}
    pairs = [(r, oracle[r.system]) for r in rows if not r.oracle and r.system in oracle]
    if len(pairs) < 2:
        return None
    pairs.sort(key=lambda pair: -(pair[0].scores["metrics"].get("CAPI-SDRi") or 0.0))  # 1 is the best
    height = 3.6 + 0.13 * max(0, len(pairs) + (len(bounds) + 3) * bool(bounds) - 14)
    figure = new_figure(11.0, height, f"{rows[0].set}: systems")
    all_axes = figure.subplots(1, 3)
    wholes = [[_subset(r, subset).get("CAPI-SDRi") for r, _ in pairs] for subset in SUBSETS]
    levels = [value for values in wholes for value in values if value is not None]
    low, high = min(levels, default=0.0), max(levels, default=1.0)
    for axes, subset, values in zip(all_axes, SUBSETS, wholes, strict=True):
        marks = []
        for number, ((tagged, true), value) in enumerate(zip(pairs, values, strict=True), 1):
            x, y = _subset(tagged, subset).get("accuracy_src"), _subset(true, subset).get("CAPI-SDRi")
            if x is not None and y is not None and value is not None:
                marks.append((number, x, y, 60 + 260 * (value - low) / max(high - low, 1e-9)))
        _map_marks(axes, marks, (160.0, 72 * height - 80))
        _map_lines(axes, subset, bounds)
        axes.set_title({"all": "all mixtures"}.get(subset, subset))
        axes.set_xlabel("source accuracy of the labels (%)")
        tidy(axes, "both")
    all_axes[0].set_ylabel("CAPI-SDRi with oracle labels (dB)")
    key = [f"{number}  {r.system}  {r.scores['metrics']['CAPI-SDRi']:.2f}" for number, (r, _) in enumerate(pairs, 1)]
    if without := len([r for r in rows if not r.oracle]) - len(pairs):
        key.append(f"(not scored with oracle labels: {without} more)")
    known = {bound.system: bound.scores["metrics"].get("CAPI-SDRi") for bound in bounds}
    if lines := [f"{name}  {value:.2f}" for name, value in known.items() if value is not None]:
        key += ["", "Other estimates with the true labels:", "", *lines]
    title = "\n".join(
        ["Size of a mark: CAPI-SDRi of the system", "on these mixtures. On all of them, in dB:", "", *key]
    )
    style: dict[str, Any] = {"title_fontsize": 7, "frameon": False, "alignment": "left"}
    figure.legend([], [], loc="outside right upper", title=title, **style)
    return figure


def _map_marks(axes: Axes, marks: Sequence[tuple[int, float, float, float]], extent: tuple[float, float]) -> None:
    """Draws numbered marks whose numbers do not cover each other.

    Args:
        axes: axes to draw on.
        marks: number, x, y and area of each.
        extent: approximate size of the axes in typographic points.
    """
    if not marks:
        return
    places = np.array([[x, y] for _, x, y, _ in marks])
    spread = places.max(axis=0) - places.min(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    style: dict[str, Any] = {"color": LIGHT, "edgecolors": DARK, "linewidths": 1, "alpha": 0.8, "zorder": 2}
    axes.scatter(places[:, 0], places[:, 1], s=[area for *_, area in marks], **style)
    margin = 0.2
    axes.margins(margin)
    in_points = (places - places.min(axis=0)) / spread * np.array(extent) / (1 + 2 * margin)
    for (number, *_), place, offset in zip(marks, places, label_offsets(in_points, (11.0, 9.0)), strict=True):
        line = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
        centre: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3}
        _note(axes, str(number), tuple(place), tuple(offset), arrowprops=line if offset.any() else None, **centre)


def _map_lines(axes: Axes, subset: str, bounds: Sequence[Bound]) -> None:
    """Draws the bounds of a subset that lie in the range of the vertical axis, with their names."""
    low, high = axes.get_ylim()
    for bound in bounds:
        value = _subset(bound, subset).get("CAPI-SDRi")
        if bound.system in BOUND_LINES and value is not None and low <= value <= high:
            axes.axhline(value, color=BOUND_COLOR, linewidth=1, linestyle=BOUND_LINES[bound.system], zorder=1)
            _note(axes, bound.system, (0, value), (2, 2), xycoords=("axes fraction", "data"), color=BOUND_COLOR)


class _Point(NamedTuple):
    """A metric of a group of mixtures, and the position where it is drawn."""

    place: float
    value: float
    interval: Sequence[float] | None
    part: Mapping[str, Any]
    """All metrics of the group."""

    @property
    def top(self) -> float:
        """Upper end of the interval, or the value itself."""
        return max(self.interval[1], self.value) if self.interval else self.value


def _points(result: Result, cells: Iterable[tuple[float, str, str]], metric: str) -> list[_Point]:
    """Points of those cells (position, breakdown, key in it) that have the metric."""
    points = []
    for place, group, key in cells:
        part = (result.scores.get(group) or {}).get(key, {})
        if part.get(metric) is not None:
            points.append(_Point(place, part[metric], _interval(result, group, key, metric), part))
    return points


def _panels(
    results: Sequence[Result], panels: Sequence[_Panel], title: str, width: float, bounds: Sequence[Bound] = ()
) -> Any:
    """A figure with panels of bars side by side, whose widths follow their numbers of groups."""
    sizes = [max(2, len(groups)) for groups, *_ in panels]
    figure = new_figure(width, 3.4, title)
    all_axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=sizes)[0]
    for axes, (groups, metric, panel_title, x_label, y_label) in zip(all_axes, panels, strict=True):
        _bars(axes, results, groups, metric, bounds)
        axes.set_title(panel_title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        tidy(axes, "y")
    _legend(all_axes[0], results)
    return figure


def _bars(
    axes: Axes,
    results: Sequence[Result],
    groups: Sequence[tuple[str, str, str]],
    metric: str,
    bounds: Sequence[Bound] = (),
) -> None:
    """Draws a bar of every result for each group, with values and intervals, and lines of the bounds.

    Args:
        axes: axes to draw on.
        results: results, which differ in shade and hatching.
        groups: (breakdown, key in it, name below the bars).
        metric: metric to draw.
        bounds: floors and ceilings.
    """
    width = 0.8 / len(results)
    for i, result in enumerate(results):
        shift = (i - (len(results) - 1) / 2) * width
        points = _points(result, [(x + shift, group, key) for x, (group, key, _) in enumerate(groups)], metric)
        values = [point.value for point in points]
        style: dict[str, Any] = {"color": SHADES[i % 3], "hatch": HATCHES[i % len(HATCHES)]}
        style |= {"edgecolor": "black", "linewidth": 0.6, "ecolor": "black", "capsize": 2}
        spans = errors(values, [point.interval for point in points])
        places = [point.place for point in points]
        axes.bar(places, values, 0.94 * width, yerr=spans, label=f"{result.labels} labels", **style)
        for point in points:
            _note(axes, f"{point.value:.1f}", (point.place, max(point.top, 0)), (0, 2), ha="center")
    for bound, style in _bound_styles(bounds):
        points = _points(bound, [(x, group, key) for x, (group, key, _) in enumerate(groups)], metric)
        middles = np.array([point.place for point in points])
        axes.hlines([point.value for point in points], middles - 0.45, middles + 0.45, **style)
    names = []
    for group, key, name in groups:
        part = (results[0].scores.get(group) or {}).get(key, {})
        count = part.get("mixtures", part.get("sources"))
        names.append(name if count is None else f"{name}\n(n = {count})")
    axes.set_xticks(range(len(groups)), names)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.12)


def _bound_styles(bounds: Sequence[Bound]) -> list[tuple[Bound, dict[str, Any]]]:
    """The bounds that are drawn as lines, each with its style."""
    style = {"colors": BOUND_COLOR, "linewidth": 1.2, "zorder": 2.5}
    drawn = [bound for bound in bounds if bound.system in BOUND_LINES]
    return [(b, {**style, "linestyles": BOUND_LINES[b.system], "label": b.system}) for b in drawn]


def _note(axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Writes small text beside a position; the offset is in typographic points."""
    axes.annotate(text, place, offset, textcoords="offset points", fontsize=6.5, **style)


def _legend(axes: Axes, results: Sequence[Result]) -> None:
    """Adds a legend below the figure, with the level of the intervals if there are any."""
    handles, names = axes.get_legend_handles_labels()
    level = results[0].scores.get("intervals", {}).get("level")
    title = f"{level:g} % intervals by bootstrap over mixtures" if level else None
    style: dict[str, Any] = {"fontsize": 7.5, "title_fontsize": 7, "frameon": False}
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles, names, loc="outside lower center", ncols=2, title=title, **style)


def _interval(result: Result, group: str, key: str, metric: str) -> Sequence[float] | None:
    """Interval [low, high] of a metric, if stage 11 computed it."""
    return result.scores.get("intervals", {}).get(group, {}).get(key, {}).get(metric)


def _subset(result: Result, subset: str) -> Mapping[str, Any]:
    if subset == "all":
        return result.scores["metrics"]
    return (result.scores.get("by_subset") or {}).get(subset, {})


def _numbers(results: Sequence[Result]) -> list[str]:
    """Numbers of sources that occur, without 0, where nothing can improve."""
    return sorted({key for r in results for key in r.scores["by_n_sources"]} - {"0"}, key=int)


def _who(result: Result) -> str:
    return f"{result.system} on {result.set}"
