"""Work item by item in several processes, with results that do not depend on how many there are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from s5.progress import progress

PRELOAD, NETWORKS = ("s5.decode",), ("s5.experiment", "s5.tagging.tagger", "s5.separation")
"""Modules that all jobs use, and those that run networks."""

Item = TypeVar("Item")
Out = TypeVar("Out")

NUM_THREADS = 1
"""Torch's threads of each process: sums over more of them are rounded otherwise."""

CHUNK = 2
"""Items that a process takes at once."""


def run_jobs(
    job: Callable[[Item], Out], items: Sequence[Item], nj: int, what: str, networks: bool = True
) -> Iterator[Out]:
    """Results of ``job`` for all items in their order, from ``nj`` processes, with a progress bar.

    Each process gets a copy of the job when it starts (so what it pickles should be small and load the rest on first
    use) and computes with one thread. With one process the work is done in this one.

    Args:
        job: called with each item; has to be picklable if ``nj`` is more than 1.
        items: what to work on.
        nj: number of processes.
        what: name of the work, for the progress bar.
        networks: whether the job needs torch, which takes its time to import.
    """
    nj = min(nj, len(items))
    if nj <= 1:
        with reproducible() if networks else nullcontext():
            yield from progress(map(job, items), len(items), what)
        return
    # Processes fork from a server that has imported what they need, instead of importing it each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *(NETWORKS if networks else ())])
    with ProcessPoolExecutor(nj, mp_context=context, initializer=_set_job, initargs=(job, networks)) as pool:
        try:
            yield from progress(pool.map(_run_job, items, chunksize=CHUNK), len(items), what)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def reproducible() -> Iterator[None]:
    """Torch computes with :data:`NUM_THREADS` threads on the CPU, and by deterministic algorithms on a GPU."""
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


_job: Callable[[Any], Any]


def _set_job(job: Callable[[Any], Any], networks: bool) -> None:
    global _job
    _job = job
    if networks:
        _make_reproducible()


def _run_job(item: Any) -> Any:
    return _job(item)
