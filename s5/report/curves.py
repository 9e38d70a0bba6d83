"""Draws learning curves of a model from its training log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from s5.report.training import criterion
from s5.system.training_log import read_epochs
from s5.utils.config import load_yaml
from s5.utils.plotting import ACCENT, DARK, new_figure, save, tidy

Curves = dict[str, dict[str, dict[int, float]]]
"""Value by figure, ``train`` or ``valid``, and epoch."""

_HIDDEN = re.compile(r"seconds|.*time$|total_count|loss_scale|clip|grad_norm|optim\d+_lr\d+|gpu_.*")
"""Figures of ESPnet that describe the training's speed and steps; they are not drawn."""

PERCENT = re.compile(r"acc\w*")
"""Figures from 0 to 1 that are drawn in percent."""
DECIBEL = re.compile(r".*sdri?")
"""Figures in dB."""


def read_curves(folder: str | Path) -> Curves:
    """Figures of training and validation by epoch, from the training log of an experiment folder."""
    curves: Curves = {}
    for epoch in read_epochs(folder):
        for phase, figures in (("train", epoch.train), ("valid", epoch.valid)):
            for name, value in figures.items():
                if not _HIDDEN.fullmatch(name):
                    curves.setdefault(name, {}).setdefault(phase, {})[epoch.epoch] = value
    return curves


def draw_curves(folder: str | Path, out: Path) -> bool:
    """Draws the learning curves of a model. Returns False if it has none.

    Panels show the loss, the criterion of the best epoch, and up to four more figures of the validation set. The best
    epoch is marked.
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
