"""Learning curves: what ESPnet reported of every epoch of a model, read from its experiment folder."""

from __future__ import annotations

import re
from numbers import Real
from pathlib import Path
from typing import Any

from s5.config import load_yaml
from s5.report.plotting import ACCENT, DARK, new_figure, save, tidy
from s5.report.reporter import read_reporter
from s5.report.training import EPOCH_RESULTS, criterion, log_files

Curves = dict[str, dict[str, dict[int, float]]]
"""Figure -> ``train`` or ``valid`` -> epoch -> value."""

_HIDDEN = re.compile(r".*time$|total_count|loss_scale|clip|grad_norm|optim\d+_lr\d+|gpu_.*")
"""What ESPnet reports of the work itself."""
_NUMBER = re.compile(r"(\w+)=([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?=,|\s|$)")

PERCENT = re.compile(r"acc\w*")
"""Figures that are shares, from 0 to 1."""
DECIBEL = re.compile(r".*sdri?")


def read_curves(folder: str | Path) -> Curves:
    """All figures of training and validation by epoch; of an epoch that was run again, the last run's.

    Args:
        folder: an ESPnet experiment folder. Its checkpoint knows all epochs; without one its logs are read.
    """
    folder = Path(folder)
    curves: Curves = {}
    stats = read_reporter(folder / "checkpoint.pth")
    if stats is None:
        stats = _from_logs(folder)
    for epoch, phases in stats.items():
        for phase, figures in phases.items():
            for name, value in figures.items():
                if isinstance(value, Real) and not _HIDDEN.fullmatch(name):
                    curves.setdefault(name, {}).setdefault(phase, {})[int(epoch)] = float(value)
    return curves


def draw_curves(folder: str | Path, out: Path) -> bool:
    """Draws the learning curves of a model; False where it has none.

    A panel a figure: the loss, what the best epoch was chosen by, and up to four more of the validation set. The epoch
    that was chosen is marked.
    """
    folder = Path(folder)
    curves = read_curves(folder)
    phase, key, mode = criterion(load_yaml(folder / "config.yaml"))
    names = [name for name in dict.fromkeys(["loss", key]) if name in curves]
    plain = [n for n in curves if n not in names and "valid" in curves[n] and not n.endswith(("_dup", "_nodup"))]
    names += plain[: 6 - len(names)]
    if not names:
        return False
    columns = min(3, len(names))
    n_rows = -(-len(names) // columns)
    figure = new_figure(3.0 * columns + 0.6, 2.4 * n_rows + 0.5, f"{folder.name}: learning curves")
    all_axes = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, name in zip(all_axes, names, strict=False):
        scale = 100.0 if PERCENT.fullmatch(name) else 1.0
        for part, style in (
            ("train", {"ls": "--", "marker": "o", "color": ACCENT}),
            ("valid", {"marker": "s", "color": DARK}),
        ):
            values = curves[name].get(part, {})
            if values:
                epochs = sorted(values)
                every = max(1, len(epochs) // 12)
                shown = [scale * values[epoch] for epoch in epochs]
                axes.plot(epochs, shown, label=part, markersize=3.5, linewidth=1.1, markevery=every, **style)
        values = curves[name].get(phase, {})
        if name == key and values:
            best = (min if mode == "min" else max)(values, key=lambda epoch: values[epoch])
            axes.scatter([best], [scale * values[best]], s=90, facecolors="none", edgecolors="black", zorder=3)
            text = f"best: {scale * values[best]:.3g} in epoch {best}"
            axes.set_title(f"{name} ({text})")
        else:
            axes.set_title(name)
        axes.set_ylabel("%" if scale != 1.0 else "dB" if DECIBEL.fullmatch(name) else "")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0.5, max(epoch for values in curves[name].values() for epoch in values) + 0.5)
        axes.margins(y=0.1)
        tidy(axes, "y")
    for axes in all_axes[len(names) :]:
        axes.remove()
    found: dict[str, Any] = {}
    for axes in all_axes[: len(names)]:
        found.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, out)
    return True


def _from_logs(folder: Path) -> dict[int, dict[str, dict[str, Any]]]:
    stats: dict[int, dict[str, dict[str, Any]]] = {}
    for file in log_files(folder):
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := EPOCH_RESULTS.search(line):
                    parts = re.findall(r"\[(\w+)\]([^\[]*)", match[2])
                    stats[int(match[1])] = {
                        phase: {name: float(value) for name, value in _NUMBER.findall(text)} for phase, text in parts
                    }
    return stats
