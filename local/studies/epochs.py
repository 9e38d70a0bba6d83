"""Scores systems made of checkpoints of several epochs and draws the map of epochs of Nguyen et al. (Fig. 5).

The map shows the accuracy of the tagger against CAPI-SDRi of the separator with oracle labels. Size and colour show the
CAPI-SDRi of both. Keep the checkpoints with --train_args "--keep_nbest_models 20".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s5.bin.command import Parser, add_decoding, add_system, count, decode_config, run
from s5.data import DataDir
from s5.inference import stages
from s5.metrics import Scorer, score_mixture
from s5.report.markdown import number, table
from s5.system.config import ModelConfig, SystemConfig
from s5.system.system import NETWORKS, S5System
from s5.utils.errors import InputError, one_of
from s5.utils.files import atomic_write, write_json, write_text
from s5.utils.parallel import run_jobs

SUBSETS = ("DupSet", "NoDupSet", "Total")
ORACLE = "oracle"
NAME = "epoch_study"

Labels = dict[str, dict[str, list[str]]]
"""Tagger epoch, or ``oracle`` -> utterance -> labels."""


@dataclass(frozen=True)
class Point:
    """Figures of one system on one subset, in percent and dB; None if there are none."""

    subset: str
    tagger: str
    separator: str
    accuracy_mix: float | None
    accuracy_src: float | None
    oracle: float | None
    capi_sdri: float | None


def epochs_of(system: S5System, kind: str, asked: Sequence[int] | None, most: int) -> list[str]:
    """Lists the checkpoints that all models of a kind have, e.g. ``["2epoch.pth", "5epoch.pth"]``.

    Args:
        system: the system.
        kind: ``tagger`` or ``separator``.
        asked: epochs; by default those that there are.
        most: checkpoints at most, spread evenly, where none are asked for.

    Raises:
        InputError: an epoch that was asked for is not there, or there is none.
    """
    folders = [system.expdir / model.folder() for model in system.config.models(kind)]
    found = [
        {int(m[1]) for p in folder.glob("*epoch.pth") if (m := re.match(r"(\d+)epoch", p.name))} for folder in folders
    ]
    common = sorted(set.intersection(*found))
    where = " and ".join(map(str, folders))
    for epoch in asked or []:
        if epoch not in common:
            raise InputError(where, f"no {epoch}epoch.pth", one_of(map(str, common)))
    if not common:
        raise InputError(
            where, "no <n>epoch.pth", "checkpoints of several epochs (train with a higher keep_nbest_models)"
        )
    if asked is None and len(common) > most:
        common = [common[i] for i in np.linspace(0, len(common) - 1, most).round().astype(int)]
    return [f"{epoch}epoch.pth" for epoch in (asked or common)]


def evaluate(
    system: S5System, data: DataDir, taggers: Sequence[str], separators: Sequence[str], nj: int = 1
) -> list[Point]:
    """Scores every pair of checkpoints on a data directory. A query that several systems have in common is run once.

    Args:
        system: its vote and fusion are used, gate and refinement not.
        data: a set with references.
        taggers: checkpoints of the taggers.
        separators: checkpoints of the separators.
        nj: processes.
    """
    if not data.has_sources:
        raise InputError(data.path, "no labels with dry sources", "a set with references")
    nj = stages.processes(system, nj)
    labels: Labels = {ORACLE: {utt: list(data.labels[utt]) for utt in data.utts}}
    for name in taggers:
        found = run_jobs(_Vote(_at(system, "tagger", name), data), data.utts, nj, f"tagger {name}", NETWORKS)
        labels[name] = dict(zip(data.utts, found, strict=True))
    points = []
    for name in separators:
        scorers = {source: Scorer() for source in labels}
        found_rows = run_jobs(
            _Score(_at(system, "separator", name), data, labels), data.utts, nj, f"separator {name}", NETWORKS
        )
        for rows in found_rows:
            for source, row in rows.items():
                scorers[source].rows.append(row)
        scores = {source: _by_subset(scorer) for source, scorer in scorers.items()}
        for subset in SUBSETS:
            for tagger in taggers:
                own, oracle = scores[tagger][subset], scores[ORACLE][subset]
                accuracies = (own["accuracy_mix"], own["accuracy_src"])
                points.append(Point(subset, tagger, name, *accuracies, oracle["CAPI-SDRi"], own["CAPI-SDRi"]))
    return points


def write_study(points: Sequence[Point], folder: str | Path, title: str, accuracy: str = "src") -> str:
    """Writes ``epoch_study.png``, ``.json`` and ``.md`` into a folder; returns the text of the last one.

    Args:
        points: from :func:`evaluate`.
        folder: made if it is not there.
        title: of the figure.
        accuracy: ``src`` or ``mix``, the horizontal axis.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = _markdown(points, title)
    _draw(points, title, accuracy, folder / f"{NAME}.png")
    write_json(folder / f"{NAME}.json", [dataclasses.asdict(p) for p in points], indent=1)
    write_text(folder / f"{NAME}.md", text + "\n")
    return text


