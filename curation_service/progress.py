"""A batch in numbers, for its watchers: a few times a second at most, once more when it is done, seldom while it rests.

The numbers are measured once for all who watch a batch in this process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from curation.v1 import curation_pb2 as pb
from curation_service.messages import progress_message
from shared.db.batches import Progress, read_progress
from shared.db.engine import Database
from shared.db.log import newest_position
from shared.errands import Errands

INTERVAL_S = 0.25
"""Between two measurements of a batch."""
LOOK_S = 30.0
"""A batch that stands still is measured so often: rows that are gone are an end of which no event tells."""
RATE_WINDOW_S = 5.0
"""The rate is that of the last so many seconds."""


Told: TypeAlias = Callable[[int, Progress], None]
"""Is called with a batch and its progress, when somebody is told of it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A batch at one moment."""

    message: pb.BatchProgress
    """What a watcher is told; `done` when the batch is."""
    began_s: float
    """When it was asked for, by the clock of the loop: what was committed before is in it."""
    done_at: int
    """Where the log was when the batch was first found done: who has read so far has all its events."""


class BatchMeter:
    """Measures one batch."""

    def __init__(self, *, database: Database, told: Told, resource: str, batch: int) -> None:
        self._database, self._told, self._resource, self._batch = database, told, resource, batch
        self._history: deque[tuple[float, int]] = deque()
        self._latest: Measurement | None = None
        self._asking = asyncio.Lock()

    async def measure(self) -> Measurement:
        """The numbers, no older than the interval. Raises `UnknownBatch`."""
        async with self._asking:
            began_s = asyncio.get_running_loop().time()
            if self._latest is None or began_s - self._latest.began_s >= INTERVAL_S:
                self._latest = await self._measured(began_s)
            return self._latest

    async def _measured(self, began_s: float) -> Measurement:
        async with self._database.transaction() as connection:
            progress = await read_progress(connection, self._batch, resource=self._resource)
            # After the numbers: an entry that they count is not missed.
            newest = await newest_position(connection)
        self._told(self._batch, progress)
        before = self._latest
        done_at = before.done_at if before is not None and before.message.done else newest
        return Measurement(self._message(progress, began_s), began_s, done_at)

    def _message(self, progress: Progress, now_s: float) -> pb.BatchProgress:
        ended = progress.completed + progress.failed + progress.dequeued
        self._history.append((now_s, ended))
        while self._history[0][0] < now_s - RATE_WINDOW_S:
            self._history.popleft()
        since_s, before = self._history[0]
        rate = (ended - before) / (now_s - since_s) if now_s > since_s else 0.0
        left = progress.queued + progress.processing
        end = datetime.now(UTC) + timedelta(seconds=left / rate) if rate and left and left / rate < 1e7 else None
        message = progress_message(self._batch, progress)
        message.rate_per_second = rate
        if end is not None:
            message.expected_end_time.FromDatetime(end)
        return message


class ProgressTurns:
    """When one watcher is told the numbers of its batch."""

    def __init__(self, meter: BatchMeter, errands: Errands) -> None:
        self._meter, self._errands = meter, errands
        self._told_s = self._changed_s = float("-inf")
        self._stale, self._done = True, False

    @property
    def due_s(self) -> float:
        """When the next numbers are due, by the clock of the loop; never when the batch is done and nothing changed."""
        if self._stale:
            return self._told_s + INTERVAL_S
        return float("inf") if self._done else self._told_s + LOOK_S

    async def check(self) -> None:
        """Raises `UnknownBatch`."""
        await self._errands.run(self._meter.measure)

    def invalidate(self) -> None:
        """Something has changed, or may have: earlier numbers are out of date."""
        self._stale, self._changed_s = True, asyncio.get_running_loop().time()

    async def due(self, *, changed: bool, position: int) -> pb.BatchProgress | None:
        """The numbers, when something changed and the last ones are old enough, or the batch stands still.

        They may be ahead of the events that the watcher has: `done` is said only once it has them all.
        """
        now_s = asyncio.get_running_loop().time()
        if changed:
            self.invalidate()
        if now_s < self.due_s:
            return None
        measured = await self._errands.run(self._meter.measure)
        behind = measured.message.done and position < measured.done_at
        self._told_s, self._done = now_s, measured.message.done
        self._stale = behind or measured.began_s < self._changed_s
        if not behind:
            return measured.message
        message = pb.BatchProgress()
        message.CopyFrom(measured.message)
        message.done = False
        return message


class Meters:
    """The meters of the batches that are watched."""

    def __init__(self, *, database: Database, told: Told, errands: Errands) -> None:
        self._database, self._told, self._errands = database, told, errands
        self._meters: dict[tuple[str, int], BatchMeter] = {}
        self._watchers: dict[tuple[str, int], int] = {}

    @contextmanager
    def watching(self, resource: str, batch: int | None) -> Iterator[ProgressTurns | None]:
        """One watcher's turns, for as long as it watches; None without a batch."""
        if batch is None:
            yield None
            return
        key = resource, batch
        meter = self._meters.setdefault(
            key, BatchMeter(database=self._database, told=self._told, resource=resource, batch=batch)
        )
        self._watchers[key] = self._watchers.get(key, 0) + 1
        try:
            yield ProgressTurns(meter, self._errands)
        finally:
            self._watchers[key] -= 1
            if not self._watchers[key]:
                del self._watchers[key], self._meters[key]
