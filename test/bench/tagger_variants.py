"""Every tagger variant of some systems, trained with the same budget, and their ensembles: accuracies on a test set.

    python test/bench/tagger_variants.py
    python test/bench/tagger_variants.py --train_args "--num_scenes 32 --max_epoch 1" --mixtures 10    # does it run?

Trains what the systems' YAMLs name (all trainings of a model, one after the other; a finished one is not done again),
tags the test set, and prints a row a tagger and one for each system's vote. Needs the recipe's stages 1 and 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from s5.config import load_inherited, resolve  # noqa: E402
from s5.data import DataDir  # noqa: E402
from s5.fusion import decide  # noqa: E402
from s5.system import ModelConfig, S5System, SystemConfig  # noqa: E402
from s5.tasks.figures import batch_counts, figures  # noqa: E402

SYSTEMS = ["conf/systems/mini_taggers.yaml", "conf/systems/mini_taggers_multihot.yaml"]
COLUMNS = {
    "source": "accuracy_src",
    "mixture": "accuracy_mix",
    "Acc2": "acc2",
    "Acc3": "acc3",
    "mixture, DupSet": "accuracy_mix_dup",
    "mixture, NoDupSet": "accuracy_mix_nodup",
}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", type=Path, default=ROOT / "egs/mini_s5", help="recipe folder (egs/mini_s5)")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="system YAMLs (the mini data's two)")
    parser.add_argument("--expdir", default="exp/tagger_variants", help="folder of the models, below the recipe")
    parser.add_argument("--test", default="data/test", help="data directory")
    parser.add_argument("--mixtures", type=int, help="mixtures of it to tag (all)")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs a training uses (0)")
    parser.add_argument("--train_args", default="", help="more ESPnet options for every training")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    os.chdir(args.recipe)

    rows: list[list[str]] = []
    for path in args.systems:
        config = SystemConfig.load(path)
        trained = {model.name: train(path, model, args) for model in config.taggers}
        rows += evaluate(path, trained, args)
    head = ["tagger", "parameters", "scenes", "CPU time", *COLUMNS]
    print(f"\n{machine()}; accuracies in %; DupSet: mixtures in which a class repeats\n")
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


def train(system: str, model: ModelConfig, args: argparse.Namespace) -> tuple[int, float]:
    """Runs all trainings of a model; scenes that they saw, and CPU seconds of trainer and workers."""
    scenes, before = 0, cpu_seconds()
    data = ["--train", "data/train", "--valid", "data/valid", "--expdir", args.expdir, "--ngpu", str(args.ngpu)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for phase, config in model.phases().items():
        folder = Path(args.expdir, model.folder(phase))
        folder.mkdir(parents=True, exist_ok=True)
        what = ["--system", system, "--model", model.name, "--phase", phase]
        command = [sys.executable, "-m", "s5.bin.train", *what, *data, "--", *args.train_args.split()]
        print(f"{model.name}: {phase}", file=sys.stderr, flush=True)
        with (folder / "train.log").open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=log, env=environment)
        if done.returncode:
            sys.exit(f"{folder}/train.log: " + (folder / "train.log").read_text().strip().split("\n")[-1])
        used = {**load_inherited(resolve(config)), **load_inherited(folder / "config.yaml")}
        scenes += used["num_scenes"] * used["max_epoch"]
    return scenes, cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def evaluate(path: str, trained: dict[str, tuple[int, float]], args: argparse.Namespace) -> list[list[str]]:
    """A row for each tagger of a system, and one for its ensemble."""
    system = S5System.from_yaml(path, args.expdir)
    data = DataDir.load(args.test, system.labels, system.n_slots)
    rule, labels, k = system.config.vote, system.labels, system.n_slots
    weights = {model.name: system.config.weights()[model.name] for model in system.config.taggers}
    deciders = {name: {name: 1.0} for name in weights} | {f"ensemble of {Path(path).stem}": weights}
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
        rows.append([name, *_cost(system, trained, [n for n, weight in deciders[name].items() if weight]), *cells])
    return rows


def _cost(system: S5System, trained: dict[str, tuple[int, float]], names: list[str]) -> list[str]:
    """Parameters, scenes and CPU seconds of one tagger, or of several together."""
    parameters = sum(p.numel() for name in names for p in system.taggers[name].network.parameters())
    scenes = {trained[name][0] for name in names}
    seconds = sum(trained[name][1] for name in names)
    return [f"{parameters / 1e6:.2f} M", " / ".join(map(str, sorted(scenes))), f"{seconds:.0f} s"]


def machine() -> str:
    """The processor, and how many of its threads torch uses."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
