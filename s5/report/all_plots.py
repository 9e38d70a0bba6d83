"""Draws all figures of a system into its folder ``report/figures``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from s5.data import DataDir
from s5.report.plots import draw_results, taggers_by_subset
from s5.report.results import Result, by_set, find_bounds
from s5.report.taggers import TaggerAccuracy, tagger_accuracies
from s5.utils.errors import InputError
from s5.utils.plotting import save

KINDS = ("results", "taggers", "learning", "features")
"""Kinds of figures: scores of the system (``results``), accuracies of all taggers alone, like Table 1 of Nguyen et al.
(``taggers``), learning curves of all models (``learning``), and the taggers' features of a mixture (``features``)."""

Figures = dict[str, dict[str, Path]]
"""File of each figure by data set and title; under ``""`` the learning curves by model."""


def figure_folder(expdir: str | Path, system: str) -> Path:
    """Folder of a system's figures."""
    return Path(expdir) / system / "report" / "figures"


def draw_all(
    system: str,
    results: Sequence[Result],
    expdir: str | Path,
    data_root: str | Path = "data",
    folder: str | Path | None = None,
    kinds: Collection[str] = KINDS,
    mixture: str | None = None,
    taggers: Sequence[TaggerAccuracy] | None = None,
) -> Figures:
    """Draws the figures of a system.

    Args:
        system: name of the system.
        results: all results of the experiment folder.
        expdir: the experiment folder.
        data_root: folder of the data directories, for ``features``.
        folder: folder to write; by default :func:`figure_folder`.
        kinds: kinds to draw, of :data:`KINDS`.
        mixture: mixture of one of the system's data sets, for ``features``; by default one with two classes that was
            separated well.
        taggers: accuracies of every tagger, if they are known already.

    Raises:
        InputError: the mixture is in none of the system's data sets.
    """
    folder = Path(folder) if folder else figure_folder(expdir, system)
    sets = by_set(results)
    own = {name: [row for row in rows if row.system == system] for name, rows in sets.items()}
    own = {name: rows for name, rows in own.items() if rows}
    figures: Figures = {}
    if "results" in kinds:
        for name, rows in own.items():
            figures.setdefault(name, {}).update(draw_results(rows, sets[name], folder, find_bounds(expdir, name)))
    if "taggers" in kinds:
        found = tagger_accuracies(results, expdir) if taggers is None else taggers
        for name in own:
            if (figure := taggers_by_subset([t for t in found if t.set == name])) is not None:
                figures.setdefault(name, {})["taggers alone"] = folder / f"{name}_taggers.png"
                save(figure, folder / f"{name}_taggers.png")
    if "learning" in kinds:
        figures[""] = _learning(Path(expdir), folder)
    if "features" in kinds:
        for name, path in _features(own, Path(data_root), folder, mixture).items():
            figures.setdefault(name, {})["a mixture as the taggers see it"] = path
    return figures


def _learning(expdir: Path, folder: Path) -> dict[str, Path]:
    from s5.report.curves import draw_curves
    from s5.report.training import find_trainings

    files = {training.name: folder / f"learning_{training.name}.png" for training in find_trainings(expdir)}
    return {name: file for name, file in files.items() if draw_curves(expdir / name, file)}


def _features(own: dict[str, list[Result]], data_root: Path, folder: Path, mixture: str | None) -> dict[str, Path]:
    from s5.report.features import choose_mixture, draw_features

    drawn = {}
    for name, rows in own.items():
        mixtures = rows[0].scores["mixtures"]
        utt = choose_mixture(mixtures) if mixture is None else mixture
        if utt in [row["utt"] for row in mixtures]:
            assert utt is not None
            drawn[name] = folder / f"{name}_features_{utt}.png"
            draw_features(DataDir.load(data_root / name), utt, drawn[name])
    if mixture is not None and not drawn:
        raise InputError("--mixture", mixture, f"one of {' or '.join(own)}")
    return drawn
