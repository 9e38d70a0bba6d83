"""A cache with a budget in bytes, for data that several scenes use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Keeps entries while the sum of their sizes stays within a budget; the least recently used ones leave first.

    Args:
        budget: size of all entries in bytes.
        size: returns the size of an entry in bytes.

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
        """Entry of a key, made now if it is not cached. An entry larger than the whole budget is not kept."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        entry = make()
        size = self._size(entry)
        if size <= self.budget:
            # Room is made first, so the budget holds even when two threads make the same entry.
            self._shrink(self.budget - size)
            if key not in self._entries:
                self._entries[key] = entry
                self.used += size
        return entry

    def __contains__(self, key: Hashable) -> bool:
        """Whether the entry of a key is cached."""
        return key in self._entries

    def resize(self, budget: int) -> None:
        """Sets another budget; entries that no longer fit leave."""
        self.budget = budget
        self._shrink(budget)

    def _shrink(self, budget: int) -> None:
        while self.used > budget:
            self.used -= self._size(self._entries.popitem(last=False)[1])
