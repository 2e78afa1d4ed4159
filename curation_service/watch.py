"""One stream of `WatchStatus`: a snapshot, then committed changes in order, a batch in numbers, and heartbeats.

What keeps workers from claiming is told at the start, and in its place among the changes whenever it has changed.

Between the snapshot and what follows there is neither gap nor overlap: the changes start at a position that is
surely in the snapshot, and each later entry is skipped exactly when the snapshot saw its transaction.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from functools import partial

from curation.v1 import curation_pb2 as pb
from curation_service.event_frames import EventFrames, Frame, event_messages, with_token
from curation_service.fanout import Fanout, Waiter
from curation_service.matches import Matches
from curation_service.progress import Meters, ProgressTurns, Told
from curation_service.requests import read_off_loop
from curation_service.snapshot import Snapshots, Visible
from curation_service.states import States
from curation_service.watch_request import WatchRequest, read_watch
from shared.db.engine import Database
from shared.db.log import STATE, Entry, check_reaches
from shared.db.ring import Reading
from shared.db.tail import Tail
from shared.db.token import encode_token
from shared.errands import Errands
from shared.errors import ServerStopping
from shared.registry import Registry

AGES = (0.8, 1.0)
"""A stream ends at an age drawn between these parts of the greatest: those that began together do not end together."""


class Watch:
    """Makes streams; their messages come serialised, since many of them are the same for many watchers."""

    def __init__(
        self,
        *,
        database: Database,
        tail: Tail,
        fanout: Fanout,
        errands: Errands,
        snapshots: Snapshots,
        registry: Registry,
        heartbeat_s: float,
        age_max_s: float,
        items_max: int,
        told: Told,
    ) -> None:
        """`told` is said whenever a watcher hears how far a batch is."""
        self._database, self._tail, self._fanout, self._errands = database, tail, fanout, errands
        self._snapshots, self._registry = snapshots, registry
        self._heartbeat_s, self._age_max_s, self._items_max = heartbeat_s, age_max_s, items_max
        self._frames = EventFrames()
        self._matches = Matches(database=database, errands=errands)
        self._meters = Meters(database=database, told=told, errands=errands)
        self._states = States(database=database, errands=errands, registry=registry)
        self._dice = random.Random()  # noqa: S311 - no secret

    async def stream(self, request: pb.WatchStatusRequest) -> AsyncGenerator[bytes, None]:
        """The messages of one watcher.

        Raises:
            InvalidRequest, UnknownResource, TokenInvalid: as `read_watch`.
            UnknownBatch: the resource has no such batch.
            TokenExpired: the log no longer reaches back to the token.
            ServerStopping: the service stops, or the stream is old enough; the last token goes on elsewhere.
            DatabaseUnavailable: it could not be asked.
        """
        read = partial(read_watch, request, self._registry, log=self._tail.log_id, items_max=self._items_max)
        watch = await read_off_loop(read, request)
        resource = watch.workflow.resource
        with self._meters.watching(resource, watch.batch) as turns, self._fanout.waiting(watch) as waiter:
            if turns is not None:
                await turns.check()
            position, seen = self._tail.position, None
            if watch.after is not None:
                position = watch.after
                await self._errands.run(partial(self._check_reaches, position))
            elif not watch.skip_snapshot:
                async with self._snapshots.taken(watch) as snapshot:
                    seen = snapshot.visible
                    for message in snapshot.messages():
                        self._raise_if_ending()
                        yield message
                    end = pb.SnapshotEnd(item_count=snapshot.item_count)
                yield pb.WatchStatusResponse(snapshot_end=end).SerializeToString()
            token = "" if seen else encode_token(self._tail.log_id, position)
            yield await self._states.part(watch.workflow) + with_token(token)
            async with aclosing(self._changes(watch, position, seen, waiter, turns)) as changes:
                async for message in changes:
                    yield message

    async def _changes(
        self, watch: WatchRequest, position: int, seen: Visible | None, waiter: Waiter, turns: ProgressTurns | None
    ) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        ends_at_s = clock() + self._age_max_s * self._dice.uniform(*AGES)
        spoke_at_s = clock() if seen else float("-inf")  # a stream that may have a token brings one at once
        if turns is not None:
            turns.invalidate()  # what has changed before this, and is in the snapshot, comes as no event
        while True:
            entries: Sequence[Entry] = ()
            if position < waiter.through:
                reading = await self._read(position)
                entries = [e for e in reading.entries if watch.concerns(e) and not (seen and e.xid in seen)]
                position = reading.position
            moved = any(entry.kind != STATE for entry in entries)
            if (changed := _last_change_of_state(entries)) is not None:
                before = [entry for entry in entries if entry.position < changed]
                for message in event_messages(await self._chosen(watch, before), self._token(changed - 1, seen)):
                    yield message
                yield await self._states.part(watch.workflow) + with_token(self._token(changed, seen))
                entries = [entry for entry in entries if entry.position > changed]
            token = self._token(position, seen)
            if seen and token:
                seen, spoke_at_s = None, float("-inf")  # all that the snapshot may contain has been passed
            for message in event_messages(await self._chosen(watch, entries), token):
                spoke_at_s = clock()
                yield message
            if turns is not None and (progress := await turns.due(changed=moved, position=position)):
                spoke_at_s = clock()
                yield pb.WatchStatusResponse(progress=progress, resume_token=token).SerializeToString()
                if progress.done and watch.end_when_done:
                    return
            if clock() - spoke_at_s >= self._heartbeat_s:
                spoke_at_s = clock()
                yield pb.WatchStatusResponse(heartbeat=pb.Heartbeat(), resume_token=token).SerializeToString()
            self._raise_if_ending(until_s=ends_at_s)
            due_at_s = min(ends_at_s, spoke_at_s + self._heartbeat_s)
            position = await waiter.news(position, due_at_s if turns is None else min(due_at_s, turns.due_s))

    def _raise_if_ending(self, until_s: float = float("inf")) -> None:
        """Raises `ServerStopping` when the service stops, or once `until_s` of the loop's clock is past."""
        if self._fanout.draining.is_set() or asyncio.get_running_loop().time() >= until_s:
            raise ServerStopping("the stream ends here: go on elsewhere with the last resume token")

    def _token(self, position: int, seen: Visible | None) -> str:
        """A token; none while the snapshot may contain what comes: a resumed stream would repeat it."""
        return "" if seen and position < seen.through else encode_token(self._tail.log_id, position)

    async def _read(self, position: int) -> Reading:
        recent = self._tail.recent(position)
        return await self._errands.run(partial(self._tail.read, position)) if recent is None else recent

    async def _chosen(self, watch: WatchRequest, entries: Sequence[Entry]) -> Iterator[Frame]:
        """The events of those items that the watcher asked for; made one by one, as they are sent."""
        if watch.items is not None:
            return self._frames.of_items(entries, watch.items)
        if watch.condition is not None and entries:
            return self._frames.at_indexes(entries, await self._matches.of(watch, entries))
        return self._frames.all_of(entries)

    async def _check_reaches(self, position: int) -> None:
        async with self._database.transaction() as connection:
            await check_reaches(connection, position)


def _last_change_of_state(entries: Sequence[Entry]) -> int | None:
    """The position of the last one, which will do: what the state is by then, is read when it is told."""
    return next((entry.position for entry in reversed(entries) if entry.kind == STATE), None)
