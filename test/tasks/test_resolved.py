"""Which trainings are the same one: what makes a model counts, not bytes, dates, or how the training runs."""

import shutil
from pathlib import Path

import pytest
import yaml

from s5.tasks.launch import train_model
from s5.tasks.resolved import RESOLVED, differences, resolved
from s5.utils.config import load_inherited
from s5.utils.errors import InputError

BASE = {"max_epoch": 40, "batch_size": 4, "optim_conf": {"lr": 1e-3, "betas": [0.9, 0.99]}, "num_workers": 2}


@pytest.fixture
def made(recipe, tmp_path):
    """What a training of a YAML with some options is made of."""

    def of(config, *options):
        path = tmp_path / "config.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return resolved(load_inherited(path), "data/train", "data/valid", options)

    return of


def test_comments_order_and_inheritance_do_not_count(made, tmp_path):
    (tmp_path / "base.yaml").write_text("batch_size: 8\noptim_conf: {betas: [0.9, 0.99]}\n")
    text = "# A comment.\noptim_conf:\n  lr: 0.001\nbatch_size: 4\nmax_epoch: 40\ninherit: base.yaml\n"
    assert made(text) == made(BASE)


def test_how_a_training_runs_does_not_count(made):
    options = ("--num_workers", "0", "--log_interval", "5", "--use_wandb", "true", "--wandb_name", "a", "--ngpu=2")
    assert made(BASE, *options) == made(BASE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--batch_size", "8"), "batch_size: 4 -> 8"),
        (("--optim_conf", "lr=1e-4"), "optim_conf.lr: 0.001 -> 0.0001"),
        (("--network_conf", "a.b=1"), "network_conf: nothing -> {a: {b: 1}}"),
        (("--optim_conf", "eps=1e-6"), "optim_conf.eps: nothing -> 1.0e-06"),
        (("--seed=3",), "seed: nothing -> 3"),
        (("--max_epoch", "5"), "max_epoch: 40 -> 5"),
        (("--freeze_param", "a", "b"), "freeze_param: nothing -> [a, b]"),
    ],
)
def test_options_win_over_the_yaml_and_count_key_by_key(made, options, expected):
    assert differences(made(BASE), made(BASE, *options)) == [expected]


def test_the_same_setting_by_the_yaml_and_by_an_option(made):
    assert made({**BASE, "batch_size": 8}) == made(BASE, "--batch_size", "8")


def test_more_epochs_and_another_patience_only_go_on(made):
    assert differences(made(BASE), made(BASE, "--max_epoch", "60", "--patience", "3")) == []
    # A one-cycle schedule is as long as the training.
    cycle = {**BASE, "scheduler": "onecyclelr", "scheduler_conf": {"max_lr": 1e-3}}
    assert differences(made(cycle), made(cycle, "--max_epoch", "60")) == ["max_epoch: 40 -> 60"]
    cycle["scheduler_conf"]["total_steps"] = 1000
    assert differences(made(cycle), made(cycle, "--max_epoch", "60")) == []


def test_weights_that_a_training_starts_from_count_wherever_they_lie(made, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    one, same, other = (made(BASE, "--init_param", f"{tmp_path / name}:network:network") for name in "abc")
    assert one == same and one != other
    assert differences(one, other)[0].startswith("init_param: ")
    one, same, other = (made(BASE, "--estimators", str(tmp_path / name)) for name in "abc")
    assert one == same and differences(one, other)[0].startswith("estimators: ")


def test_the_content_of_the_data_counts_not_its_date(made, recipe, tmp_path, monkeypatch):
    before = made(BASE)
    shutil.copytree(recipe, tmp_path / "copy", ignore=shutil.ignore_patterns("exp"))
    monkeypatch.chdir(tmp_path / "copy")
    Path("data/valid/labels").touch()
    assert differences(before, made(BASE)) == []
    sampler = Path("data/train/sampler.yaml")
    keys = yaml.safe_load(sampler.read_text())
    sampler.write_text(yaml.safe_dump({**keys, "ref_db": -50.0}))
    (found,) = differences(before, made(BASE))
    assert found.startswith("train_data.sampler.ref_db: ") and found.endswith(" -> -50.0")
    sampler.write_text(yaml.safe_dump(keys))
    labels = Path("data/valid/labels")
    labels.write_text(labels.read_text().replace("Cough", "Speech", 1))
    (found,) = differences(before, made(BASE))
    assert found.startswith("valid_data.labels: ")


def run(folder, *options):
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", folder, 0, options)


def state(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file() and path.name != "train.log"}


@pytest.fixture
def finished(trained, recipe, tmp_path):
    """A copy of the trained separator's experiments."""
    shutil.copytree(trained / "separator", tmp_path / "exp/separator", symlinks=True)
    return tmp_path / "exp"


def test_another_training_leaves_the_model_alone_and_names_what_differs(finished):
    before = state(finished / "separator")
    with pytest.raises(InputError) as e:
        run(finished, "--max_epoch", "3", "--optim_conf", "lr=0.5", "--accum_grad", "2")
    message = str(e.value)
    assert "accum_grad: nothing -> 2; optim_conf.lr: " in message and "-> 0.5)" in message
    assert "--overwrite true" in message and "another --expdir" in message and "\n" not in message
    assert state(finished / "separator") == before


def test_more_epochs_go_on_from_the_checkpoint(finished):
    first = (finished / "separator/2epoch.pth").read_bytes()
    run(finished, "--max_epoch", "3")
    assert (finished / "separator/3epoch.pth").is_file() and (finished / "separator/2epoch.pth").read_bytes() == first
    assert yaml.safe_load((finished / "separator" / RESOLVED).read_text())["config"]["max_epoch"] == 3


def test_a_model_of_unknown_origin_is_not_trained_over(finished):
    (finished / "separator" / RESOLVED).unlink()
    with pytest.raises(InputError, match=r"a model of another training \(no resolved.yaml\)"):
        run(finished)


def test_weights_without_a_checkpoint_are_not_trained_over(finished):
    for name in ("checkpoint.pth", "checkpoint.previous.pth"):
        (finished / "separator" / name).unlink(missing_ok=True)
    before = state(finished / "separator")
    with pytest.raises(InputError, match=r"separator: found weights but no checkpoint\.pth"):
        run(finished, "--max_epoch", "3")
    assert state(finished / "separator") == before


def test_what_has_reached_nothing_begins_anew(finished):
    for path in (finished / "separator").glob("*.pth"):
        path.unlink()
    run(finished, "--max_epoch", "1", "--accum_grad", "2")
    assert (finished / "separator/1epoch.pth").is_file()
