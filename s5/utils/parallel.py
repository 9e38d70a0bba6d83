"""Work on items in several processes, with results that do not depend on the number of processes."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain, islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import IO, Any, TypeVar

from s5.utils.progress import progress

Item = TypeVar("Item")
Out = TypeVar("Out")

NUM_THREADS = 1
"""Torch's threads of each process. With more, sums would be rounded differently."""

CHUNK = 2
"""Number of items that a process takes at once."""

PATIENCE = 10.0
"""Seconds that the other processes have to end after an error in one."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108
"""Folder of Linux's shared memory."""


def run_jobs(
    job: Callable[[Item], Out], items: Sequence[Item], nj: int, what: str, networks: Sequence[str] = ()
) -> Iterator[Out]:
    """Results of ``job`` for all items in their order, from ``nj`` processes, with a progress bar.

    Each process gets a pickled copy of the job, which should be small and load the rest on first use, and computes with
    one thread. With ``nj`` 1 the work is done in this process.

    Args:
        job: function of an item.
        items: items to work on.
        nj: number of processes.
        what: name of the work, for the progress bar.
        networks: modules of the networks that the job runs, if any: torch then computes reproducibly.
    """
    nj = min(nj, len(items))
    if nj <= 1:
        with reproducible() if networks else nullcontext():
            yield from progress(map(job, items), len(items), what)
        return
    prepare = _make_reproducible if networks else None
    yield from progress(in_processes(job, items, nj, what, networks, prepare, CHUNK), len(items), what)