def _at(system: S5System, kind: str, checkpoint: str) -> S5System:
    """The system with all models of a kind at one epoch."""
    models = [dataclasses.replace(model, checkpoint=checkpoint) for model in system.config.models(kind)]
    changed: dict[str, list[ModelConfig]] = {f"{kind}s": models}
    config: SystemConfig = dataclasses.replace(system.config, **changed)  # type: ignore[arg-type]
    return S5System(config, system.expdir, system.device, system.where, system.decode)


@dataclass
class _Vote:
    """Job: the labels of one mixture."""

    system: S5System
    data: DataDir

    def __call__(self, utt: str) -> list[str]:
        mixture, _ = self.data.mixture(utt, self.system.sampling_rate)
        return self.system.vote(self.system.tag(mixture), self.system.labels, self.system.n_slots).labels


@dataclass
class _Score:
    """Job: the scores of one mixture for all labels."""

    system: S5System
    data: DataDir
    labels: Labels

    def __call__(self, utt: str) -> dict[str, dict[str, Any]]:
        mixture, _ = self.data.mixture(utt, self.system.sampling_rate)
        ref_labels = list(self.data.labels[utt])
        references = self.data.sources(utt)[: len(ref_labels)]
        rows: dict[tuple[str, ...], dict[str, Any]] = {}
        for by_utt in self.labels.values():
            query = tuple(by_utt[utt])
            if query not in rows:
                estimates = np.zeros((0, mixture.shape[1]), np.float32)
                if query:
                    estimates = self.system.fuse(self.system.separate(mixture, query), query, mixture)[: len(query)]
                rows[query] = score_mixture(utt, query, estimates, ref_labels, references, mixture[0])
        return {source: rows[tuple(by_utt[utt])] for source, by_utt in self.labels.items()}


def _by_subset(scorer: Scorer) -> dict[str, dict[str, Any]]:
    scores = scorer.compute()
    return {**scores["by_subset"], "Total": scores["metrics"]}


def _markdown(points: Sequence[Point], title: str) -> str:
    rows = [
        [
            *(p.subset, _epoch(p.tagger), _epoch(p.separator), number(p.accuracy_mix), number(p.accuracy_src)),
            *(number(p.oracle, 2), number(p.capi_sdri, 2)),
        ]
        for p in points
    ]
    head = ["subset", "tagger epoch", "separator epoch", "accuracy_mix", "accuracy_src", "oracle labels", "CAPI-SDRi"]
    return "\n\n".join(
        [
            f"# Epochs of both stages: {title}",
            "Accuracies of the tagger in %; CAPI-SDRi in dB of the separator with oracle labels, and of both together. "
            "Total: all mixtures, those without a source included.",
            table(head, rows),
            f"![CAPI-SDRi by accuracy and separation]({NAME}.png)",
        ]
    )


