"""Trainings that are stopped, killed or fail to write: what goes on from there equals what was never interrupted."""

import os
import resource
import shutil
import signal

import pytest
import torch

from s5.system.trained import best_checkpoint
from s5.system.training_log import read_epochs
from s5.tasks.checkpoint import DAMAGED, NEWEST, PREVIOUS
from s5.tasks.launch import train_model
from s5.tasks.preemption import REQUEUE
from s5.utils.errors import InputError

# Three batches an epoch and a step every second one: gradients are left over at the end of an epoch.
HARD = ("--num_scenes", "6", "--accum_grad", "2", "--ema_decay", "0.9", "--log_interval", "1", "--num_workers", "1")


def run(model, expdir, *extra, phase="train"):
    train_model("system.yaml", model, phase, "data/train", "data/valid", expdir, 0, (*HARD, *extra))


def stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(recipe_folder, tmp_path_factory):
    """Two epochs of both models."""
    expdir = tmp_path_factory.mktemp("uninterrupted")
    here = os.getcwd()
    os.chdir(recipe_folder)
    try:
        for model in ("tagger", "separator"):
            run(model, expdir)
    finally:
        os.chdir(here)
    return expdir


@pytest.mark.parametrize("model", ["tagger", "separator"])
def test_a_training_stopped_in_each_part_equals_one_that_was_not(
    uninterrupted, recipe, tmp_path, monkeypatch, at, state, assert_same, model
):
    monkeypatch.setenv("S5_REQUEUE", str(tmp_path / "requeue"))
    stops = {
        "1epoch:train:1-1batch": "epoch 1, batch 3",  # a step is two batches
        "1epoch results": "epoch 2",
        "2epoch:train:2-2batch": "epoch 2, batch 3",
        "2epoch:train:3-3batch": "validation of epoch 2",
    }
    for text, position in stops.items():
        told = at("stopped by SIGTERM; resume at " + position, lambda: None)
        with at(text, stop), told, pytest.raises(SystemExit) as end:
            run(model, tmp_path)
        assert end.value.code == REQUEUE and told.done
        assert (tmp_path / "requeue").exists()
        (tmp_path / "requeue").unlink()
    run(model, tmp_path)
    assert not (tmp_path / "requeue").exists()
    assert_same(state(tmp_path / model), state(uninterrupted / model))
    expected, found = (torch.load(best_checkpoint(e / model), weights_only=True) for e in (uninterrupted, tmp_path))
    assert_same(found, expected)
    assert {p.name for p in (tmp_path / model).glob("*.pth")} == {p.name for p in (uninterrupted / model).glob("*.pth")}
    logged, whole = ([vars(epoch) for epoch in read_epochs(e / model)] for e in (tmp_path, uninterrupted))
    assert [epoch["epoch"] for epoch in logged] == [1, 2] and logged[0]["parameters"] > 100
    for epoch in (*logged, *whole):
        for part in ("train", "valid"):
            assert epoch[part].pop("seconds") > 0
            epoch[part] = {name: value for name, value in epoch[part].items() if not name.endswith("time")}
    assert logged == whole


def test_a_resumed_training_restores_a_lost_log(uninterrupted, recipe, tmp_path):
    folder = tmp_path / "separator"
    shutil.copytree(uninterrupted / "separator", folder, symlinks=True)
    (folder / "epochs.jsonl").unlink()
    run("separator", tmp_path)
    assert read_epochs(folder) == read_epochs(uninterrupted / "separator")


def test_gradients_left_over_at_the_end_of_an_epoch_are_kept(uninterrupted, recipe, tmp_path, state, assert_same):
    run("separator", tmp_path, "--max_epoch", "1")
    assert state(tmp_path / "separator")["gradients"]
    run("separator", tmp_path)
    assert_same(state(tmp_path / "separator"), state(uninterrupted / "separator"))


def test_a_truncated_checkpoint_is_put_aside_and_the_one_before_used(
    uninterrupted, recipe, tmp_path, caplog, state, assert_same
):
    folder = tmp_path / "separator"
    shutil.copytree(uninterrupted / "separator", folder, symlinks=True)
    whole = (folder / NEWEST).read_bytes()
    (folder / NEWEST).write_bytes(whole[: len(whole) // 2])
    run("separator", tmp_path)
    assert f"{NEWEST} is damaged" in caplog.text and f"resumes from {folder / PREVIOUS}" in caplog.text
    assert_same(state(folder), state(uninterrupted / "separator"))
    assert len((folder / DAMAGED).read_bytes()) == len(whole) // 2

    for name in (NEWEST, PREVIOUS):
        (folder / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=rf"{NEWEST} and .*{PREVIOUS}: found a damaged checkpoint, expected a whole"):
        run("separator", tmp_path)


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_and_the_next_run_completes(
    uninterrupted, recipe, tmp_path, at, state, assert_same
):
    folder = tmp_path / "separator"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    least = min((uninterrupted / "separator" / name).stat().st_size for name in (NEWEST, "1epoch.pth")) - 1

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, hard))

    try:
        with at("2epoch:train:3-3batch", fill), pytest.raises(OSError, match="File too large") as error:
            run("separator", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(folder / "2epoch.pth")
    assert not list(folder.glob(".*.partial")) and not (folder / "2epoch.pth").exists()
    assert state(folder)["position"] == {"epoch": 2, "batch": 0, "trained": False}
    run("separator", tmp_path)
    assert_same(state(folder), state(uninterrupted / "separator"))
