"""Processes of a distributed training: their ranks, their start on one machine, and their communication.

A process reads its rank from the variables of torchrun: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``. The processes meet
through ``S5_DIST_INIT`` (``file:///path``, a name not used before), or ``MASTER_ADDR`` and ``MASTER_PORT``.
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
"""Seconds that the other processes have to end by themselves after one has failed."""


@dataclass(frozen=True)
class ProcessGroup:
    """Rank of a process among the processes of a training."""

    rank: int = 0
    """Number among all processes."""
    local_rank: int = 0
    """Number among the processes of this machine."""
    size: int = 1
    """Number of all processes."""
    init_method: str | None = None
    """Address through which the processes meet; None: not set."""

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> ProcessGroup:
        """Reads the environment. Without its variables, the process is the only one."""
        if int(environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        given = environ.get(INIT) or ("env://" if "MASTER_ADDR" in environ else None)
        return cls(int(environ["RANK"]), int(environ.get("LOCAL_RANK", "0")), int(environ["WORLD_SIZE"]), given)

    def environment(self) -> dict[str, str]:
        """The variables that :meth:`find` reads."""
        told = {"RANK": str(self.rank), "LOCAL_RANK": str(self.local_rank), "WORLD_SIZE": str(self.size)}
        return told | ({INIT: self.init_method} if self.init_method else {})


def places_here(processes: int, environ: Mapping[str, str] = os.environ) -> list[ProcessGroup]:
    """Ranks of the processes that this one must start; a single rank is that of this process itself.

    Args:
        processes: number of processes for each task of Slurm.
        environ: environment with the variables of Slurm or torchrun.
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
    """Address of a file that no other step and no earlier start of the job uses. Raises InputError outside a job."""
    if "SLURM_JOB_ID" not in environ:
        raise InputError(
            INIT, "nothing", f"file:///path, or MASTER_ADDR and MASTER_PORT ({environ['WORLD_SIZE']} processes)"
        )
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return f"file://{Path(folder).resolve()}/.init." + ".".join(environ.get(name, "0") for name in names)


def run_processes(command: Sequence[str], places: Iterable[ProcessGroup]) -> int:
    """Runs a command once for each rank on this machine and waits for all.

    Stop signals are passed on. If one process fails, the others are killed after :data:`GRACE` seconds.

    Args:
        command: words of the command.
        places: ranks, which the processes read from the environment. Without an init method, these are all processes,
            and they meet through a temporary file.

    Returns:
        Exit status of the first process that failed, or 0.
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
    """Replaces torch's error about a lost process by a ConnectionAbortedError of one line."""
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
    """Messages between the processes of a training, on the CPU. With one process, nothing is sent.

    Args:
        distributed: whether torch's default process group is initialised.
        timeout: seconds after which a process without an answer is lost.
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
        """Whether this is the first process, which writes the files."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is true in any process."""
        if self.group is None:
            return list(flags)
        raised = self.torch.tensor([int(flag) for flag in flags])
        self.torch.distributed.all_reduce(raised, self.torch.distributed.ReduceOp.MAX, group=self.group)
        return [bool(flag) for flag in raised]

    def gather(self, value: T) -> list[T]:
        """Values of all processes, by rank."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        self.torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def first_of(self, value: T) -> T:
        """Value of the first process."""
        return self.gather(value)[0]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Copies the tensors of the first process to all others, in place."""
        if self.group is not None:
            for tensor in tensors:
                self.torch.distributed.broadcast(tensor, src=0)

    def settle(self, error: Exception | None) -> None:
        """Waits for all processes. If one has an error, it raises it, and the others exit with status 1."""
        failed = self.any(error is not None)[0]
        if error is not None:
            raise error
        if failed:
            sys.exit(1)

    def close(self) -> None:
        """Leaves the process group, so that torch does not warn at the end."""
        if self.group is not None:
            self.torch.distributed.destroy_process_group()
            self.group = None


def remove_stale_inits(folder: Path, init_method: str) -> None:
    """Removes the files of earlier starts through which processes met, from an experiment folder."""
    for path in folder.glob(".init.*"):
        if not init_method.endswith(f"/{path.name}"):
            logging.info("removing %s of an earlier start", path)
            path.unlink(missing_ok=True)
