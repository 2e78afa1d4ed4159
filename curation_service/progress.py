"""A batch in numbers, for its watchers: a few times a second at most, and always once more when it is done."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta

from curation.v1 import curation_pb2 as pb
from curation_service.convert import progress_message
from shared.db.batches import Progress, read_progress
from shared.db.engine import Database

INTERVAL_S = 0.25
"""Between two measurements of one watcher."""
RATE_WINDOW_S = 5.0
"""The rate is that of the last so many seconds."""


class ProgressMeter:
    """Measures one batch for one watcher."""

    def __init__(self, *, database: Database, batch: int) -> None:
        self._database, self._batch = database, batch
        self._history: deque[tuple[float, int]] = deque()
        self._measured_at_s = float("-inf")
        self._stale = True
        self._done_at: int | None = None

    @property
    def pause_s(self) -> float:
        """Until the next measurement is due; infinite when nothing changed since the last."""
        if not self._stale:
            return float("inf")
        return max(0.0, self._measured_at_s + INTERVAL_S - asyncio.get_running_loop().time())

    async def measure(self) -> Progress:
        """The numbers now. Raises `UnknownBatch`."""
        async with self._database.transaction() as connection:
            return await read_progress(connection, self._batch)

    async def due(self, *, changed: bool, position: int) -> pb.BatchProgress | None:
        """The numbers, when something changed and the last ones are old enough.

        The numbers may be ahead of the events that the watcher has: `done` is said only once it has them all.
        """
        self._stale = self._stale or changed
        now_s = asyncio.get_running_loop().time()
        if not self._stale or now_s - self._measured_at_s < INTERVAL_S:
            return None
        async with self._database.transaction() as connection:
            progress = await read_progress(connection, self._batch)
            row = await (await connection.execute("SELECT last_value FROM status_event_position")).fetchone()
        assert row is not None
        self._measured_at_s = now_s
        if progress.done and self._done_at is None:
            self._done_at = row[0]
        behind = progress.done and self._done_at is not None and position < self._done_at
        self._stale = behind
        return self._message(progress, now_s, done=progress.done and not behind)

    def _message(self, progress: Progress, now_s: float, *, done: bool) -> pb.BatchProgress:
        ended = progress.completed + progress.failed + progress.dequeued
        self._history.append((now_s, ended))
        while self._history[0][0] < now_s - RATE_WINDOW_S:
            self._history.popleft()
        since_s, before = self._history[0]
        rate = (ended - before) / (now_s - since_s) if now_s > since_s else 0.0
        left = progress.queued + progress.processing
        end = datetime.now(UTC) + timedelta(seconds=left / rate) if rate and left and left / rate < 1e7 else None
        message = progress_message(self._batch, progress)
        message.done, message.rate_per_second = done, rate
        if end is not None:
            message.expected_end_time.FromDatetime(end)
        return message