def run_batches(
    job: Callable[[Sequence[Item]], Sequence[Out]],
    items: Sequence[Item],
    batch_size: int,
    nj: int,
    what: str,
    networks: Sequence[str] = (),
) -> Iterator[Out]:
    """:func:`run_jobs` for a job that takes ``batch_size`` items at once and returns a result for each.

    Batches are smaller if there would be less than one for each process.
    """
    size = max(1, min(batch_size, -(-len(items) // max(nj, 1))))
    batches = [items[i : i + size] for i in range(0, len(items), size)]
    yield from chain.from_iterable(run_jobs(job, batches, nj, what, networks))


def in_processes(
    job: Callable[[Item], Out],
    items: Sequence[Item],
    nj: int,
    what: str,
    preload: Sequence[str] = (),
    prepare: Callable[[], None] | None = None,
    chunk: int = 1,
) -> Iterator[Out]:
    """Results of ``job`` for all items in their order, from ``nj`` processes.

    Each process has its own pipe and shares nothing else, so the pipe of a killed process always ends. The processes
    end when this process has ended.

    Args:
        job: function of an item, which can be pickled.
        items: items to work on.
        nj: number of processes.
        what: name of the work, for errors.
        preload: modules that the job imports on first use, see :func:`start_server`.
        prepare: function to call once in each process.
        chunk: number of items that a process takes at once.

    Raises:
        ChildProcessError: a process was killed or ended by itself.
        Exception: the first error of the job, in the order of the items.
    """
    start_server([_module_of(job), *preload])
    context = multiprocessing.get_context("forkserver")
    chunks = [items[i : i + chunk] for i in range(0, len(items), chunk)]
    processes: dict[Connection, BaseProcess] = {}
    done: dict[int, tuple[list[Out], Exception | None]] = {}
    todo = iter(enumerate(chunks))
    try:
        for first in islice(todo, nj):
            mine, its = context.Pipe()
            processes[mine] = context.Process(target=_work, args=(its, job, prepare), daemon=True)
            processes[mine].start()
            its.close()
            _send(mine, processes[mine], what, first)
        for number in range(len(chunks)):
            while True:
                # Even if the result is there: processes must not wait until the caller takes it.
                for ready in wait(list(processes), 0 if number in done else None):
                    assert isinstance(ready, Connection)
                    try:
                        at, outs, error = ready.recv()
                    except (EOFError, OSError):
                        raise _lost(processes[ready], what) from None
                    done[at] = outs, error
                    if (following := next(todo, None)) is not None:
                        _send(ready, processes[ready], what, following)
                if number in done:
                    break
            outs, error = done.pop(number)
            yield from outs
            if error is not None:
                raise error
    finally:
        for mine in processes:
            mine.close()
        until = time.monotonic() + PATIENCE
        for process in processes.values():
            process.join(max(0.0, until - time.monotonic()))
            process.kill()


def start_server(preload: Sequence[str]) -> None:
    """Starts the server from which the processes fork, once. It imports the modules ``preload`` in the background.

    Forking this process itself could block the child if there are threads (e.g. of a progress bar).
    """
    forkserver.set_forkserver_preload([__name__, *preload])
    forkserver.ensure_running()


def _module_of(job: Callable) -> str:
    while isinstance(job, partial):
        job = job.func
    return job.__module__


def _send(connection: Connection, process: BaseProcess, what: str, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        raise _lost(process, what) from None


def _lost(process: BaseProcess, what: str) -> ChildProcessError:
    process.join(PATIENCE)
    return ChildProcessError(errno.ECHILD, fate(f"a process of '{what}'", process.exitcode))


def _work(mine: Connection, job: Callable[[Any], Any], prepare: Callable[[], None] | None) -> None:
    """Loop of a process: receives items, sends results."""
    _end_with_parent()
    if prepare is not None:
        prepare()
    with suppress(EOFError, OSError, KeyboardInterrupt):  # the parent process has ended
        while True:
            number, items = mine.recv()
            outs: list[Any] = []
            error = None
            try:
                for item in items:
                    outs.append(job(item))
            except Exception as e:
                error = _portable(e)
            mine.send((number, outs, error))


def _end_with_parent() -> None:
    """Ends this process when its parent process has ended for any reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_it() -> None:
        parent.join()
        os._exit(1)  # it must not write any more

    threading.Thread(target=wait_for_it, daemon=True).start()


def _portable(error: Exception) -> Exception:
    """The error in a form that can be sent to another process, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def fate(who: str, *codes: int | None) -> str:
    """Explains why a process ended too early and how to avoid it.

    Args:
        who: name of the process.
        codes: exit statuses of the process and of others of its kind, negative for a signal.
    """
    # Other processes may have ended since, by a signal or by themselves.
    code = min((code for code in codes if code is not None), key=(0).__eq__, default=None)
    if code is None or code >= 0:
        status = "no exit status" if code is None else f"exit status {code}"
        return f"{who} ended before its work did: found {status} (see its messages above)"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return (
            f"{who} was killed by SIGKILL, probably because memory ran out: use fewer processes, smaller batches or "
            f"more memory"
        )
    if name == "SIGBUS":
        return (
            f"{who} was killed by SIGBUS: {SHARED_MEMORY} is full, or a file was cut while it was read: "
            f"{_shared_memory()} (docker run --shm-size=8g enlarges it)"
        )
    return f"{who} was killed by {name}"


def _shared_memory() -> str:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError as e:
        return f"found no {SHARED_MEMORY} ({e.strerror})"
    size, free = (f"{blocks * status.f_frsize >> 20} MB" for blocks in (status.f_blocks, status.f_bavail))
    return f"found {free} of {size} free there"


@contextmanager
def reproducible() -> Iterator[None]:
    """Makes torch use :data:`NUM_THREADS` threads on the CPU and deterministic algorithms on a GPU."""
    import torch

    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    _make_reproducible()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic = before[1]


def _make_reproducible() -> None:
    import torch

    torch.set_num_threads(NUM_THREADS)
    torch.backends.cudnn.deterministic = True


def file_in_memory() -> IO[bytes]:
    """Opens an unnamed file in memory, which needs no room in /dev/shm. Raises OSError if there is no memory."""
    # os.memfd_create is missing in a Python that was built for an older system.
    create = getattr(ctypes.CDLL(None, use_errno=True), "memfd_create", None)
    if create is None:
        return tempfile.TemporaryFile(buffering=0)  # other systems: on disk
    close_on_exec = 1
    file = create(b"s5", close_on_exec)
    if file < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "memfd_create")
    return os.fdopen(file, "w+b", buffering=0)
