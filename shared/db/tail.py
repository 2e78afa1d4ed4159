"""The newest part of the log in the memory of a process, for all its watchers; where it comes from, a subclass says.

Watchers read from here; one that is further behind than the memory reaches reads the table, and slows nobody.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg

from shared.db.engine import Connection, connect
from shared.db.errors import database_errors
from shared.db.log import check_reaches, read_log
from shared.db.ring import Reading, Ring
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.waits import backoff

READ_SIZE = 250
"""Entries read at once."""
ANSWER_S = 10.0
"""So long may PostgreSQL take for one answer; a connection that hangs without a word is given up then."""
READERS_MAX = 4
"""Connections that read the table at once for those who are behind; others wait."""
ITEMS_MAX = 200_000
"""What the memory holds, in items of entries, an entry counted as some more: 28 MB, whatever their size."""
PLANS = "-c plan_cache_mode=force_generic_plan -c enable_sort=off -c enable_bitmapscan=off"
"""For connections that read the log: along the primary key, so that a read costs what it returns, however much follows,
and also before today's partition was analysed. Planned once, for planning takes longer than reading an entry."""


class Tail(Part):
    """Follows the log."""

    def __init__(self, *, url: str, items_max: int = ITEMS_MAX) -> None:
        """`items_max` bounds the memory, in items of entries."""
        super().__init__()
        self._url = url
        self._ring = Ring(items_max=items_max)
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._idle: list[Connection] = []
        self._moved = asyncio.Event()
        self._failures = 0
        """Attempts in a row to reach where the log comes from."""
        self.log_id = UUID(int=0)
        """Which log it is; known once ready."""

    @property
    def position(self) -> int:
        """Everything up to here has been read and passed on."""
        return self._ring.position

    @property
    @abstractmethod
    def lag_s(self) -> float:
        """For how long the stream has been held back; 0 when it is not."""

    @abstractmethod
    async def _follow(self) -> None:
        """Finds where the log is, says `ready`, and passes what comes to `_keep`; cancelled by the stop."""

    def recent(self, after: int) -> Reading | None:
        """What follows a position, from memory; empty when nothing does, None for those who are behind it."""
        return self._ring.read(after) if after >= self._ring.floor else None

    async def read(self, after: int) -> Reading:
        """What follows a position: from memory, or from the table for those who are behind. Empty when nothing does.

        Raises:
            TokenExpired: the table no longer reaches back so far.
            DatabaseUnavailable: only for those who are behind.
        """
        reading = self.recent(after)
        if reading is not None:
            return reading
        return await self._from_table(after, self.position)

    async def moved(self, after: int) -> None:
        """Returns once there is something behind a position."""
        while self.position <= after:
            await self._moved.wait()

    async def _run(self) -> None:
        try:
            await self.work_until_stopped(self._follow())
        finally:
            for connection in self._idle:
                await connection.close()

    async def _back_off(self) -> None:
        """Between two attempts to reach where the log comes from."""
        await self.pause(backoff(self._failures))
        self._failures += 1

    def _begin(self, position: int) -> None:
        """Keeps entries from this position on; whoever is before it reads the table."""
        self._ring.begin(position)
        self._tell()

    def _keep(self, reading: Reading) -> None:
        self._ring.add(reading)
        self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _from_table(self, after: int, through: int) -> Reading:
        try:
            with database_errors():
                async with self._readers, asyncio.timeout(ANSWER_S), self._reader() as connection:
                    reading = await read_part(connection, after, through)
                    # Asked last: a partition that was dropped before it was read must not go unnoticed.
                    await check_reaches(connection, after)
                    return reading
        except TimeoutError as error:
            raise DatabaseUnavailable("the database does not answer") from error

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Connection]:
        """A connection for one who is behind: one that another is done with, unless it was cut since."""
        connection = None
        while connection is None and self._idle:
            connection = self._idle.pop()
            try:
                await connection.execute("SELECT")
            except psycopg.Error:
                await connection.close()
                connection = None
        if connection is None:
            connection = await connect(self._url, name="curation tail, behind", options=PLANS)
        try:
            yield connection
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)


async def read_part(connection: Connection, after: int, through: int) -> Reading:
    """Some of the table in (after, through], or all."""
    entries = await read_log(connection, after=after, through=through, limit=READ_SIZE)
    return Reading(entries, entries[-1].position if entries else through)
