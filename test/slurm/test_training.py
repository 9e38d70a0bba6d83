"""Trainings on a real Slurm: stopped and requeued, on two nodes, and with a node that dies."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

from s5.separation import ResUNetK
from s5.tasks.checkpoint import NEWEST
from s5.tasks.launch import train_model
from s5.utils.config import load_inherited

pytestmark = pytest.mark.slurm

OPTIONS = ("--num_scenes", "24", "--batch_size", "4", "--log_interval", "1", "--num_workers", "1", "--ema_decay", "0.9")


def command(expdir, *options):
    """The words that run.sh gives its launcher."""
    words = ["--system", "system.yaml", "--model", "separator", "--train", "data/train", "--valid", "data/valid"]
    return [sys.executable, "-m", "s5.bin.train", *words, "--expdir", expdir, "--ngpu", "0", "--", *options]


def frozen_norms():
    """On CPUs each process takes the statistics of batch norms of its own items: they are kept out."""
    conf = load_inherited("separator.yaml")["network_conf"]
    norms = [name for name, m in ResUNetK(n_labels=3, **conf).named_modules() if isinstance(m, nn.BatchNorm2d)]
    return ("--freeze_param", *(f"network.{name}" for name in norms))


@pytest.fixture
def slurm_env(monkeypatch):
    """Variables of jobs; one thread, as the reference has."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    repo = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": repo, "OMP_NUM_THREADS": "1"}


def state(folder):
    return torch.load(folder / "separator" / NEWEST, weights_only=True)


def figures(reporter):
    return {
        (epoch, part, name): value
        for epoch, parts in reporter["stats"].items()
        for part, values in parts.items()
        for name, value in values.items()
        if "time" not in name and np.isscalar(value)
    }


def test_two_nodes_are_requeued_together_and_end_where_one_process_does(cluster, recipe, tmp_path, slurm_env):
    options = (*OPTIONS, "--optim", "sgd", *frozen_norms())
    log = tmp_path / "train.log"
    words = ["--num_nodes", "2", "--grace", "60", "--time", "10", log, *command(tmp_path / "two", *options)]
    launcher = cluster.launch(*words, cwd=recipe, **slurm_env)
    cluster.wait(lambda: log.exists() and "1epoch:train:2-2batch" in log.read_text(), 120)
    (job,) = cluster.job_ids()
    cluster.run("scancel", "--signal", "USR1", "--batch", job)  # as Slurm does before the time limit
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", tmp_path / "one", 0, options)
    said = launcher.communicate(timeout=180)[0]
    text = log.read_text()
    assert launcher.returncode == 0, said + text[-3000:]
    assert "stopped by SIGUSR1; resume at epoch 1, batch" in text and "# requeued" in text
    assert "resumed from a checkpoint: epoch 1, batch" in text and "restart 1" in text
    expected, found = (state(tmp_path / name) for name in ("one", "two"))
    assert len(found["random"]) == 0 and found["position"]["epoch"] == 3
    for key, value in figures(expected["reporter"]).items():
        tolerance = 1e-5 if key[2] == "grad_norm" else 1e-6
        assert np.isclose(figures(found["reporter"])[key], value, rtol=tolerance, atol=1e-6), key
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-5, atol=1e-6)
    assert not list((tmp_path / "two/separator").glob(".*partial"))


def test_a_training_whose_node_dies_goes_on_bit_by_bit_on_another(cluster, recipe, tmp_path, slurm_env):
    log = tmp_path / "train.log"
    often = ("--checkpoint_minutes", "0.0001")
    words = ["--grace", "60", "--time", "10", log, *command(tmp_path / "lost", *OPTIONS, *often)]
    launcher = cluster.launch(*words, cwd=recipe, **slurm_env)
    cluster.wait(lambda: log.exists() and "1epoch:train:4-4batch" in log.read_text(), 120)
    (job,) = cluster.job_ids()
    cluster.kill_node(cluster.node_of(job))
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", tmp_path / "whole", 0, OPTIONS)
    said = launcher.communicate(timeout=180)[0]
    text = log.read_text()
    assert launcher.returncode == 0, said + text[-3000:]
    assert "resumed from a checkpoint: epoch 1, batch" in text
    expected, found = (state(tmp_path / name) for name in ("whole", "lost"))
    assert figures(found["reporter"]) == figures(expected["reporter"])
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
