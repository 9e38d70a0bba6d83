"""Trainings of several processes on this machine: the same as one process has, and none left behind."""

import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from s5.separation import SEPARATORS
from s5.tagging import TAGGERS
from s5.tasks.data import SceneIterFactory, VirtualScenes
from s5.tasks.distributed import INIT, ProcessGroup, places_here, run_processes, slurm_init_method
from s5.tasks.launch import train_model
from s5.tasks.preemption import REQUEUE
from s5.utils.config import load_inherited
from s5.utils.errors import InputError


def frozen_norms(model):
    """Options that keep batch norms in evaluation: on CPUs each process takes its statistics of its own items."""
    config = load_inherited(f"{model}.yaml")
    network = {**SEPARATORS, **TAGGERS}[config["network"]](n_labels=3, n_slots=3, **config["network_conf"])
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    return ("--freeze_param", *(f"network.{name}" for name in norms))


def run(model, expdir, *extra):
    """Plain gradient descent: Adam makes steps of the rounding errors of gradients that are zero."""
    options = ("--num_scenes", "8", "--batch_size", "4", "--log_interval", "1", "--optim", "sgd", *extra)
    options += frozen_norms(model)
    train_model("system.yaml", model, "train", "data/train", "data/valid", expdir, 0, options)


def assert_close(found, expected):
    """Figures of all epochs and weights: equal but for the order of sums."""
    for epoch, parts in expected["reporter"]["stats"].items():
        for part in ("train", "valid"):
            for name, value in parts[part].items():
                if "time" not in name:
                    other = found["reporter"]["stats"][epoch][part][name]
                    tolerance = 1e-5 if name == "grad_norm" else 1e-6
                    assert np.isclose(other, value, rtol=tolerance, atol=1e-6), (epoch, part, name, other, value)
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["separator", "tagger"])
def test_two_processes_train_as_one_does_through_a_stop(recipe, tmp_path, monkeypatch, at, state, forked, model):
    """The stop reaches one process; both save and end, and go on together."""
    run(model, tmp_path / "one")

    def stopped(rank):
        with at("1epoch:train:1-1batch", lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            run(model, tmp_path / "two")

    monkeypatch.setenv("S5_REQUEUE", str(tmp_path / "requeue"))
    assert forked(2, tmp_path, stopped).wait() == [REQUEUE, REQUEUE]
    assert (tmp_path / "requeue").exists()
    assert state(tmp_path / "two" / model)["position"] == {"epoch": 1, "batch": 1, "trained": False}
    second = forked(2, tmp_path, lambda _: run(model, tmp_path / "two"))
    assert second.wait() == [0, 0], second.logs[0].read_text()[-3000:]
    assert_close(state(tmp_path / "two" / model), state(tmp_path / "one" / model))


def test_a_killed_process_ends_the_others(recipe, tmp_path, at, forked):
    def one_dies(rank):
        action = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank == 0 else (lambda: None)
        with at("1epoch:train:1-1batch", action):
            run("separator", tmp_path, "--dist_timeout", "20")

    began = time.monotonic()
    processes = forked(2, tmp_path, one_dies)
    assert processes.wait() == [-signal.SIGKILL, 1]
    assert time.monotonic() - began < 60
    assert "] process 1 of 2 has lost another one: " in processes.logs[1].read_text()


def test_a_parameter_without_gradient_is_named(recipe, tmp_path, forked):

    def incomplete(rank):
        from s5.tasks.separation import SeparationTask

        build = SeparationTask.build_model.__func__

        def with_idle_part(cls, args):
            model = build(cls, args)
            model.network.idle = nn.Linear(2, 2)
            return model

        SeparationTask.build_model = classmethod(with_idle_part)
        run("separator", tmp_path, "--max_epoch", "1")

    processes = forked(2, tmp_path, incomplete)
    assert processes.wait() == [1, 1]
    expected = "key unused_parameters: found false, but no gradient reaches network.idle.weight, network.idle.bias"
    assert expected in processes.logs[0].read_text()


@pytest.mark.parametrize("size", [2, 3])
def test_scenes_of_all_processes_are_those_of_one(recipe, size):
    def names(rank, world_size, start=0):
        dataset = VirtualScenes(recipe / "data/train", seed=5, num_scenes=13, with_sources=False)
        factory = SceneIterFactory(dataset, 4, 0, rank, world_size, drop_last=True)
        return [name for name, _ in factory.build_iter(2, start=start)]

    whole = names(0, 1)
    shares = [names(rank, size) for rank in range(size)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert sorted(batch) == sorted(name for part in parts for name in part)
    assert names(1, size, start=2) == shares[1][2:]


def test_a_set_smaller_than_the_processes_is_refused(recipe):
    dataset = VirtualScenes(recipe / "data/train", num_scenes=2)
    with pytest.raises(InputError, match=r"data: found 2 items, expected at least one a process \(3\)"):
        SceneIterFactory(dataset, 4, 0, 0, 3)


def test_places_follow_the_environment():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    assert places_here(1, {}) == [ProcessGroup()]
    assert places_here(2, {}) == [ProcessGroup(0, 0, 2), ProcessGroup(1, 1, 2)]
    assert places_here(1, slurm) == [ProcessGroup()]  # a batch script of two tasks that runs one
    step = slurm | {"SLURM_STEP_NUM_TASKS": "2"}
    assert places_here(1, step) == [ProcessGroup(1, 0, 2)]
    assert places_here(2, step | {INIT: "file:///x"}) == [
        ProcessGroup(2, 0, 4, "file:///x"),
        ProcessGroup(3, 1, 4, "file:///x"),
    ]
    told = ProcessGroup(3, 1, 4, "file:///x")
    assert ProcessGroup.find(told.environment()) == told == places_here(8, told.environment())[0]
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert ProcessGroup.find(torchrun) == ProcessGroup(1, 1, 2, "env://")


def test_every_start_of_a_job_meets_elsewhere(tmp_path):
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1"}
    starts = [step, step | {"SLURM_RESTART_COUNT": "1"}, step | {"SLURM_STEP_ID": "2"}]
    assert len({slurm_init_method(tmp_path, start) for start in starts}) == 3
    with pytest.raises(InputError, match="S5_DIST_INIT: found nothing"):
        slurm_init_method(tmp_path, {"WORLD_SIZE": "2"})


SCRIPT = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
open(f"{sys.argv[1]}/ready{rank}", "w").write(os.environ["WORLD_SIZE"])
if rank == int(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "-1" and rank == 0:
    while not os.path.exists(f"{sys.argv[1]}/ready1"):
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGUSR1)
time.sleep(60)
"""


@pytest.mark.parametrize(("dies", "status"), [(1, 128 + signal.SIGKILL), (-1, REQUEUE)])
def test_processes_end_together(tmp_path, monkeypatch, dies, status):
    """One is killed, or all are told to stop."""
    monkeypatch.setattr("s5.tasks.distributed.GRACE", 0.3)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        words = [sys.executable, "-S", "-c", SCRIPT, str(tmp_path), str(dies)]
        began = time.monotonic()
        assert run_processes(words, places_here(2, {})) == status
        assert time.monotonic() - began < 30
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (tmp_path / "ready0").read_text() == "2"
