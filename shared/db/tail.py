"""The one reader of the log in a process: follows it in commit order and keeps the newest part in memory.

Watchers read from here; one that is further behind than the memory reaches reads the table, and slows nobody.
Notifications only wake the reader: a poll carries it when they are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from uuid import UUID

import psycopg
from psycopg import sql

from shared.db.engine import Connection, connect, database_errors
from shared.db.horizon import Horizon
from shared.db.log import Entry, check_reaches, log_identity, read_log
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


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of the log, whole transactions, in order."""

    entries: Sequence[Entry]
    position: int
    """Everything up to here has been read."""


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
        self._ring: deque[Entry] = deque()
        self._ring_items = 0
        self._floor = 0
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._warn_at_s = stall_s
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self.position = 0
        """Everything up to here has been read and passed on."""
        self.log_id = UUID(int=0)
        """Which log it is; known once ready."""

    @property
    def lag_s(self) -> float:
        """For how long an open transaction has held the stream back."""
        return self._horizon.waiting_s

    async def read(self, after: int) -> Reading:
        """What follows a position: from memory, or from the table for those who are behind. Empty when nothing does.

        Raises:
            TokenExpired: the table no longer reaches back so far.
            DatabaseUnavailable: only for those who are behind.
        """
        if after >= self.position:
            return Reading((), after)
        if after >= self._floor:
            newest_first = list(takewhile(lambda entry: entry.position > after, reversed(self._ring)))
            return Reading(newest_first[::-1], self.position)
        with database_errors():
            async with self._readers, self._connected() as connection:
                reading = await _read(connection, after, self.position)
                # Asked last: a partition that was dropped before it was read must not go unnoticed.
                await check_reaches(connection, after)
                return reading

    async def moved(self, after: int) -> None:
        """Returns once there is something behind a position."""
        while self.position <= after:
            await self._moved.wait()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(self._listen()), group.create_task(self._follow())]
            await self.stopping.wait()
            for child in children:
                child.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                async with self._connected() as connection:
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
            self.position = self._floor = self._horizon.position
        self.ready()

    async def _step(self, connection: Connection) -> None:
        self._wake.clear()
        safe = await self._horizon.advance(connection)
        while self.position < safe:
            self._keep(await _read(connection, self.position, safe))
        if self._horizon.waiting_s > self._warn_at_s:
            log.warning("an open transaction has held the stream back for %.1f s", self._horizon.waiting_s)
            self._warn_at_s *= 2
        if not self._horizon.waiting_s:
            self._warn_at_s = self._stall_s
            await self._woken(self._poll_s)
        else:
            shortest, longest = UNSAFE_PAUSE_S
            await asyncio.sleep(min(max(shortest, self._horizon.waiting_s), longest))

    def _keep(self, reading: Reading) -> None:
        self._ring.extend(reading.entries)
        self._ring_items += sum(len(entry.items) for entry in reading.entries)
        while self._ring_items > self._items_max and self._ring:
            gone = self._ring.popleft()
            self._ring_items -= len(gone.items)
            self._floor = gone.position
        # An entry that is left of a transaction whose first entries are gone would be a half.
        while self._ring and self._ring[0].position <= self._floor:
            self._ring_items -= len(self._ring.popleft().items)
        self.position = reading.position
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
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await connect(self._url, name="curation tail")
        async with connection:
            yield connection


async def _read(connection: Connection, after: int, through: int) -> Reading:
    entries = await read_log(connection, after=after, through=through, limit=READ_SIZE)
    return Reading(entries, through if len(entries) < READ_SIZE else entries[-1].position)
