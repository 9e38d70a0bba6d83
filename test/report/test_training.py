"""Tests how facts about trainings are read from configurations and training logs."""

import subprocess
import sys
from datetime import timedelta

import pytest

from s5.report.training import find_trainings
from s5.system.training_log import FILE, write_epochs

CONFIG = "max_epoch: 4\nbatch_size: 8\nseed: 3\nbest_model_criterion:\n-   - valid\n    - loss\n    - min\n"


def log(folder, *losses):
    stats = {
        epoch: {
            "train": {"loss": 0.001, "time": timedelta(seconds=20)},
            "valid": {"loss": loss, "time": timedelta(seconds=4), "total_count": 9},
        }
        for epoch, loss in enumerate(losses, 1)
    }
    write_epochs(folder, stats, 26740971, 1500)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "exp" / "separator"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def test_log_tells_how_it_was_trained(model):
    log(model, 3.25, -1.5, 9.1e-04)
    (found,) = find_trainings(model.parent)
    assert (found.name, found.parameters, found.trainable) == ("separator", "26.74 M", "1.50 K")
    assert (found.epochs, found.max_epoch, found.batch_size, found.seed) == (3, 4, 8, 3)
    assert (found.criterion, found.best_epoch, found.best_value) == ("valid loss (min)", 2, -1.5)
    assert found.time == timedelta(seconds=72)


def test_an_epoch_without_a_loss_is_never_the_best(model):
    log(model, float("nan"), 2.0, float("inf"))
    (found,) = find_trainings(model.parent)
    assert (found.epochs, found.best_epoch, found.best_value) == (3, 2, 2.0)


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "{}\n", '{"epoch": 1}\n', "[]\n"])
def test_model_without_a_useful_log_is_listed_with_what_is_known(model, content):
    if content is not None:
        (model / FILE).write_text(content)
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


def test_a_report_on_trainings_needs_no_torch():
    code = "import sys, s5.report.training, s5.report.curves; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
