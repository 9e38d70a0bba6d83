"""Progress where people wait: a bar in a terminal, a log line a minute elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

LOG_INTERVAL = 60.0
"""Seconds between lines where nobody watches."""

T = TypeVar("T")


def in_terminal() -> bool:
    """Whether a person watches: stderr is a terminal, or the launcher passes it on to one (and says so)."""
    return sys.stderr.isatty() or os.environ.get("S5_TERMINAL") == "1"


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Passes items on and shows how far the work is: a bar in a terminal, a log line a minute elsewhere."""
    if in_terminal():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_INTERVAL:
            last, rate = now, done / (now - start)
            logging.info("%s: %d of %d, %.1f a second, %.0f s left", what, done, total, rate, (total - done) / rate)
