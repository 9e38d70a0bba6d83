"""What is kept between scenes: a cache with a budget in bytes, and arrays that forked processes share."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import IO, Generic, TypeVar

import numpy as np

from s5.parallel import file_in_memory

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Keeps what ``make`` returned as long as the sum of sizes stays within the budget; the least recently used leave.

    Args:
        budget: bytes.
        size: bytes of one entry.

    Example:
        >>> cache = ByteCache(10, len)
        >>> cache.get("a", lambda: "12345678"), cache.get("b", lambda: "123"), list(cache.keys())
        ('12345678', '123', ['b'])
    """

    def __init__(self, budget: int, size: Callable[[T], int]) -> None:
        self.budget, self.used = budget, 0
        self._size = size
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of a key, made now if it is not there. An entry above the whole budget is not kept."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        entry = make()
        size = self._size(entry)
        if size <= self.budget:
            # Room first, so that no more than the budget is ever held (by two threads that make the same entry, too).
            self._shrink(self.budget - size)
            if key not in self._entries:
                self._entries[key] = entry
                self.used += size
        return entry

    def __contains__(self, key: Hashable) -> bool:
        """Whether the entry of a key is there."""
        return key in self._entries

    def keys(self) -> list[Hashable]:
        """Keys, least recently used first."""
        return list(self._entries)

    def resize(self, budget: int) -> None:
        """Sets another budget; what no longer fits leaves."""
        self.budget = budget
        self._shrink(budget)

    def _shrink(self, budget: int) -> None:
        while self.used > budget:
            self.used -= self._size(self._entries.popitem(last=False)[1])


class SharedArrays:
    """Arrays in an unnamed file in memory: written by one process, read by it and by all that are forked from it.

    Nothing is mapped into a process: a stretch is copied out of the file when it is asked for. So the arrays take their
    place in memory once, however many processes read them, and count for none of them. What a process adds after the
    fork is its own affair: it must not add.

    Args:
        budget: bytes.

    Example:
        >>> shared = SharedArrays(1000)
        >>> shared.add("a", np.arange(6, dtype=np.int16).reshape(3, 2))
        True
        >>> shared.read("a", 1, 2).tolist(), shared.read("b"), shared.used
        ([[2, 3], [4, 5]], None, 12)
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._places: dict[Hashable, tuple[int, tuple[int, ...], np.dtype]] = {}
        self._file: IO[bytes] | None = None
        self._pid = os.getpid()

    def add(self, key: Hashable, array: np.ndarray) -> bool:
        """Adds an array unless that would exceed the budget; says whether it is there now."""
        if key in self._places:
            return True
        if self.used + array.nbytes > self.budget or os.getpid() != self._pid:
            return False
        if self._file is None:
            self._file = file_in_memory()
        data = memoryview(np.ascontiguousarray(array).tobytes())
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), data[done:], self.used + done)
        self._places[key] = self.used, array.shape, array.dtype
        self.used += array.nbytes
        return True

    def read(self, key: Hashable, start: int = 0, count: int | None = None) -> np.ndarray | None:
        """``count`` rows of an array from row ``start`` on, as a copy; None where there is no such array."""
        place = self._places.get(key)
        if place is None or self._file is None:
            return None
        offset, shape, kind = place
        count = max(0, min(shape[0] - start, shape[0] if count is None else count))
        out = np.empty((count, *shape[1:]), kind)
        data = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # numpy's buffers suit it
        offset += start * (out[:1].nbytes if count else 0)
        done = 0
        while done < len(data):
            done += os.preadv(self._file.fileno(), [data[done:]], offset + done)
        return out

    def __contains__(self, key: Hashable) -> bool:
        """Whether the array of a key is there."""
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Gives everything up, in this process; forked ones keep theirs. The budget is then 0."""
        if self._file is not None:
            self._file.close()
        self._file, self._places, self.used, self.budget = None, {}, 0, 0
        self._pid = os.getpid()
