"""A cache bounded by the size of its values, not by their number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key; the least recently used one goes first."""

    def __init__(self, size_max: int, size_of: Callable[[V], int]) -> None:
        """`size_max` bounds the sum of what `size_of` says of each value."""
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size_max, self._size_of = size_max, size_of
        self.size = 0
        """The size of all values together."""

    def get(self, key: K) -> V | None:
        """The value, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Adds or replaces a value; the newest one stays however large it is."""
        if (replaced := self._values.pop(key, None)) is not None:
            self.size -= self._size_of(replaced)
        self._values[key] = value
        self.size += self._size_of(value)
        while self.size > self._size_max and len(self._values) > 1:
            self.size -= self._size_of(self._values.popitem(last=False)[1])
