"""The benchmark of tagger variants: figures of trained models, and what their training took, from their folders."""

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from s5.data import DataDir
from s5.system.model import load_model
from s5.tasks.checkpoint import read
from s5.tasks.valid_metrics import batch_counts, figures
from s5.utils.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
import tagger_variants as bench


@pytest.fixture
def table(recipe, trained, tmp_path, capsys):
    """What the command prints for the recipe's tagger, and for a vote of it before and after its second training."""
    system = yaml.safe_load((recipe / "system.yaml").read_text())
    first = {"train": "tagger.yaml", "experiment": "tagger"}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump({**system, "taggers": {**system["taggers"], "first": first}}))
    bench.main(["--recipe", ".", "--systems", str(tmp_path / "both.yaml"), "--test", "data/valid"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def test_figures_are_those_of_the_posteriors(table, recipe, trained):
    experiment, data = load_model(trained / "tagger_ft", None, "tagger"), DataDir.load("data/valid")
    index = [experiment.posterior(data.mixture(utt)[0]).argmax(-1) for utt in data.utts]
    truth = [experiment.labels.indices(data.labels[utt], 3) for utt in data.utts]
    counts = batch_counts(torch.tensor(np.array(index)), torch.tensor(np.array(truth)), 3)
    expected = figures({name: value.item() for name, value in counts.items()})
    for column, name in {"source": "accuracy_src", "mixture (Acc1)": "accuracy_mix", "Acc2": "acc2"}.items():
        assert table["tagger"][column] == f"{100 * expected[name]:.1f}"


def test_budgets_are_those_of_the_folders(table, recipe, trained):
    assert table["first"]["scenes"] == "8"  # two epochs of four
    assert table["tagger"]["scenes"] == "12"  # and one more of fine-tuning
    assert table["ensemble of both"]["scenes"] == "2 x 8 / 12"
    times = []
    for folder in ("tagger", "tagger_ft"):
        stats = read(trained / folder / "checkpoint.pth")["reporter"]["stats"]
        times += [part["time"] for epoch in stats.values() for part in epoch.values() if "time" in part]
    model = bench.SystemConfig.load("system.yaml").taggers[0]
    found = bench.budget(model, trained)
    assert found == bench.Budget(12, sum(times, timedelta())) and found.time > timedelta()
    assert table["tagger"]["training"] == f"{found.time.total_seconds() / 60:.1f} min"


def test_an_unfinished_training_is_named(recipe, trained, tmp_path):
    config = yaml.safe_load((trained / "tagger/config.yaml").read_text())
    (tmp_path / "tagger").mkdir()
    (tmp_path / "tagger/config.yaml").write_text(yaml.safe_dump({**config, "max_epoch": 5}))
    for name in ("epochs.jsonl", "valid.acc3.best.pth"):
        (tmp_path / "tagger" / name).write_bytes((trained / "tagger" / name).read_bytes())
    model = bench.ModelConfig(name="tagger", train="tagger.yaml")
    with pytest.raises(InputError, match=r"tagger: found 2 epochs, expected 5 \(run.sh --stop_stage 4, or --train\)"):
        bench.budget(model, tmp_path)
    with pytest.raises(InputError, match=r"other: found no config\.yaml, expected a trained model"):
        bench.budget(bench.ModelConfig(name="other", train="tagger.yaml"), tmp_path)
