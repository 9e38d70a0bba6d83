"""Workers of the data loader: how batches travel, and what happens when a worker is gone."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from s5.tasks.data import FixedScenes, VirtualScenes
from s5.tasks.launch import train_model
from s5.tasks.parcel import ALIGNMENT, Parcel, _unpack

REPO = Path(__file__).resolve().parents[2]
OPTIONS = ("--num_scenes", "12", "--batch_size", "4", "--log_interval", "1")


def run(expdir, num_workers, *extra):
    options = (*OPTIONS, "--num_workers", str(num_workers), *extra)
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", expdir, 0, options)


def command(expdir, *extra):
    words = [
        "--system",
        "system.yaml",
        "--model",
        "separator",
        "--expdir",
        expdir,
        "--ngpu",
        "0",
        "--",
        *OPTIONS,
        *extra,
    ]
    return [sys.executable, "-m", "s5.bin.train", *map(str, words)]


def with_shared_memory(size, words, **options):
    """Runs a command that has a /dev/shm of some size; full, if the size is 0."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("only root, where unshare is allowed, can give a command a small /dev/shm")
    fill = "" if size else "head -c 4096 /dev/zero >/dev/shm/full && "
    script = f'mount -t tmpfs -o size={size or "4k"} tmpfs /dev/shm && {fill}exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "-", *words],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def send(content):
    """What another process unpickles."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: (theirs.send(Parcel(content)), theirs.poll(30)))
    process.start()
    found = ours.recv()
    ours.send("")
    theirs.close()
    process.join(30)
    return found


def test_what_is_packed_arrives_as_it_was():
    content = (["a", "b"], {"mixture": torch.arange(6.0).reshape(2, 3), "label_index": torch.tensor([[1], [2]])})
    content[1]["plan"] = [np.arange(3, dtype=np.int16), "x", np.zeros((0, 2))]
    names, batch = send(content)
    assert names == ["a", "b"] and list(batch) == ["mixture", "label_index", "plan"]
    for name in ("mixture", "label_index"):
        assert torch.equal(batch[name], content[1][name]) and batch[name].dtype == content[1][name].dtype
        assert batch[name].data_ptr() % ALIGNMENT == 0
    batch["mixture"] += 1  # writable
    assert batch["plan"][0].dtype == np.int16 and batch["plan"][2].shape == (0, 2)


@pytest.mark.slow
def test_weights_do_not_depend_on_how_batches_travel_nor_on_the_size_of_shared_memory(
    recipe, tmp_path, state, assert_same
):
    """Batches of 2 MB, of which 8 wait, where /dev/shm has 1 MB; containers have 64 MB and larger batches."""
    run(tmp_path / "here", 0)
    done = with_shared_memory("1m", command(tmp_path / "sent", "--num_workers", "4"), cwd=recipe)
    assert done.returncode == 0, done.stderr
    assert_same(state(tmp_path / "sent/separator"), state(tmp_path / "here/separator"))


@pytest.mark.slow
def test_no_shared_memory_at_all_is_told_in_one_line(recipe, tmp_path):
    done = with_shared_memory(0, command(tmp_path, "--num_workers", "1"), cwd=recipe)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert last.startswith("error: /dev/shm: No space left on device: no room for the workers' locks"), done.stderr


class Closed:
    """A worker's file, after the worker closed the connection that would have brought it."""

    def __init__(self, error):
        self.error = error

    def detach(self):
        raise self.error


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError()])
def test_a_batch_that_is_not_handed_over_is_told_in_one_line(error):
    with pytest.raises(ChildProcessError, match="handed over no batch: found its connection closed"):
        _unpack(Closed(error), [1])


def few_descriptors():
    """Enough for a batch, not for sending it."""
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))


KILLED = "a worker of the data loader was killed by "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "how", "said"),
    [
        (
            VirtualScenes,
            partial(signal.raise_signal, signal.SIGKILL),
            KILLED + "SIGKILL, probably because memory ran out",
        ),
        (FixedScenes, partial(signal.raise_signal, signal.SIGBUS), KILLED + r"SIGBUS: .*/dev/shm.*: found \d+ MB of"),
        (FixedScenes, partial(os._exit, 0), "ended before its work did: found exit status 0"),
        (VirtualScenes, few_descriptors, "(ended before its work did: found exit status 1|handed over no batch)"),
    ],
)
def test_a_worker_that_is_gone_ends_the_training_in_one_line(recipe, tmp_path, monkeypatch, dataset, how, said):
    """In the middle of an epoch, and in a validation."""
    whole, main = dataset.__getitem__, os.getpid()

    def item(self, key):
        found = whole(self, key)
        if key[1] == len(self) - 1 and os.getpid() != main:
            how()
        return found

    monkeypatch.setattr(dataset, "__getitem__", item)
    began = time.monotonic()
    with pytest.raises(ChildProcessError, match=said) as error:
        run(tmp_path, 2)
    assert time.monotonic() - began < 60 and "\n" not in error.value.strerror


@pytest.mark.slow
def test_a_command_whose_worker_is_killed_ends_with_that_line(recipe, tmp_path):
    log = tmp_path / "log"
    with open(log, "w") as f:
        environment = os.environ | {"PYTHONPATH": str(REPO)}
        words = command(tmp_path, "--num_workers", "2", "--max_epoch", "1000")
        process = subprocess.Popen(words, cwd=recipe, env=environment, stderr=f, stdout=f)
    until = time.monotonic() + 120
    while "1epoch results" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert process.wait(60) == 1, log.read_text()
    text = log.read_text()
    assert text.splitlines()[-1].startswith("error: a worker of the data loader was killed by SIGKILL")
    assert "Traceback" not in text and not any(Path(f"/proc/{child}").exists() for child in children)
