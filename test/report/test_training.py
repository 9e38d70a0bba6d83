import os
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import torch

from s5.report.reporter import read_reporter
from s5.report.training import find_trainings

CONFIG = "max_epoch: 4\nbatch_size: 8\nseed: 3\nbest_model_criterion:\n-   - valid\n    - loss\n    - min\n"


def epoch(n, minute, valid, seconds=30):
    return (
        f"[somehost] 2026-11-22 23:{minute:02d}:00,100 (trainer:336) INFO: {n}/4epoch started. "
        "Estimated time to finish: 1 hour\n"
        f"[somehost] 2026-11-22 23:{minute:02d}:{seconds},900 (trainer:394) INFO: {n}epoch results: "
        f"[train] loss=0.001, sdr_loss=7, time=20 seconds, total_count=9, [valid] loss={valid}, "
        "time=4 seconds, total_count=9, [att_plot] time=1 second\n"
    )


SUMMARY = (
    "[somehost] 2026-11-22 23:00:00,000 (abs_task:1) INFO: Model summary:\n    Class Name: M\n"
    "    Total Number of model parameters: 26.74 M\n    Number of trainable parameters: 1.50 M (5.6%)\n"
)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "exp" / "separator"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def test_log_tells_how_it_was_trained(model):
    (model / "train.log").write_text(SUMMARY + epoch(1, 1, 3.25) + epoch(2, 2, -1.5) + epoch(3, 3, 9.1e-04))
    (found,) = find_trainings(model.parent)
    assert (found.name, found.parameters, found.trainable) == ("separator", "26.74 M", "1.50 M")
    assert (found.epochs, found.max_epoch, found.batch_size, found.seed) == (3, 4, 8, 3)
    assert (found.criterion, found.best_epoch, found.best_value) == ("valid loss (min)", 2, -1.5)
    assert found.time == timedelta(seconds=90)


def test_interrupted_epoch_counts_once_and_rotated_logs_count_too(model):
    started = epoch(3, 5, 0).split("\n")[0] + "\n"
    texts = {"train.2.log": SUMMARY + epoch(1, 1, 3.25), "train.1.log": epoch(2, 2, 2.0) + started}
    for i, (name, text) in enumerate({**texts, "train.log": epoch(3, 40, 1.0, seconds=10)}.items()):
        (model / name).write_text(text)
        os.utime(model / name, (1e9 + i, 1e9 + i))
    (found,) = find_trainings(model.parent)
    assert (found.epochs, found.best_epoch, found.parameters) == (3, 3, "26.74 M")
    assert found.time == timedelta(seconds=70)


def test_log_of_the_recipes_stage(model):
    for name in ("separator_ft", "separator_ft2"):
        (model.parent / name).mkdir()
        (model.parent / name / "config.yaml").write_text(CONFIG)
    logs = model.parent / "log"
    logs.mkdir()
    (logs / "05_separator_separator.log").write_text(epoch(1, 1, 3.0))
    (logs / "06_separator-ft_separator.log").write_text(epoch(1, 2, 2.0))
    (logs / "06_separator-ft2_separator.log").write_text(epoch(1, 2, 1.5))
    (logs / "03_tagger_other_separator.log").write_text(epoch(1, 3, 1.0))
    found = {t.name: t.best_value for t in find_trainings(model.parent)}
    assert found == {"separator": 3.0, "separator_ft": 2.0, "separator_ft2": 1.5}


def test_checkpoint_knows_epochs_that_the_log_lost(model):
    stats = {
        n: {
            "train": {"loss": 9.0, "time": timedelta(seconds=40)},
            "valid": {"loss": np.float64(v), "time": timedelta(seconds=2)},
        }
        for n, v in ((1, 0.25), (2, 0.5))
    }
    torch.save({"model": {}, "reporter": {"stats": stats, "epoch": 2}}, model / "checkpoint.pth")
    (model / "train.log").write_text(SUMMARY + epoch(2, 2, 0.5))
    (found,) = find_trainings(model.parent)
    assert (found.epochs, found.best_epoch, found.best_value, found.parameters) == (2, 1, 0.25, "26.74 M")
    assert found.time == timedelta(seconds=84)


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_damaged_checkpoint_leaves_the_log(model, content):
    (model / "checkpoint.pth").write_bytes(content)
    (model / "train.log").write_text(epoch(1, 1, 3.0))
    assert find_trainings(model.parent)[0].best_value == 3.0


def test_best_link_of_espnet_decides_where_the_log_rounds(model):
    (model / "train.log").write_text(epoch(1, 1, 0.5) + epoch(2, 2, 0.5))
    (model / "valid.loss.best.pth").symlink_to("2epoch.pth")
    assert find_trainings(model.parent)[0].best_epoch == 2


@pytest.mark.parametrize("log", [None, "", "\xff nonsense\n1epoch results: nothing\n"])
def test_model_without_a_useful_log_is_listed_with_what_is_known(model, log):
    if log is not None:
        (model / "train.log").write_text(log, encoding="latin-1")
    (found,) = find_trainings(model.parent)
    assert (found.max_epoch, found.best_epoch, found.time) == (4, None, None)


def test_other_folders_are_no_models(model):
    for name, text in {
        "stats": CONFIG + "collect_stats: true\n",
        "separator.old": CONFIG,
        "separator.20261128-184045": CONFIG,
        "separator.20261128-184045-2": CONFIG,
        "other": "a: 1\n",
        "broken": "a: [\n",
    }.items():
        (model.parent / name).mkdir()
        (model.parent / name / "config.yaml").write_text(text)
    assert [t.name for t in find_trainings(model.parent)] == ["separator"]


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made by the checkpoint",)


def test_nothing_that_a_checkpoint_names_is_run(model, tmp_path, monkeypatch):
    """Figures are read; what is not plain data is passed over, tensors and optimizers too."""
    monkeypatch.chdir(tmp_path)
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    stats = {1: {"valid": {"loss": np.float32(0.5), "time": timedelta(seconds=2)}}}
    states = {"model": network.state_dict(), "optimizers": [optimizer.state_dict()], "harmful": [Harmful()]}
    torch.save({**states, "reporter": {"stats": stats, "epoch": 1}}, model / "checkpoint.pth")
    assert read_reporter(model / "checkpoint.pth") == {1: {"valid": {"loss": 0.5, "time": timedelta(seconds=2)}}}
    assert not (tmp_path / "made by the checkpoint").exists()


def test_a_report_on_trainings_needs_no_torch():
    code = "import sys, s5.report.training, s5.report.history; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
