"""Trains one separator with the three losses of Nguyen et al. and draws their Fig. 4: PI-SDRi on DupSet and NoDupSet.

Run it in a recipe folder whose stages 1 and 2 are done. Trained models are not trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s5.bin.command import Parser, run
from s5.metrics import capi_sdri, pi_sdri
from s5.report.markdown import table
from s5.scene import Sampler, render, scene_seed
from s5.tasks.launch import train
from s5.utils.config import load_inherited, load_yaml
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, write_json, write_text

CONFIGS = {
    "ca_pi_sdr": "conf/tuning/separator_resunetk_tiny.yaml",
    "ca_sdr": "conf/tuning/separator_resunetk_ca_sdr_tiny.yaml",
    "pi_sdr": "conf/tuning/separator_resunetk_pi_sdr_tiny.yaml",
}


OWN = ("loss", "best_model_criterion")
"""Keys that may differ between the configurations."""

FINISHED = ".done"
"""Marker of the recipe in the folder of a finished training."""


def train_losses(
    configs: Sequence[str | Path],
    train_data: str,
    valid_data: str,
    expdir: str | Path,
    ngpu: int = -1,
    extra: Sequence[str] = (),
) -> dict[str, Path]:
    """Trains one separator per configuration. A finished training is not repeated.

    Args:
        configs: training YAMLs; the folder is named after the file, without ``separator_``.
        train_data: data directory, usually virtual.
        valid_data: data directory.
        expdir: folder of the experiments.
        ngpu: number of GPUs; -1: all that there are.
        extra: further ESPnet options for all.

    Returns:
        Experiment folder by the name of the loss.

    Raises:
        InputError: two configurations with one loss, or configurations or trained models that differ in more than that.
    """
    loaded: dict[str, tuple[str | Path, dict[str, Any]]] = {}
    for path in configs:
        config = load_inherited(path)
        loss = config.get("loss", "ca_pi_sdr")
        if loss in loaded:
            raise InputError(f"{path}: key loss", f"{loss}, as in {loaded[loss][0]}", "another loss a configuration")
        loaded[loss] = (path, {key: value for key, value in config.items() if key not in OWN})
    first_path, first = next(iter(loaded.values()))
    for path, config in loaded.values():
        for key in sorted(set(first) | set(config)):
            if first.get(key) != config.get(key):
                raise InputError(f"{path}: key {key}", config.get(key), f"{first.get(key)}, as in {first_path}")
    folders = {}
    for loss, (path, _) in loaded.items():
        folders[loss] = Path(expdir, Path(path).stem.removeprefix("separator_"))
        if not (folders[loss] / FINISHED).is_file():
            train("separation", path, train_data, valid_data, folders[loss], ngpu, extra)
    check_alike(folders, list(first))
    return folders


def check_alike(folders: Mapping[str, Path], keys: Sequence[str]) -> None:
    """Refuses trained models that cannot be compared: another loss than named, or another value of one of the keys.

    Args:
        folders: experiment folder by the name of the loss.
        keys: of the training configuration.
    """
    found = {loss: folder / "config.yaml" for loss, folder in folders.items()}
    trained = {loss: load_yaml(path) for loss, path in found.items()}
    reference = next(iter(folders))
    for loss, config in trained.items():
        if config.get("loss") != loss:
            raise InputError(f"{found[loss]}: key loss", config.get("loss"), loss)
        for key in keys:
            if config.get(key) != trained[reference].get(key):
                expected = f"{trained[reference].get(key)}, as in {found[reference]}"
                raise InputError(f"{found[loss]}: key {key}", config.get(key), expected)


SUBSETS = {"DupSet": ((2, 1.0), (3, 1.0)), "NoDupSet": ((1, 0.0), (2, 0.0), (3, 0.0))}
"""Parts of each subset, as many mixtures each: number of sources, probability that a class repeats (section 4.1)."""

ORDER = ("ca_pi_sdr", "ca_sdr", "pi_sdr")
"""The losses in the order of the report's legend, by the names that configurations use."""

TITLES = {"ca_pi_sdr": "CA-PI-SDR", "ca_sdr": "CA-SDR", "pi_sdr": "PI-SDR"}
HATCHES = {"ca_pi_sdr": "", "ca_sdr": "///", "pi_sdr": "..."}
GREYS = {"ca_pi_sdr": "0.5", "ca_sdr": "0.75", "pi_sdr": "0.95"}

