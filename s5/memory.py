"""How the process gets its memory."""

from __future__ import annotations

import ctypes


def keep_memory() -> bool:
    """Lets the process keep the memory that it frees, for its next tensors, instead of returning it each time.

    A large tensor costs more to get from the system, page by page, than to fill: without this that is a third of a
    separator's time on a CPU. For programs that run networks; glibc only, elsewhere nothing happens.

    Returns:
        Whether it took effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
