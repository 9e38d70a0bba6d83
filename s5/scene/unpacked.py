"""Impulse responses of compressed SOFA files, unpacked once for all processes and runs.

SOFA files are compressed by default, in blocks of many positions (netCDF's default: 36 positions and a third of two
seconds in one): to read one impulse response, all of some blocks are decompressed, a quarter of a second of work. So
what was decompressed is kept as float32 in files, from which one response is read by slice. The system keeps in memory
what is used often, once for all processes.

The folder is ``$S5_CACHE``, else ``s5`` in ``$XDG_CACHE_HOME`` (``~/.cache``); ``S5_CACHE=off`` does without. Beyond
``$S5_CACHE_GB`` (20) the least recently used files leave. It may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from s5.errors import InputError

DEFAULT_GB = 20.0
KEPT_FREE = 1 << 30
"""Bytes of the disk that are left free."""

Read = Callable[[slice, slice], np.ndarray]
"""(positions, channels) -> impulse responses [positions, channels, N]."""


def response(
    path: str, stamp: tuple[int, int], positions: slice, index: int, shape: tuple[int, int], step: int, read: Read
) -> np.ndarray | None:
    """One impulse response of a block of positions, which is unpacked if it is not yet.

    Args:
        path: the SOFA file.
        stamp: time of its last change and its size.
        positions: the block.
        index: the position wanted, in the block.
        shape: (M, N), of a response.
        step: channels that are compressed together.
        read: decompresses.

    Returns:
        [M, N] float32; None where there is no place to keep it.
    """
    folder = _folder(os.environ.get("S5_CACHE"), os.environ.get("XDG_CACHE_HOME"))
    if folder is None:
        return None
    key = json.dumps([os.path.realpath(path), *stamp, positions.start, positions.stop])
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.f32"
    place = index - positions.start
    found = _read(file, place, shape)
    if found is None and _unpack(file, positions, shape, step, read):
        found = _read(file, place, shape)
    return found


def _read(file: Path, place: int, shape: tuple[int, int]) -> np.ndarray | None:
    n = shape[0] * shape[1]
    try:
        found = np.fromfile(file, np.float32, n, offset=4 * n * place)
    except OSError:
        return None
    return found.reshape(shape) if len(found) == n else None


def _unpack(file: Path, positions: slice, shape: tuple[int, int], step: int, read: Read) -> bool:
    """Writes a block under a temporary name, then renames it; several processes may do so at once."""
    n_channels, n = shape
    try:
        if not _make_room(file.parent, 4 * (positions.stop - positions.start) * n_channels * n):
            return False
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".partial.")
    except OSError as e:
        _complain(file.parent, e.strerror or str(e))
        return False
    try:
        with os.fdopen(handle, "wb", buffering=0) as out:
            for channel in range(0, n_channels, step):  # not all at once: of long responses that is a lot of memory
                some = slice(channel, min(channel + step, n_channels))
                block = np.ascontiguousarray(read(positions, some), dtype=np.float32)
                for place, responses in enumerate(block):
                    _write(out.fileno(), responses, 4 * n * (place * n_channels + channel))
        os.replace(temporary, file)
        return True
    except OSError as e:
        os.unlink(temporary)
        _complain(file.parent, e.strerror or str(e))
        return False
    except BaseException:
        os.unlink(temporary)
        raise


def _write(file: int, array: np.ndarray, offset: int) -> None:
    data = memoryview(array.tobytes())
    while data:
        done = os.pwrite(file, data, offset)
        data, offset = data[done:], offset + done


def _make_room(folder: Path, n_bytes: int) -> bool:
    """Removes the files that were used least recently until there is room; whether there is."""
    try:
        budget = float(os.environ.get("S5_CACHE_GB", DEFAULT_GB)) * 2**30
    except ValueError as e:
        raise InputError("S5_CACHE_GB", repr(os.environ["S5_CACHE_GB"]), "a number of GB") from e
    files = []
    for entry in os.scandir(folder):
        if entry.name.endswith(".f32"):
            stat = entry.stat()
            files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, entry.path))
    used = sum(size for _, size, _ in files)
    free = shutil.disk_usage(folder).free - KEPT_FREE
    for _, size, path in sorted(files):
        if used + n_bytes <= budget and n_bytes <= free:
            break
        os.unlink(path)
        used, free = used - size, free + size
    if used + n_bytes <= budget and n_bytes <= free:
        return True
    _complain(folder, f"{n_bytes >> 20} MB do not fit")
    return False


@cache
def _folder(chosen: str | None, caches: str | None) -> Path | None:
    if chosen == "off":
        return None
    try:
        folder = Path(chosen) if chosen else Path(caches or Path.home() / ".cache") / "s5"
        (folder / "rooms").mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as e:  # no home
        _complain(chosen or "~/.cache/s5", str(e))
        return None
    return folder / "rooms"


@cache
def _complain(folder: str | Path, reason: str) -> None:
    """Once a reason: it costs time, not scenes."""
    logging.warning(
        "%s: impulse responses are not kept unpacked (%s); S5_CACHE may name another folder", folder, reason
    )