CLAIMS = (
    ("DupSet", "ca_pi_sdr", "ca_sdr"),
    ("NoDupSet", "ca_sdr", "pi_sdr"),
    ("NoDupSet", "ca_pi_sdr", "pi_sdr"),
    ("Total", "ca_pi_sdr", "ca_sdr"),
    ("Total", "ca_pi_sdr", "pi_sdr"),
)
"""Findings of the report: on a subset, the first loss is better than the second. (The table shows that CA-PI-SDR and
CA-SDR are equal on NoDupSet.)"""


@dataclass(frozen=True)
class Scores:
    """Figures of one mixture for one model, in dB: :func:`s5.metrics.pi_sdri` and :func:`s5.metrics.capi_sdri`."""

    pi_sdri: float
    capi_sdri: float


Study = dict[str, dict[str, list[Scores]]]
"""Subset -> loss -> scores of its mixtures, in the same order for all losses."""


def evaluate(models: Mapping[str, Any], scenes: str | Path, num_scenes: int) -> Study:
    """Separates fresh scenes with every model, given the true labels.

    Args:
        models: loaded separators (:class:`s5.system.model.TrainedModel`) by the name of their loss.
        scenes: YAML of a sampler, usually that of the test set; its numbers of events and repeats are replaced.
        num_scenes: mixtures of each part of a subset (600 in the report).

    Raises:
        InputError: models that were trained for other labels or another sampling rate than the scenes have.
    """
    study: Study = {subset: {name: [] for name in models} for subset in SUBSETS}
    for subset, rendered in _scenes(scenes, num_scenes, models):
        mixture, n = rendered.mixture, len(rendered.labels)
        for name, model in models.items():
            estimate = model.separate(mixture, rendered.labels)[:n]
            by_class = capi_sdri(rendered.labels, estimate, rendered.labels, rendered.dry, mixture[0])
            any_order = pi_sdri(estimate, rendered.dry, mixture[0])
            assert by_class is not None and any_order is not None  # every scene has a source
            study[subset][name].append(Scores(any_order, by_class))
    return study


def write_study(study: Study, folder: str | Path, title: str) -> str:
    """Writes ``loss_study.png``, ``.json`` and ``.md`` into a folder; returns the text of the last one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    study = {"Total": _total(study), **study}
    text = _markdown(study, title)
    data = {subset: {name: [vars(s) for s in scores] for name, scores in by.items()} for subset, by in study.items()}
    _draw(study, title, folder / "loss_study.png")
    write_json(folder / "loss_study.json", data)
    write_text(folder / "loss_study.md", text)
    return text


def _scenes(path: str | Path, num_scenes: int, models: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(subset, rendered scene), one after the other."""
    config = {key: value for key, value in load_yaml(path).items() if key != "subsets"}
    for subset, parts in SUBSETS.items():
        for n_sources, probability in parts:
            rules = {"n_events": [n_sources, n_sources], "same_class_probability": probability}
            sampler = Sampler({**config, **rules}, where=path)
            _check(sampler.config, models, path)
            for item in range(num_scenes):
                seed = scene_seed(sampler.fingerprint, sampler.config.seed, n_sources, item)
                yield subset, render(sampler.sample(seed), sampler.root)


def _check(config: Any, models: Mapping[str, Any], where: str | Path) -> None:
    for model in models.values():
        facts = {"labels": list(model.labels.names), "sampling_rate": model.sampling_rate}
        for key, value in facts.items():
            found = list(config.labels) if key == "labels" else config.sampling_rate
            if found != value:
                raise InputError(f"{where}: {key}", found, f"{value}, as {model.name} was trained")


