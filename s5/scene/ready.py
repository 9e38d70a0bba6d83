"""Prepared recordings and impulse responses, below a recipe's data folder, in the form that scenes read.

``<data>/.material/<rate>/`` holds, for scenes at that rate, data that would be costly to compute for every scene:

<name>.frames     frames of a compressed recording, [n, C] of the samples' type
<name>.source     recording of another rate, mixed down and resampled, [n] float32
<name>.room       impulse responses of a room as :func:`s5.scene.rendering.cpu.load_response` returns them: their
                  lengths [P] int32 without trailing zeros, then [P, M, N] float32

The files are arrays without a header, read by slice; the kernel's page cache keeps frequent ones in memory for all
processes. A name encodes the path, time and size of the original file, so a changed file gets a new name, and
``python -m s5.bin.simulate`` prepares it again (:mod:`s5.scene.prepare`). Anything missing is read from the original
file, so removing the folder costs time but changes no scene.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from s5.utils.errors import InputError

FOLDER = ".material"

Stamp = tuple[int, int]
"""Time of a file's last change (ns) and its size."""

Form = Literal["frames", "source", "room"]


def stamp_of(path: str, expected: str) -> Stamp:
    """Stamp of a file. Raises InputError, with ``expected``, if there is no file."""
    try:
        stat = os.stat(path)
    except OSError as e:
        raise InputError(path, "no file" if isinstance(e, FileNotFoundError) else e.strerror, expected) from e
    return stat.st_mtime_ns, stat.st_size


def folder_of(data: str | Path, rate: int) -> str:
    """Folder of the material for scenes at a rate (Hz), below the folder of the data directories."""
    return os.path.join(data, FOLDER, str(rate))


def file_of(folder: str, form: Form, path: str, stamp: Stamp) -> str:
    """Path of a file's content in a prepared form."""
    return f"{_stem(folder, os.path.abspath(path))}.{stamp[0]}.{stamp[1]}.{form}"


@lru_cache(100_000)
def _stem(folder: str, path: str) -> str:
    # The name encodes a relative path, so a recipe that was moved keeps its material.
    relative = os.path.relpath(path, folder)
    return os.path.join(folder, hashlib.sha256(os.fsencode(relative)).hexdigest()[:24])


def read(file: str, kind: str, start: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Array from byte ``start`` of a file; None if the file is missing or too short."""
    count = int(np.prod(shape))
    try:
        found = np.fromfile(file, kind, count, offset=start)
    except OSError:
        return None
    return found.reshape(shape) if len(found) == count else None
