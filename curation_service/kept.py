"""What was made and may be asked for again: the newest of it, as much as there is room for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, those that were not asked for the longest given up first."""

    def __init__(self, size_max: int, size_of: Callable[[V], int]) -> None:
        """At most so much is kept, by the size that `size_of` says a value has."""
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size_max, self._size_of = size_max, size_of
        self.size = 0
        """Of all that is kept."""

    def get(self, key: K) -> V | None:
        """The value, or None where it is not kept."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: K, value: V) -> None:
        """Keeps a value, in the place of one that has its key; the last one in any case, however large."""
        if (replaced := self._values.pop(key, None)) is not None:
            self.size -= self._size_of(replaced)
        self._values[key] = value
        self.size += self._size_of(value)
        while self.size > self._size_max and len(self._values) > 1:
            self.size -= self._size_of(self._values.popitem(last=False)[1])
