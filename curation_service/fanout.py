"""Who must be told of what: the index from items and batches to the watchers that wait for them.

An entry of the log wakes those whom it concerns and nobody else; how many others there are costs it nothing. A watcher
keeps no queue: it remembers where the first entry that concerns it stands, and reads from there when its client is
ready for more, from memory or, when that takes too long, from the table. So a slow one holds nothing and slows nobody.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

from curation_service.watch_request import WatchRequest
from shared.db.log import STATE, Entry
from shared.db.tail import Tail
from shared.lifecycle import Part

INDEXED_MAX = 1_000
"""A watcher of more items is not indexed, which would take more room: it looks through each entry of its resource."""
_Key = TypeVar("_Key", int, str)


class Waiter:
    """One watcher's place in the index."""

    def __init__(self, fanout: Fanout, watch: WatchRequest) -> None:
        self.skip_progress = watch.skip_progress
        self.through = fanout.position
        """Up to here the watcher reads before it asks for news."""
        self._fanout = fanout
        self._first: int | None = None
        self._bell: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def news(self, position: int, until_s: float) -> int:
        """Waits for something behind a position, or until a time of the loop, or a drain.

        Returns where to go on reading, up to `through`: what is skipped does not concern the watcher.
        """
        if position < self.through:
            return position
        if self._first is None and not self._fanout.draining.is_set():
            await self._rung(until_s)
        reached = self._fanout.position if self._first is None else self._first - 1
        self._first, self.through = None, self._fanout.position
        return max(position, reached)

    def tell(self, position: int) -> None:
        """There is something at a position."""
        if self._first is None:
            self._first = position
            self.ring()

    def ring(self) -> None:
        """Ends its wait."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def close(self) -> None:
        """It waits no more."""
        if self._alarm is not None:
            self._alarm.cancel()

    async def _rung(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        # An alarm that is set already may ring early, which only costs a look: a new one for each event costs more.
        if self._alarm is None or self._alarm.when() > until_s:
            self.close()
            self._alarm = loop.call_at(until_s, self._on_alarm)
        self._bell = loop.create_future()
        try:
            await self._bell
        finally:
            self._bell = None

    def _on_alarm(self) -> None:
        self._alarm = None
        self.ring()


class Interests:
    """The index of one resource."""

    def __init__(self) -> None:
        self._any: set[Waiter] = set()
        self._items: dict[str, set[Waiter]] = {}
        self._batches: dict[int, set[Waiter]] = {}

    def add(self, watch: WatchRequest, waiter: Waiter) -> None:
        """Enters a watcher."""
        if watch.batch is not None:
            self._batches.setdefault(watch.batch, set()).add(waiter)
        elif watch.items is not None and len(watch.items) <= INDEXED_MAX:
            for item in watch.items:
                self._items.setdefault(item, set()).add(waiter)
        else:
            self._any.add(waiter)

    def remove(self, watch: WatchRequest, waiter: Waiter) -> None:
        """Takes a watcher out."""
        self._any.discard(waiter)
        if watch.batch is not None:
            _take_out(self._batches, watch.batch, waiter)
        for item in watch.items or ():
            _take_out(self._items, item, waiter)

    def tell(self, entries: Sequence[Entry]) -> None:
        """Tells all whom one of these entries concerns; the position of the first is enough."""
        # Whoever wants everything is told once, however many the entries are.
        first = entries[0].position
        first_change = next((entry.position for entry in entries if entry.kind != "progress"), None)
        for waiter in self._any:
            position = first_change if waiter.skip_progress else first
            if position is not None:
                waiter.tell(position)
        for entry in entries:
            for waiter in self.waiters() if entry.kind == STATE else self._concerned(entry):
                if not (waiter.skip_progress and entry.kind == "progress"):
                    waiter.tell(entry.position)

    def waiters(self) -> Iterator[Waiter]:
        """All waiters; one that waits for several items comes several times."""
        return chain(self._any, *self._items.values(), *self._batches.values())

    def _concerned(self, entry: Entry) -> Iterator[Waiter]:
        if self._batches:
            for batch in entry.batches:
                yield from self._batches.get(batch, ()) if batch is not None else ()
        if self._items:
            for item in entry.items:
                yield from self._items.get(item, ())


class Fanout(Part):
    """Follows the tail, and wakes."""

    def __init__(self, *, tail: Tail, draining: asyncio.Event) -> None:
        """`draining` is set when the service stops; then all are woken, and wait no more."""
        super().__init__()
        self.draining = draining
        self.position = 0
        """Everybody has been told of everything up to here."""
        self._tail = tail
        self._interests: defaultdict[str, Interests] = defaultdict(Interests)

    @contextmanager
    def waiting(self, watch: WatchRequest) -> Iterator[Waiter]:
        """A place in the index for as long as the watch lasts."""
        waiter, interests = Waiter(self, watch), self._interests[watch.workflow.resource]
        interests.add(watch, waiter)
        try:
            yield waiter
        finally:
            interests.remove(watch, waiter)
            waiter.close()

    async def _run(self) -> None:
        self.position = self._tail.position
        self.ready()
        await self.work_until_stopped(self._follow(), self._drain())

    async def _follow(self) -> None:
        while True:
            before = self.position
            await self._tail.moved(before)
            reading = self._tail.recent(before)
            if reading is None:
                # More came at once than the memory holds: every watcher reads for itself.
                self.position = self._tail.position
                for waiter in self._waiters():
                    waiter.tell(before + 1)
                continue
            by_resource: defaultdict[str, list[Entry]] = defaultdict(list)
            for entry in reading.entries:
                by_resource[entry.resource].append(entry)
            self.position = reading.position
            for resource, entries in by_resource.items():
                if resource in self._interests:
                    self._interests[resource].tell(entries)

    async def _drain(self) -> None:
        await self.draining.wait()
        for waiter in self._waiters():
            waiter.ring()

    def _waiters(self) -> Iterator[Waiter]:
        return chain.from_iterable(interests.waiters() for interests in self._interests.values())


def _take_out(index: dict[_Key, set[Waiter]], key: _Key, waiter: Waiter) -> None:
    waiters = index.get(key)
    if waiters is not None:
        waiters.discard(waiter)
        if not waiters:
            del index[key]