def _epoch(checkpoint: str) -> str:
    return checkpoint.removesuffix("epoch.pth")


def _draw(points: Sequence[Point], title: str, accuracy: str, path: Path) -> None:
    """Fig. 5: a panel a subset; size, colour and a number tell the CAPI-SDRi of the whole system."""
    from matplotlib.figure import Figure

    subsets = [s for s in SUBSETS if any(p.subset == s and p.capi_sdri is not None for p in points)]
    if not subsets:
        raise InputError(path, "no system with a figure", "mixtures with sources")
    figure = Figure(figsize=(1.2 + 3.6 * len(subsets), 3.8), dpi=200, layout="constrained")
    all_axes = figure.subplots(1, len(subsets), squeeze=False)[0]
    values = [p.capi_sdri for p in points if p.capi_sdri is not None]
    low, high = min(values), max(values)
    for axes, subset in zip(all_axes, subsets, strict=True):
        mine = [p for p in points if p.subset == subset and p.capi_sdri is not None]
        x = [getattr(p, f"accuracy_{accuracy}") for p in mine]
        level = np.array([p.capi_sdri for p in mine])
        size = 40 + 260 * (level - low) / max(high - low, 1e-9)
        style = {"s": size, "c": level, "cmap": "viridis", "vmin": low, "vmax": high, "edgecolors": "black"}
        drawn = axes.scatter(x, [p.oracle for p in mine], linewidths=0.6, alpha=0.9, **style)
        for p, place in zip(mine, x, strict=True):
            axes.annotate(
                f"{p.capi_sdri:.2f}", (place, p.oracle), (0, 9), textcoords="offset points", ha="center", fontsize=6
            )
        axes.set_title(subset, fontsize=9)
        axes.set_xlabel(f"tagger: {'source' if accuracy == 'src' else 'mixture'} accuracy (%)", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.margins(0.15)
        axes.grid(linewidth=0.3)
    all_axes[0].set_ylabel("separator: CAPI-SDRi with oracle labels (dB)", fontsize=8)
    bar = figure.colorbar(drawn, ax=list(all_axes))
    bar.set_label("both: CAPI-SDRi (dB)", fontsize=8)
    figure.suptitle(title, fontsize=10)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add_system(parser)
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    parser.add_argument("--data", default="data/test", metavar="DIR", help="data directory with references")
    parser.add_argument(
        "--tagger_epochs", type=count, nargs="+", metavar="N", help="epochs of the tagger (default: all kept ones)"
    )
    parser.add_argument(
        "--separator_epochs",
        type=count,
        nargs="+",
        metavar="N",
        help="epochs of the separator (default: all kept ones)",
    )
    parser.add_argument(
        "--most", type=count, default=6, metavar="N", help="largest number of epochs of each, if none are given"
    )
    parser.add_argument("--num", type=count, metavar="N", help="number of mixtures, spread over the set (default: all)")
    parser.add_argument(
        "--accuracy", choices=("src", "mix"), default="src", help="the figure's accuracy: of sources or of mixtures"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of table and figure (default: EXPDIR/SYSTEM/SET/epoch_study)"
    )
    parser.add_argument("--title", default="", help="title of the figure (default: system and set)")
    add_decoding(parser)
    args = parser.parse_args(argv)

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages
    from s5.system.config import system_name

    system = S5System.from_yaml(args.system, args.expdir, decode=decode_config(args))
    data = stages.spread(DataDir.load(args.data), args.num)
    taggers = epochs_of(system, "tagger", args.tagger_epochs, args.most)
    separators = epochs_of(system, "separator", args.separator_epochs, args.most)
    points = evaluate(system, data, taggers, separators, args.nj)
    name = system_name(args.system)
    out = args.out or Path(args.expdir, name, data.path.resolve().name, "epoch_study")
    print(write_study(points, out, args.title or f"{name} on {data.path.resolve().name}", args.accuracy))


if __name__ == "__main__":
    run(main)
