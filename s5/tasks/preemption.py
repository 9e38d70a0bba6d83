"""Stopping a training by SIGTERM or SIGUSR1 (Slurm's ``--signal``): a signal sets a flag that each step reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

REQUEUE = 75
"""Exit status of a training that was stopped, has saved, and should be requeued (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_stop_signal: signal.Signals | None = None


class Requeue(SystemExit):
    """Raised to end the process with status :data:`REQUEUE`."""

    def __init__(self) -> None:
        super().__init__(REQUEUE)


def install_handlers() -> None:
    """Makes a stop signal end the training after its current step instead of ending the process at once."""
    for number in STOP_SIGNALS:
        signal.signal(number, _hear)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Calls :func:`install_handlers` and restores the old handlers at the end. Does nothing outside the main thread."""
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
    """The stop signal that was received, if any."""
    return _stop_signal


def ignore_stop_signals(*_: object) -> None:
    """Makes a worker ignore stop signals: it works until the training has finished its step and ends with it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def request_requeue() -> None:
    """Creates the file named by ``S5_REQUEUE``, which tells the launcher to start the job again."""
    if path := os.environ.get("S5_REQUEUE"):
        Path(path).touch()
