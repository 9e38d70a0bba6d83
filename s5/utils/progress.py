"""Display of progress: a bar in a terminal, a log line a minute elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

LOG_INTERVAL = 60.0
"""Seconds between two log lines."""

T = TypeVar("T")


def in_terminal() -> bool:
    """Whether a person watches: stderr is a terminal, or the launcher passes it on to one (``S5_TERMINAL``)."""
    return sys.stderr.isatty() or os.environ.get("S5_TERMINAL") == "1"


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and shows the progress: a bar in a terminal, a log line a minute elsewhere."""
    from tqdm import tqdm

    if in_terminal():
        # In a container, a terminal may have no columns and lines, and tqdm would draw nothing.
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
