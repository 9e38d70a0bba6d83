"""What is kept between scenes: a cache with a budget in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Keeps what ``make`` returned as long as the sum of sizes stays within the budget; the least recently used leave.

    Args:
        budget: bytes.
        size: bytes of one entry.

    Example:
        >>> cache = ByteCache(10, len)
        >>> cache.get("a", lambda: "12345678"), cache.get("b", lambda: "123"), "a" in cache, "b" in cache
        ('12345678', '123', False, True)
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

    def resize(self, budget: int) -> None:
        """Sets another budget; what no longer fits leaves."""
        self.budget = budget
        self._shrink(budget)

    def _shrink(self, budget: int) -> None:
        while self.used > budget:
            self.used -= self._size(self._entries.popitem(last=False)[1])
