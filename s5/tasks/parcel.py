"""Transfer of batches from the data loader's workers to the training, without /dev/shm.

Torch writes each tensor to a file in /dev/shm. Containers often limit /dev/shm to 64 MB, and a worker then dies of a
bus error. Here a batch is one unnamed file in memory, which the training maps without a copy.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch

from s5.utils.parallel import file_in_memory

ALIGNMENT = 64
"""Alignment of an array in bytes, as torch aligns its own memory: kernels may round differently otherwise."""


class NotHandedOver(ChildProcessError):
    """Raised if a worker ended, or ran out of file descriptors, before it handed over its batch."""

    def __init__(self) -> None:
        reason = "a worker of the data loader handed over no batch: found its connection closed, expected an open file"
        super().__init__(errno.ECHILD, f"{reason} (ulimit -n may be too low)")


class Parcel:
    """A packed object: unpickling a parcel in another process returns its content.

    Tensors and arrays are not copied through a pipe. The pickled parcel has some hundred bytes for any content, so a
    pipe takes it in one write, even if a process is killed.

    Args:
        content: any object that can be pickled.

    Raises:
        OSError: no memory, or no further file descriptor.
    """

    def __init__(self, content: Any) -> None:
        arrays: list[pickle.PickleBuffer] = []
        pickled = io.BytesIO()
        _Pickler(pickled, 5, buffer_callback=arrays.append).dump(content)
        parts = [pickled.getbuffer(), *(array.raw() for array in arrays)]
        self.sizes = [len(part) for part in parts]
        self.file = file_in_memory()
        with open(self.file.fileno(), "wb", closefd=False) as f:
            for part in parts:
                f.write(part)
                f.write(bytes(-len(part) % ALIGNMENT))

    def __reduce__(self) -> tuple[Any, ...]:
        handed_on = DupFd(self.file.fileno())
        self.file.close()
        return _unpack, (handed_on, self.sizes)


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        """Pickles tensors as arrays, whose bytes stay out of the pickle."""
        if isinstance(thing, torch.Tensor):
            return torch.from_numpy, (np.ascontiguousarray(thing.numpy()),)
        return NotImplemented


def _unpack(handed_on: Any, sizes: list[int]) -> Any:
    try:
        file = handed_on.detach()
    except (EOFError, ConnectionError) as e:
        raise NotHandedOver from e
    try:
        memory = memoryview(mmap.mmap(file, 0))
    finally:
        os.close(file)
    parts, start = [], 0
    for size in sizes:
        parts.append(memory[start : start + size])
        start += size + -size % ALIGNMENT
    pickled, *arrays = parts
    return pickle.loads(pickled, buffers=arrays)  # noqa: S301  # written by our own worker
