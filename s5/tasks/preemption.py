"""A training that is told to stop: SIGTERM or SIGUSR1 (Slurm's ``--signal``) sets a flag, and steps look at it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

REQUEUE = 75
"""Exit status of a training that was stopped, has saved, and is to be started again (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_stop_signal: signal.Signals | None = None


class Requeue(SystemExit):
    """Ends the process with status :data:`REQUEUE`."""

    def __init__(self) -> None:
        super().__init__(REQUEUE)


def install_handlers() -> None:
    """From now on a stop signal ends a training at its next step, however often it comes, instead of the process."""
    for number in STOP_SIGNALS:
        signal.signal(number, _hear)


@contextmanager
def handle_signals() -> Iterator[None]:
    """:func:`install_handlers` for a while; outside the main thread, which alone catches signals, nothing changes."""
    global _stop_signal
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with suppress(ValueError):
        install_handlers()
    try:
        yield
    finally:
        with suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)
        if before[signal.SIGTERM] is not _hear:
            _stop_signal = None


def _hear(number: int, _: FrameType | None) -> None:
    global _stop_signal
    _stop_signal = signal.Signals(number)


def stop_requested() -> signal.Signals | None:
    """The stop signal that has come, if any."""
    return _stop_signal


def ignore_stop_signals(*_: object) -> None:
    """For processes that work for a training: they go on while it finishes its step, and end when it does."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def request_requeue() -> None:
    """Leaves the file named by ``S5_REQUEUE``, by which a launcher knows that the job wants to be started again."""
    if path := os.environ.get("S5_REQUEUE"):
        Path(path).touch()
