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
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Row, any_, bindparam, cast, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from curation.v1 import curation_pb2 as pb
from curation_service.event_frames import MESSAGE_BYTES
from curation_service.fields import item_table
from curation_service.messages import item_reader
from curation_service.watch_request import WatchRequest
from shared.db.engine import Database, driver_connection
from shared.db.log import newest_position
from shared.db.models import status_event
from shared.errands import Errands
from shared.errors import DatabaseUnavailable
from shared.workflow import Workflow

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
                snapshot.visible = await visible(connection)
                await self._fill(connection, watch, snapshot)
        finally:
            snapshot.reading = False
            if snapshot.abandoned:
                self._close(snapshot)

    async def _fill(self, connection: AsyncConnection, watch: WatchRequest, snapshot: Snapshot) -> None:
        """By pages in order of key, all in the one transaction, so that they show the same moment."""
        items, read = item_table(watch.workflow), item_reader(watch.workflow)
        key = items.fields["id"].column
        page = select(items.source).where(_wanted(watch)).order_by(key).limit(PAGE_SIZE)
        rows: Sequence[Row[Any]] = (await connection.execute(page)).all()
        while rows and not snapshot.abandoned:
            for chunk in (rows[start : start + CHUNK_SIZE] for start in range(0, len(rows), CHUNK_SIZE)):
                for part in _parts([read(row._asdict()) for row in chunk]):
                    message = pb.WatchStatusResponse(snapshot=part).SerializeToString()
                    self._add(snapshot, message, len(part.items))
                await asyncio.sleep(0)
            if len(rows) < PAGE_SIZE:
                return
            last = rows[-1]._mapping[watch.workflow.key.name]
            rows = (await connection.execute(page.where(key > last))).all()

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


async def visible(connection: AsyncConnection) -> Visible:
    """What this REPEATABLE READ transaction sees; its first statement must be this one."""
    driver = await driver_connection(connection)
    row = await (await driver.execute("SELECT pg_current_snapshot()::text")).fetchone()
    assert row is not None
    newest = await newest_position(driver)
    oldest, next_, under_way = row[0].split(":")
    return Visible(int(oldest), int(next_), frozenset(map(int, filter(None, under_way.split(",")))), newest)


def _wanted(watch: WatchRequest) -> ColumnElement[bool]:
    workflow = watch.workflow
    key = item_table(workflow).fields["id"].column
    if watch.keys is not None:
        # As one array: as parameters of their own they may be more than a statement can have.
        return key == any_(bindparam("keys", watch.keys, type_=ARRAY(workflow.key.type)))
    if watch.condition is not None:
        return watch.condition
    if watch.batch is not None:
        return key.in_(_keys_of_batch(workflow, watch.batch))
    return true()


def _keys_of_batch(workflow: Workflow, batch: int) -> Any:
    log = status_event.c
    item = cast(func.unnest(log["items"]), workflow.key.type)
    concerned = or_(log.batch == batch, log.cause == batch, log.left_batch == batch)
    return select(item).where(concerned)
