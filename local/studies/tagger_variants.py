"""Compares tagger variants of some systems, trained with the same budget, and their ensembles on a test set.

    ./run.sh --system conf/systems/taggers.yaml --size mini --stop_stage 4
    ./run.sh --system conf/systems/taggers_multihot.yaml --size mini --stop_stage 4
    python local/studies/tagger_variants.py

The models and the costs of their trainings come from the experiment folder: the scenes in all trainings of a model, and
the wall time of their epochs (training and validation), which depends on the machine. --train runs the recipe for
missing models. The test set is tagged again. The table is Markdown.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from s5.bin.command import run
from s5.data import DataDir
from s5.fusion import decide
from s5.report.training import read_training
from s5.system.config import ModelConfig, SystemConfig
from s5.system.sizes import split_size
from s5.system.system import S5System
from s5.system.trained import best_checkpoint
from s5.tasks.valid_metrics import batch_counts, figures
from s5.utils.config import ROOT, load_yaml
from s5.utils.errors import InputError

SYSTEMS = ["conf/systems/taggers.yaml:mini", "conf/systems/taggers_multihot.yaml:mini"]
COLUMNS = {
    "source": "accuracy_src",
    "mixture (Acc1)": "accuracy_mix",
    "Acc2": "acc2",
    "Acc3": "acc3",
    "mixture, DupSet": "accuracy_mix_dup",
    "mixture, NoDupSet": "accuracy_mix_nodup",
}


@dataclass(frozen=True)
class Budget:
    """What a tagger's trainings took: scenes seen, and wall time of the epochs (None where it is not stored)."""

    scenes: int
    time: timedelta | None


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", type=Path, default=ROOT / "egs/mini_s5", help="recipe folder (egs/mini_s5)")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="system YAMLs (the mini data's two)")
    parser.add_argument("--expdir", default="exp", help="folder of the models, from the recipe folder (exp)")
    parser.add_argument("--test", default="data/test", help="data directory (data/test)")
    parser.add_argument("--mixtures", type=int, help="mixtures of it to tag (all)")
    parser.add_argument("--train", action="store_true", help="first run the recipe's stages 1 to 4 where not yet done")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    os.chdir(args.recipe)

    systems = {path: SystemConfig.load(path) for path in args.systems}
    if args.train:
        for path in systems:
            file, size = split_size(path)
            command = ["./run.sh", "--system", file, "--size", size, "--expdir", args.expdir, "--stop_stage", "4"]
            if subprocess.run(command, stdout=sys.stderr).returncode:
                raise InputError("--train", f"an error in {' '.join(command)}", "trained taggers")
    budgets = {m.name: budget(m, Path(args.expdir)) for config in systems.values() for m in config.taggers}
    rows: list[list[str]] = []
    n_mixtures = 0
    for path in systems:
        more, n_mixtures = evaluate(path, budgets, args)
        rows += more
    head = ["tagger", "parameters", "scenes", "training", *COLUMNS]
    error = 50 / math.sqrt(n_mixtures)
    print(
        f"Accuracies in % on {n_mixtures} mixtures of {args.test}; a mixture accuracy has a standard error of at most"
    )
    print(f"{error:.1f}. DupSet: mixtures in which a class repeats. Training: wall time of the epochs.\n")
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        print("| " + " | ".join(row) + " |")


def budget(model: ModelConfig, expdir: Path) -> Budget:
    """What all trainings of a model took, from their experiment folders.

    Raises:
        InputError: a training that is missing or has not come to its end.
    """
    scenes, times = 0, []
    for phase in model.phases():
        folder = expdir / model.folder(phase)
        best_checkpoint(folder)
        config = load_yaml(folder / "config.yaml")
        training = read_training(folder, config)
        if training.epochs is None or training.epochs < config["max_epoch"]:
            expected = f"{config['max_epoch']} (run.sh --stop_stage 4, or --train)"
            raise InputError(folder, f"{training.epochs or 0} epochs", expected)
        scenes += training.epochs * _scenes(config)
        times.append(training.time)
    known = [time for time in times if time is not None]
    return Budget(scenes, sum(known, timedelta()) if len(known) == len(times) else None)


def _scenes(config: dict[str, Any]) -> int:
    """Scenes of an epoch."""
    return config["num_scenes"] or load_yaml(Path(config["train_data"], "sampler.yaml"))["num_scenes"]


def evaluate(path: str, budgets: dict[str, Budget], args: argparse.Namespace) -> tuple[list[list[str]], int]:
    """A row for each tagger of a system, and one for its ensemble; the number of mixtures."""
    system = S5System.from_yaml(path, args.expdir)
    data = DataDir.load(args.test, system.labels, system.n_slots)
    rule, labels, k = system.config.vote, system.labels, system.n_slots
    weights = system.config.weights()
    deciders = {name: {name: 1.0} for name in weights}
    if sum(weight > 0 for weight in weights.values()) > 1:
        deciders[f"ensemble of {Path(path).stem}"] = weights
    predicted: dict[str, list[np.ndarray]] = {name: [] for name in deciders}
    truth = []
    for utt in data.utts[: args.mixtures]:
        posteriors = system.tag(data.mixture(utt)[0])
        truth.append(labels.indices(data.labels[utt], k))
        for name, used in deciders.items():
            found = decide([posteriors[n] for n in used], list(used.values()), rule, len(labels), k).index
            predicted[name].append(np.pad(found, (0, k - len(found)), constant_values=len(labels)))
    rows = []
    for name, index in predicted.items():
        counts = batch_counts(torch.tensor(np.array(index)), torch.tensor(np.array(truth)), len(labels))
        values = figures({key: value.item() for key, value in counts.items()})
        cells = [f"{100 * values[key]:.1f}" if key in values else "-" for key in COLUMNS.values()]
        parts = [part for part, weight in deciders[name].items() if weight]
        rows.append([name, *_cost(system, budgets, parts), *cells])
    return rows, len(truth)


def _cost(system: S5System, budgets: dict[str, Budget], names: list[str]) -> list[str]:
    """Parameters, scenes and wall time of one tagger, or of several together (scenes: of each)."""
    parameters = sum(p.numel() for name in names for p in system.taggers[name].network.parameters())
    scenes = sorted({budgets[name].scenes for name in names})
    times = [budgets[name].time for name in names]
    total = sum((time for time in times if time is not None), timedelta())
    minutes = "-" if None in times else f"{total.total_seconds() / 60:.1f} min"
    of_each = f"{len(names)} x " if len(names) > 1 else ""
    return [f"{parameters / 1e6:.2f} M", of_each + " / ".join(f"{n:,}" for n in scenes), minutes]


if __name__ == "__main__":
    run(main)
