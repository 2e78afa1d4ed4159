"""The one reader of the log in a process: follows it in commit order and keeps the newest part in memory.

Watchers read from here; one that is further behind than the memory reaches reads the table, and slows nobody.
Notifications only wake the reader: a poll carries it when they are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
from psycopg import sql

from shared.db.engine import Connection, connect, database_errors
from shared.db.horizon import Horizon
from shared.db.log import check_reaches, log_identity, look, read_log
from shared.db.ring import Reading, Ring
from shared.db.writer import CHANNEL
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part

log = logging.getLogger(__name__)

READ_SIZE = 1_000
"""Entries read at once."""
BACKOFF_S = 0.5
"""Between attempts to reach the database."""
UNSAFE_PAUSE_S = (0.002, 0.1)
"""Between looks at a transaction that keeps the horizon back: the first pause, doubled up to the last."""
READERS_MAX = 4
"""Connections that read the table at once for those who are behind; others wait."""
PLANS = "-c plan_cache_mode=force_generic_plan -c enable_sort=off -c enable_bitmapscan=off"
"""For who reads the log: along the primary key, so that a read costs what it returns, however much follows and before
anybody has analysed today's partition; and planned once, which takes longer than reading an entry."""


class Tail(Part):
    """Follows the log. `Tail(url=..., listen_url=...)`."""

    def __init__(
        self, *, url: str, listen_url: str, poll_s: float = 1.0, items_max: int = 200_000, stall_s: float = 5.0
    ) -> None:
        """`items_max` bounds the memory, in items of entries; `stall_s` when a late transaction is worth a warning."""
        super().__init__()
        self._url, self._listen_url = url, listen_url
        self._poll_s, self._items_max, self._stall_s = poll_s, items_max, stall_s
        self._horizon = Horizon()
        self._ring = Ring(items_max=items_max)
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._idle: list[Connection] = []
        self._warn_at_s = stall_s
        self._held = False
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self.log_id = UUID(int=0)
        """Which log it is; known once ready."""

    @property
    def position(self) -> int:
        """Everything up to here has been read and passed on."""
        return self._ring.position

    @property
    def lag_s(self) -> float:
        """For how long an open transaction has held the stream back."""
        return self._horizon.waiting_s

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
        with database_errors():
            async with self._readers, self._reader() as connection:
                reading = await _read(connection, after, self.position)
                # Asked last: a partition that was dropped before it was read must not go unnoticed.
                await check_reaches(connection, after)
                return reading

    async def moved(self, after: int) -> None:
        """Returns once there is something behind a position."""
        while self.position <= after:
            await self._moved.wait()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                children = [group.create_task(self._listen()), group.create_task(self._follow())]
                await self.stopping.wait()
                for child in children:
                    child.cancel()
        finally:
            for connection in self._idle:
                await connection.close()

    async def _follow(self) -> None:
        while True:
            try:
                async with await connect(self._url, name="curation tail", options=PLANS) as connection:
                    await self._start(connection)
                    while True:
                        await self._step(connection)
            except (DatabaseUnavailable, psycopg.Error) as error:
                log.warning("the log cannot be read now: %s", type(error).__name__)
                await asyncio.sleep(BACKOFF_S)

    async def _start(self, connection: Connection) -> None:
        self.log_id = (await log_identity(connection)).id
        if not self.position:
            # Sequences are never at 0, so 0 means that a transaction under way keeps the horizon back.
            while not self._horizon.position:
                await self._horizon.advance(connection)
                await self.pause(UNSAFE_PAUSE_S[1] if self._horizon.waiting_s else 0.0)
            self._ring.begin(self._horizon.position)
        self.ready()

    async def _step(self, connection: Connection) -> None:
        self._wake.clear()
        await self._horizon.note(connection)
        if self._horizon.newest > self.position:
            await self._advance(connection)
        if self._horizon.waiting_s > self._warn_at_s:
            log.warning("an open transaction has held the stream back for %.1f s", self._horizon.waiting_s)
            self._warn_at_s *= 2
        if not self._horizon.waiting_s:
            self._warn_at_s = self._stall_s
            await self._woken(self._poll_s)
        else:
            # It may not notify when it ends, so there are looks; each longer after the last.
            shortest, longest = UNSAFE_PAUSE_S
            await self._woken(min(max(shortest, self._horizon.waiting_s), longest))

    async def _advance(self, connection: Connection) -> None:
        """Reads what is new and asks how much of it is safe with one look; while something is held back, asks first."""
        if not self._held:
            oldest, entries = await look(connection, after=self.position, through=self._horizon.newest, limit=READ_SIZE)
            self._horizon.learn(oldest)
            safe = [entry for entry in entries if entry.position <= self._horizon.position]
            whole = len(safe) < len(entries) or not safe
            self._keep(Reading(safe, self._horizon.position if whole else safe[-1].position))
        else:
            await self._horizon.advance(connection)
        self._held = self._horizon.waiting_s > 0
        while self.position < self._horizon.position:
            self._keep(await _read(connection, self.position, self._horizon.position))

    def _keep(self, reading: Reading) -> None:
        self._ring.add(reading)
        self._moved.set()
        self._moved = asyncio.Event()

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _listen(self) -> None:
        while True:
            try:
                connection = await connect(self._listen_url, name="curation tail, listening")
                async with connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    self._wake.set()
                    async for _ in connection.notifies():
                        self._wake.set()
            except (DatabaseUnavailable, psycopg.Error) as error:
                log.warning("deaf for now, polling goes on: %s", type(error).__name__)
            await asyncio.sleep(BACKOFF_S)

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


async def _read(connection: Connection, after: int, through: int) -> Reading:
    entries = await read_log(connection, after=after, through=through, limit=READ_SIZE)
    return Reading(entries, entries[-1].position if entries else through)
