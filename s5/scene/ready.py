"""Recordings and impulse responses in the form that scenes read them, below a recipe's data folder.

``<data>/.material/<rate>/`` holds, for scenes at that rate, what would be costly to make anew for each of them:

<name>.frames     the frames of a compressed recording, [n, C] of the samples' type
<name>.source     a recording of another rate, mixed down and resampled, [n] float32
<name>.room       a room's impulse responses as :func:`s5.scene.rendering.cpu.load_response` gives them: the lengths
                  [P] int32 without trailing zeros, then [P, M, N] float32

These are arrays without a header, read by slice: the system keeps in memory what is used often, once for all processes.
A name stands for a path, and for the time and size of the file there: what changed is not found, and made again by the
next ``python -m s5.bin.simulate`` (:mod:`s5.scene.prepare`). What is not there is read from the file itself, so the
folder may be removed; it costs time, not scenes.
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
    """A file's stamp. Raises InputError where there is no file; ``expected`` says what it should be."""
    try:
        stat = os.stat(path)
    except OSError as e:
        raise InputError(path, "no file" if isinstance(e, FileNotFoundError) else e.strerror, expected) from e
    return stat.st_mtime_ns, stat.st_size


def folder_of(data: str | Path, rate: int) -> str:
    """Where the material for scenes at a rate (Hz) lies below the folder of the data directories."""
    return os.path.join(data, FOLDER, str(rate))


def file_of(folder: str, form: Form, path: str, stamp: Stamp) -> str:
    """Where a file's content lies in a form."""
    return f"{_stem(folder, os.path.abspath(path))}.{stamp[0]}.{stamp[1]}.{form}"


@lru_cache(100_000)
def _stem(folder: str, path: str) -> str:
    # Relative, so that a recipe that was moved keeps its material.
    relative = os.path.relpath(path, folder)
    return os.path.join(folder, hashlib.sha256(os.fsencode(relative)).hexdigest()[:24])


def read(file: str, kind: str, start: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """An array of a shape from byte ``start`` of a file; None where the file is missing or short."""
    count = int(np.prod(shape))
    try:
        found = np.fromfile(file, kind, count, offset=start)
    except OSError:
        return None
    return found.reshape(shape) if len(found) == count else None
