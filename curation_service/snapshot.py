"""The snapshot that a watch starts with, and what tells which log entries it already contains.

It is read at the speed of the database and sent at the speed of the client. In between it lies, ready to be sent, in a
file that has no name and goes with its stream. So the transaction, which keeps vacuum from its work while it is open,
and its connection last for seconds however slow the client is, and the snapshot is still of one moment: it never shows
half of a commit. Reading by pages, each in a transaction of its own, would need no file, but would show such halves,
and would have to know the order in which the database keeps keys of any type. The files of all streams together have a
bound; a watcher whose snapshot does not fit is told to try again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any

from psycopg import sql
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from curation.v1 import curation_pb2 as pb
from curation_service.event_frames import MESSAGE_BYTES
from curation_service.messages import item_reader
from curation_service.selected_rows import read_pages
from curation_service.watch_request import WatchRequest
from shared.db.engine import Database, driver_connection
from shared.db.log import newest_position
from shared.errands import Errands
from shared.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

CHUNK_SIZE = 200
"""Items sent at once: to make their message takes some 5 ms, in which no other stream moves."""
PAGE_SIZE = 5 * CHUNK_SIZE
"""Items read at once."""
MEMORY_BYTES = 256 * 1024
"""The most memory that a snapshot takes; what is longer goes to disk."""
ROOM_BYTES = 4 << 30
"""For all snapshots on their way to clients."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Which transactions a snapshot sees, as `pg_current_snapshot` says it."""

    oldest: int
    """It sees all transactions before this one."""
    next: int
    """It sees none from this one on."""
    under_way: frozenset[int]
    """In between it sees all but these, which had not ended."""
    through: int
    """No entry that it sees has a position above this."""
    lacks_batch: bool
    """The log has dropped how the batch began that was asked for."""

    def __contains__(self, xid: object) -> bool:
        return isinstance(xid, int) and (xid < self.oldest or (xid < self.next and xid not in self.under_way))


class Snapshot:
    """One snapshot, being read or ready to be sent."""

    def __init__(self) -> None:
        self.visible: Visible | None = None
        """Which transactions it sees; None until it has been begun."""
        self.item_count = 0
        self.reading = False
        self.size = 0
        """The bytes of its messages."""
        self.abandoned = False
        """Nobody wants it any more."""
        self._sizes: list[int] = []
        self._file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - `close`

    def add(self, message: bytes, *, items: int) -> None:
        """Puts a message behind the others. Raises `OSError`: there is no room for it."""
        self._file.write(message)
        self._file.flush()  # here it is found out whether there is room
        self._sizes.append(len(message))
        self.size += len(message)
        self.item_count += items

    def messages(self) -> Iterator[bytes]:
        """Its messages, in the order in which they were added."""
        self._file.seek(0)
        for size in self._sizes:
            yield self._file.read(size)

    def close(self) -> None:
        """Frees its file."""
        with suppress(OSError):  # closing tries once more to write what found no room before
            self._file.close()


class Snapshots:
    """Takes snapshots."""

    def __init__(self, *, database: Database, errands: Errands, room_bytes: int = ROOM_BYTES) -> None:
        """`errands` says how many are read at once: each takes a connection of the pool for as long as that lasts."""
        self._database, self._errands, self._room_bytes = database, errands, room_bytes
        self._taken_bytes = 0

    @asynccontextmanager
    async def taken(self, watch: WatchRequest) -> AsyncIterator[Snapshot]:
        """A snapshot of what a watcher asked for, ready to be sent.

        Raises:
            DatabaseUnavailable: also when there is no room for it.
        """
        snapshot = Snapshot()
        try:
            await self._errands.run(lambda: self._read(watch, snapshot))
            yield snapshot
        finally:
            snapshot.abandoned = True
            # One that is still being read is closed by who reads it.
            if not snapshot.reading:
                self._close(snapshot)

    async def _read(self, watch: WatchRequest, snapshot: Snapshot) -> None:
        snapshot.reading = True
        try:
            async with self._database.core(isolation="REPEATABLE READ") as connection:
                snapshot.visible = seen = await visible(connection, watch.batch)
                pages = read_pages(connection, watch, size=PAGE_SIZE, lacks_batch=seen.lacks_batch)
                async with aclosing(pages):
                    await self._fill(pages, watch, snapshot)
        finally:
            snapshot.reading = False
            if snapshot.abandoned:
                self._close(snapshot)

    async def _fill(self, pages: AsyncGenerator[Sequence[Row[Any]]], watch: WatchRequest, snapshot: Snapshot) -> None:
        read = item_reader(watch.workflow)
        async for rows in pages:
            if snapshot.abandoned:
                return
            for chunk in (rows[start : start + CHUNK_SIZE] for start in range(0, len(rows), CHUNK_SIZE)):
                for part in _parts([read(row._asdict()) for row in chunk]):
                    message = pb.WatchStatusResponse(snapshot=part).SerializeToString()
                    self._add(snapshot, message, len(part.items))
                await asyncio.sleep(0)

    def _add(self, snapshot: Snapshot, message: bytes, items: int) -> None:
        if self._taken_bytes + len(message) > self._room_bytes:
            raise DatabaseUnavailable("snapshots on their way to others take all the room for now")
        try:
            snapshot.add(message, items=items)
        except OSError as error:
            log.error("no room for a snapshot among temporary files: %s", error)
            raise DatabaseUnavailable("there is no room for the snapshot for now") from error
        self._taken_bytes += len(message)

    def _close(self, snapshot: Snapshot) -> None:
        self._taken_bytes -= snapshot.size
        snapshot.close()


def _parts(items: Sequence[pb.Item]) -> Iterator[pb.ItemsSnapshot]:
    """No longer than `MESSAGE_BYTES` each, unless one item is."""
    part, size = pb.ItemsSnapshot(), 0
    for item in items:
        item_size = item.ByteSize()
        if part.items and size + item_size > MESSAGE_BYTES:
            yield part
            part, size = pb.ItemsSnapshot(), 0
        part.items.append(item)
        size += item_size
    if part.items:
        yield part


# The lock comes before the moment that the transaction shows, and keeps whoever drops a part of the log away. A moment
# from before would know nothing of what the dropped part left in the rows of batches, and its entries would be gone.
_BEGIN = sql.SQL(
    """LOCK TABLE ONLY status_event IN ACCESS SHARE MODE;
/* begin_snapshot */ SELECT pg_current_snapshot()::text,
    (SELECT position FROM status_batch WHERE id = {batch}) <= (SELECT pruned_through FROM event_log)"""
)


async def visible(connection: AsyncConnection, batch: int | None) -> Visible:
    """What this REPEATABLE READ transaction sees, of a batch too; its first statement must be this one."""
    driver = await driver_connection(connection)
    cursor = await driver.execute(_BEGIN.format(batch=sql.Literal(batch)), prepare=False)
    cursor.nextset()
    row = await cursor.fetchone()
    assert row is not None
    newest = await newest_position(driver)
    oldest, next_, between = row[0].split(":")
    under_way = frozenset(map(int, filter(None, between.split(","))))
    return Visible(int(oldest), int(next_), under_way, newest, bool(row[1]))
