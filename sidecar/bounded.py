"""A memory that cannot grow: what has not been used or put for the longest goes when there is no more room.

On ``OrderedDict``, whose moves are done in C; each look into a ``cachetools.LRUCache`` is Python.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedMemory(Generic[K, V]):
    """Keeps at most so many entries.

    Args:
        most: entries that are kept.
    """

    __slots__ = ("_entries", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return what was put; its place in the row stays, so that entries go in the order in which they were put."""
        return self._entries.get(key)

    def use(self, key: K) -> V | None:
        """Return what was put, which is the last to go from now on."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep an entry as the last to go; one too many goes."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def oldest(self) -> tuple[K, V] | None:
        """Return the entry that is the first to go."""
        return next(iter(self._entries.items()), None)

    def values(self) -> Iterable[V]:
        """Return what is kept."""
        return self._entries.values()

    def drop(self, key: K) -> None:
        """Forget one entry, if there is one."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
