"""Progress where people wait: a bar in a terminal, a log line a minute elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
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
    from tqdm import tqdm

    if in_terminal():
        # A terminal may say that it has no columns and no lines (in containers), and tqdm then draws nothing.
        size = shutil.get_terminal_size()
        yield from tqdm(items, total=total, desc=what, leave=False, ncols=min(size.columns, 100), nrows=size.lines)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_INTERVAL:
            last, each = now, (now - start) / done
            rate = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
            logging.info(
                "%s: %d of %d, %s, %s left", what, done, total, rate, tqdm.format_interval((total - done) * each)
            )
