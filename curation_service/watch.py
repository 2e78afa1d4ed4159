"""One stream of `WatchStatus`: a snapshot, then committed changes in order, a batch in numbers, and heartbeats.

Between the snapshot and what follows there is neither gap nor overlap: the changes start at a position that is
surely in the snapshot, and each later entry is skipped exactly when the snapshot saw its transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from sqlalchemy import select

from curation.v1 import curation_pb2 as pb
from curation_service.convert import event_message, item_reader
from curation_service.progress import ProgressMeter
from curation_service.snapshot import Visible, matching, snapshot_rows, visible
from curation_service.watch_request import WatchRequest, read_watch
from shared.db.engine import Database
from shared.db.log import Entry, check_reaches
from shared.db.models import status_batch
from shared.db.tail import Tail
from shared.db.token import encode_token
from shared.errors import ServerStopping
from shared.registry import Registry

EVENTS_SIZE = 2_000
"""Events of a message, at most: some 300 kB, far from the 4 MB that clients take by default."""


class Watch:
    """Makes streams."""

    def __init__(
        self,
        *,
        database: Database,
        tail: Tail,
        registry: Registry,
        draining: asyncio.Event,
        heartbeat_s: float,
        age_max_s: float,
        items_max: int,
    ) -> None:
        self._database, self._tail, self._registry, self._draining = database, tail, registry, draining
        self._heartbeat_s, self._age_max_s, self._items_max = heartbeat_s, age_max_s, items_max

    async def stream(self, request: pb.WatchStatusRequest) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        """The messages of one watcher.

        Raises:
            TokenExpired: the log no longer reaches back to the token.
            ServerStopping: the service stops, or the stream is old enough; the last token goes on elsewhere.
        """
        watch = read_watch(request, self._registry, log=self._tail.log_id, items_max=self._items_max)
        meter = None if watch.batch is None else ProgressMeter(database=self._database, batch=watch.batch)
        if meter is not None:
            await meter.measure()
        seen: Visible | None = None
        if watch.after is not None:
            position = watch.after
            async with self._database.transaction() as connection:
                await check_reaches(connection, position)
        else:
            position = self._tail.position
            if not watch.skip_snapshot:
                async with self._database.core(isolation="REPEATABLE READ") as connection:
                    seen, count, read = await visible(connection), 0, item_reader(watch.workflow)
                    async with aclosing(snapshot_rows(connection, watch)) as chunks:
                        async for rows in chunks:
                            count += len(rows)
                            yield pb.WatchStatusResponse(snapshot=pb.ItemsSnapshot(items=map(read, rows)))
                yield pb.WatchStatusResponse(snapshot_end=pb.SnapshotEnd(item_count=count))
        async with aclosing(self._changes(watch, position, seen, meter)) as changes:
            async for message in changes:
                yield message

    async def _changes(
        self, watch: WatchRequest, position: int, seen: Visible | None, meter: ProgressMeter | None
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self._age_max_s
        spoke_at_s = float("-inf")  # the first message, if only a heartbeat, brings a token at once
        while True:
            reading = await self._tail.read(position)
            entries = [e for e in reading.entries if watch.concerns(e) and not (seen and e.xid in seen)]
            position = reading.position
            # While the snapshot may contain what comes, a token would make a resumed stream repeat it.
            token = "" if seen and position < seen.through else encode_token(self._tail.log_id, position)
            async for message in self._event_messages(watch, entries, token):
                spoke_at_s = loop.time()
                yield message
            if meter is not None and (progress := await meter.due(changed=bool(entries), position=position)):
                spoke_at_s = loop.time()
                yield pb.WatchStatusResponse(progress=progress, resume_token=token)
                if progress.done and watch.end_when_done:
                    return
            if token and loop.time() - spoke_at_s >= self._heartbeat_s:
                spoke_at_s = loop.time()
                yield pb.WatchStatusResponse(heartbeat=pb.Heartbeat(), resume_token=token)
            if self._draining.is_set() or loop.time() >= ends_at_s:
                raise ServerStopping("the stream ends here: go on elsewhere with the last resume token")
            if position >= self._tail.position:
                # Without a token there is no heartbeat to wait for.
                due_at_s = min(ends_at_s, spoke_at_s + self._heartbeat_s) if token else ends_at_s
                pause_s = due_at_s - loop.time()
                await self._news(position, pause_s if meter is None else min(pause_s, meter.pause_s))

    async def _event_messages(
        self, watch: WatchRequest, entries: Sequence[Entry], token: str
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """The events of whole transactions; only the last message has the token, so that none is ever split."""
        if not entries:
            return
        wanted = await self._wanted(watch, entries)
        reasons = await self._reasons(entries)
        events: list[pb.StatusEvent] = []
        for entry in entries:
            for index in range(len(entry.items)) if wanted is None else entry.indexes_of(wanted):
                if len(events) >= EVENTS_SIZE:
                    yield pb.WatchStatusResponse(events=pb.StatusEvents(events=events))
                    events = []
                events.append(event_message(entry, index, reason=reasons.get(entry.cause or 0, "")))
        if events:
            yield pb.WatchStatusResponse(events=pb.StatusEvents(events=events), resume_token=token)

    async def _wanted(self, watch: WatchRequest, entries: Sequence[Entry]) -> frozenset[str] | None:
        if watch.keys is not None:
            return frozenset(map(str, watch.keys))
        if watch.condition is None:
            return None
        keys = {key for entry in entries for key in entry.items}
        async with self._database.core() as connection:
            return await matching(connection, watch, keys)

    async def _reasons(self, entries: Sequence[Entry]) -> dict[int, str]:
        causes = {entry.cause for entry in entries if entry.cause is not None}
        if not causes:
            return {}
        statement = select(status_batch.c.id, status_batch.c.reason).where(status_batch.c.id.in_(causes))
        async with self._database.core() as connection:
            return {row.id: row.reason for row in await connection.execute(statement)}

    async def _news(self, position: int, seconds: float) -> None:
        """Returns when there is something behind the position, when the service drains, or after so many seconds."""
        waiting = [asyncio.ensure_future(self._tail.moved(position)), asyncio.ensure_future(self._draining.wait())]
        try:
            await asyncio.wait(waiting, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
