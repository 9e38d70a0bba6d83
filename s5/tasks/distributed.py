"""The processes of one training: how each finds its place, how they are started on one machine, and what they agree on.

A process is told its place as torchrun does it: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``. They meet through
``S5_DIST_INIT`` (``file:///path``, a name that has not been used before), or ``MASTER_ADDR`` and ``MASTER_PORT``.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from s5.utils.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

INIT = "S5_DIST_INIT"

GRACE = 20.0
"""Seconds that the other processes have, after one has failed, to notice it and say what they have to say."""


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those of a training.

    Attributes:
        rank: its number among all.
        local_rank: its number on this machine.
        size: number of all.
        init_method: how they meet; None: not said.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    init_method: str | None = None

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> ProcessGroup:
        """The place that the environment tells; alone if it tells none."""
        if int(environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        given = environ.get(INIT) or ("env://" if "MASTER_ADDR" in environ else None)
        return cls(int(environ["RANK"]), int(environ.get("LOCAL_RANK", "0")), int(environ["WORLD_SIZE"]), given)

    def environment(self) -> dict[str, str]:
        """The variables that :meth:`find` reads."""
        told = {"RANK": str(self.rank), "LOCAL_RANK": str(self.local_rank), "WORLD_SIZE": str(self.size)}
        return told | ({INIT: self.init_method} if self.init_method else {})


def places_here(processes: int, environ: Mapping[str, str] = os.environ) -> list[ProcessGroup]:
    """The places of the processes that this one stands for.

    Args:
        processes: how many a task is to have: one a GPU, or as many as were asked for.
        environ: where Slurm tells its tasks' number and count, and torchrun a process's place.

    Returns:
        One place if there is nothing to start: this process is it.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return [ProcessGroup.find(environ)]
    tasks, task, local = 1, 0, 0
    if INIT in environ or int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        tasks = int(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1"))
        task, local = int(environ.get("SLURM_PROCID", "0")), int(environ.get("SLURM_LOCALID", "0"))
    size, init_method = tasks * processes, environ.get(INIT)
    return [ProcessGroup(task * processes + i, local * processes + i, size, init_method) for i in range(processes)]


def slurm_init_method(folder: str | Path, environ: Mapping[str, str] = os.environ) -> str:
    """A file to meet through that no other step, and no earlier start of the same job, has used.

    Raises InputError outside of a job step.
    """
    if "SLURM_JOB_ID" not in environ:
        raise InputError(
            INIT, "nothing", f"file:///path, or MASTER_ADDR and MASTER_PORT ({environ['WORLD_SIZE']} processes)"
        )
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return f"file://{Path(folder).resolve()}/.init." + ".".join(environ.get(name, "0") for name in names)


def run_processes(command: Sequence[str], places: Iterable[ProcessGroup]) -> int:
    """Runs a command once a place on this machine, and waits for all.

    Stop signals are handed on. If one process fails, the others have :data:`GRACE` seconds to notice.

    Args:
        command: its words.
        places: told to the processes by the environment. Without an init method they are all that there are, and meet
            through a file of their own.

    Returns:
        Exit status: that of the first process that failed, or 0.
    """
    places = list(places)
    with tempfile.TemporaryDirectory(prefix="s5_init.") as folder:
        shared = {} if places[0].init_method else {INIT: f"file://{folder}/init"}
        if len(places) == places[0].size:
            shared["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        running = [subprocess.Popen(command, env=os.environ | shared | place.environment()) for place in places]

        def hand_on(number: int, _: object) -> None:
            for process in running:
                process.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, hand_on)
        return _wait(running)


def _wait(running: list[subprocess.Popen]) -> int:
    failed, deadline = 0, None
    while running:
        for process in list(running):
            status = process.poll()
            if status is None:
                continue
            running.remove(process)
            if status and not failed:
                failed = status if status > 0 else 128 - status
                deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(0.05)
    return failed


@contextmanager
def report_lost_workers() -> Iterator[None]:
    """Makes what torch says when another process does not answer one line.

    Raises ConnectionAbortedError for it.
    """
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as e:
        text = str(e)
        place = ProcessGroup.find()
        if place.size == 1 or not (isinstance(e, dist.DistError) or "gloo" in text):
            raise
        reason = f"process {place.rank} of {place.size} has lost another one: {text.splitlines()[0]}"
        raise ConnectionAbortedError(errno.ECONNABORTED, reason) from e


class Ranks:
    """What the processes of a training agree on, by messages on the CPU; for one process nothing happens.

    Args:
        distributed: whether torch's default process group is up.
        timeout: seconds after which a process that does not answer counts as lost.
    """

    def __init__(self, distributed: bool = False, timeout: float = 600.0) -> None:
        import torch

        self.torch, self.rank, self.size = torch, 0, 1
        self.group: Any = None
        if distributed:
            dist = torch.distributed
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            self.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is raised in any process."""
        if self.group is None:
            return list(flags)
        raised = self.torch.tensor([int(flag) for flag in flags])
        self.torch.distributed.all_reduce(raised, self.torch.distributed.ReduceOp.MAX, group=self.group)
        return [bool(flag) for flag in raised]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        self.torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def first_of(self, value: T) -> T:
        """The first process's value."""
        return self.gather(value)[0]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the first one's tensors, in place."""
        if self.group is not None:
            for tensor in tensors:
                self.torch.distributed.broadcast(tensor, src=0)

    def settle(self, error: Exception | None) -> None:
        """Waits for all; ends all if one has failed: that one with its error, the others without a word."""
        failed = self.any(error is not None)[0]
        if error is not None:
            raise error
        if failed:
            sys.exit(1)

    def close(self) -> None:
        """Leaves the group, for a quiet end."""
        if self.group is not None:
            self.torch.distributed.destroy_process_group()
            self.group = None


def remove_stale_inits(folder: Path, init_method: str) -> None:
    """Removes the meeting files that earlier starts left in an experiment folder."""
    for path in folder.glob(".init.*"):
        if not init_method.endswith(f"/{path.name}"):
            logging.info("removing %s, of an earlier start", path)
            path.unlink(missing_ok=True)
