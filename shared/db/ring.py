"""The newest part of the log, in memory, for all watchers of a process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from shared.db.log import Entry

SLACK = 1.1
"""The memory may exceed its bound by so much: then it is cut back at once, not a little with each entry."""
ENTRY_WEIGHT = 8
"""An entry takes as much memory, beside its items, as so many of them: 1,050 bytes and 140 for each item."""
ITEMS_AT_ONCE = 2_500
"""What a watcher gets at once, in items: so one that is blocked half-way keeps little of what has left the memory."""

_position = attrgetter("position")


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of the log, whole transactions, in order."""

    entries: Sequence[Entry]
    position: int
    """Everything up to here has been read."""


class Ring:
    """Entries in (floor, position], the oldest of which make room for the newest."""

    def __init__(self, *, items_max: int) -> None:
        """`items_max` bounds it, in items of entries; an entry itself counts as `ENTRY_WEIGHT` more."""
        self._items_max = items_max
        self._entries: list[Entry] = []
        self._weight = 0
        self.floor = 0
        """Who has read less than up to this position must read the table."""
        self.position = 0
        """Everything up to here has been added."""

    def begin(self, position: int) -> None:
        """Says where the log is; nothing before that is in memory."""
        self._entries.clear()
        self._weight = 0
        self.floor = self.position = position

    def add(self, reading: Reading) -> None:
        """Adds what follows."""
        self._entries.extend(reading.entries)
        self._weight += sum(map(_weight, reading.entries))
        self.position = reading.position
        if self._weight > self._items_max * SLACK:
            self._cut()

    def read(self, after: int) -> Reading:
        """What follows a position that is not before the floor, up to `ITEMS_AT_ONCE` or one transaction."""
        start = bisect_right(self._entries, after, key=_position)
        end, items = start, 0
        while end < len(self._entries) and items < ITEMS_AT_ONCE:
            items += len(self._entries[end].items) or 1
            end += 1
        if end == len(self._entries):
            return Reading(self._entries[start:], max(after, self.position))
        last = self._entries[end - 1].position
        end = bisect_right(self._entries, last, lo=end, key=_position)
        return Reading(self._entries[start:end], last)

    def _cut(self) -> None:
        gone = 0
        while self._weight > self._items_max:
            self._weight -= _weight(self._entries[gone])
            gone += 1
        # What is left of a transaction whose first entries are gone lies at the floor: nobody is given a half.
        self.floor = self._entries[gone - 1].position
        del self._entries[:gone]


def _weight(entry: Entry) -> int:
    return ENTRY_WEIGHT + len(entry.items)