def _total(study: Study) -> dict[str, list[Scores]]:
    names = next(iter(study.values()))
    return {name: [score for by_loss in study.values() for score in by_loss[name]] for name in names}


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval (normal approximation).

    Example:
        >>> mean, half = mean_and_half_width([1.0, 2.0, 3.0])
        >>> round(mean, 2), round(half, 2)
        (2.0, 1.13)
    """
    x = np.asarray(values, dtype=np.float64)
    return float(x.mean()), float(1.96 * x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def _markdown(study: Study, title: str) -> str:
    names = [name for name in ORDER if name in study["Total"]]
    head = ["loss", *(f"{subset} ({len(by[names[0]])})" for subset, by in study.items()), "CAPI-SDRi, Total"]
    rows: list[list[str]] = []
    for name in names:
        cells = [_interval([score.pi_sdri for score in by[name]]) for by in study.values()]
        rows.append([TITLES[name], *cells, _interval([score.capi_sdri for score in study["Total"][name]])])
    claims: list[list[str]] = []
    for subset, better, worse in CLAIMS:
        if better in names and worse in names:
            pairs = zip(study[subset][better], study[subset][worse], strict=True)
            mean, half = mean_and_half_width([a.pi_sdri - b.pi_sdri for a, b in pairs])
            seen = "yes" if mean > half else "no, the reverse" if mean < -half else "not told apart"
            claims.append([f"{subset}: {TITLES[better]} ahead of {TITLES[worse]}", f"{mean:+.2f} ± {half:.2f}", seen])
    return "\n\n".join(
        [
            f"# Losses of the separator: {title}",
            "PI-SDRi in dB with oracle labels, mean ± half of its 95 % confidence interval; number of mixtures in "
            "brackets. Last column: CAPI-SDRi, where outputs count for the class that was asked for alone.",
            table(head, rows),
            "What Nguyen et al. (Fig. 4) found, and the difference on the same mixtures here, in dB:",
            table(["Fig. 4", "difference", "seen here"], claims),
            "![PI-SDRi by loss and subset](loss_study.png)\n",
        ]
    )


def _interval(values: Sequence[float]) -> str:
    mean, half = mean_and_half_width(values)
    return f"{mean:.2f} ± {half:.2f}"


def _draw(study: Study, title: str, path: Path) -> None:
    """Grouped bars as in Fig. 4, told apart by hatching and grey, with 95 % confidence intervals."""
    from matplotlib.figure import Figure

    subsets = [*SUBSETS, "Total"]
    names = [name for name in ORDER if name in study["Total"]]
    figure = Figure(figsize=(6.4, 3.6), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        values = [mean_and_half_width([score.pi_sdri for score in study[subset][name]]) for subset in subsets]
        means, halves = zip(*values, strict=True)
        places = np.arange(len(subsets)) + (i - (len(names) - 1) / 2) * width
        style = {"color": GREYS[name], "hatch": HATCHES[name], "edgecolor": "black", "linewidth": 0.8}
        bars = axes.bar(places, means, 0.92 * width, yerr=halves, capsize=3, label=TITLES[name], **style)  # type: ignore[arg-type]
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    counts = [len(study[subset][names[0]]) for subset in subsets]
    axes.set_xticks(range(len(subsets)), [f"{s}\n({n} mixtures)" for s, n in zip(subsets, counts, strict=True)])
    axes.set_ylabel("PI-SDRi (dB), oracle labels")
    axes.set_title(title, fontsize=10)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.legend(
        title="training loss; mean and its 95 % confidence interval",
        ncols=len(names),
        fontsize=8,
        title_fontsize=8,
        loc="upper center",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--configs", nargs="+", default=list(CONFIGS.values()), metavar="YAML", help="training YAMLs, one for each loss"
    )
    parser.add_argument("--train", default="data/train", metavar="DIR", help="data directory, usually a virtual one")
    parser.add_argument("--valid", default="data/valid", metavar="DIR", help="data directory")
    parser.add_argument(
        "--scenes", default="conf/scenes/test.yaml", metavar="YAML", help="YAML of the test set's sampler"
    )
    parser.add_argument("--num_scenes", type=int, default=100, help="mixtures of each number of sources in a subset")
    parser.add_argument(
        "--expdir", default="exp", metavar="DIR", help="folder of the models, named as their YAMLs without separator_"
    )
    parser.add_argument("--out", default="exp/loss_study", metavar="DIR", help="folder of table and figure")
    parser.add_argument("--ngpu", type=int, default=-1, help="number of GPUs; -1: all")
    parser.add_argument("--title", default="", help="title of the figure (default: the recipe folder's name)")
    parser.add_argument("espnet", nargs="*", help="further ESPnet options for every training, after --")
    args = parser.parse_args(argv)
    if args.num_scenes < 2:
        parser.error(f"--num_scenes: found {args.num_scenes}, expected at least 2")

    folders = train_losses(args.configs, args.train, args.valid, args.expdir, args.ngpu, args.espnet)
    from s5.system.model import load_model

    models = {loss: load_model(folder, None, "separator") for loss, folder in folders.items()}
    study = evaluate(models, args.scenes, args.num_scenes)
    print(write_study(study, args.out, args.title or Path.cwd().name))


if __name__ == "__main__":
    run(main)
