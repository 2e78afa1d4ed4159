"""The tail that reads PostgreSQL itself: follows the log in commit order.

Notifications only wake it: a poll carries it when they are lost.

It reads up to the horizon, but its position, which tokens name, is that of the last entry, or the first of the day. A
position that was drawn behind that and rolled back may be drawn by others again after a crash of PostgreSQL, which
writes down what a sequence has given only with a commit.
"""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg
from psycopg import sql

from shared.db.engine import Connection, connect
from shared.db.errors import in_a_line
from shared.db.horizon import Horizon
from shared.db.libpq import Ear
from shared.db.log import Mark, check_contains, log_identity, newest_mark
from shared.db.look import Look
from shared.db.partitions import day_start
from shared.db.ring import Reading
from shared.db.tail import ANSWER_S, ITEMS_MAX, PLANS, READ_SIZE, Tail, read_part
from shared.db.writer import CHANNEL, WATCH_CHANNEL
from shared.errors import DatabaseUnavailable, LogRewound

log = logging.getLogger(__name__)

LOOK_PAUSE_S = 0.001
"""Between looks, at least: what is committed in so short a time is read together."""
UNSAFE_PAUSE_S = (0.002, 0.1)
"""Between looks at a transaction that keeps the horizon back: the first pause, doubled up to the last."""


class DatabaseTail(Tail):
    """Follows the log in the table. `DatabaseTail(url=..., direct_url=...)`."""

    def __init__(
        self, *, url: str, direct_url: str, poll_s: float = 1.0, items_max: int = ITEMS_MAX, stall_s: float = 5.0
    ) -> None:
        """`url` may be a pooler, `direct_url` not. `items_max` bounds the memory, in items of entries; `stall_s` says
        when a late transaction is worth a warning.
        """
        super().__init__(url=url, items_max=items_max)
        self._direct_url, self._poll_s, self._stall_s = direct_url, poll_s, stall_s
        self._horizon = Horizon()
        self._warn_at_s = stall_s
        self._looked = 0
        """Up to here all entries are in memory."""
        self._last: Mark | None = None
        """The mark of the last entry that was read, or that the log had at the start."""
        self._stepped_s = time.monotonic()
        """When it last had an answer."""

    @property
    def lag_s(self) -> float:
        """For how long an open transaction, or a database that cannot be read, has held the stream back."""
        silence_s = time.monotonic() - self._stepped_s
        return max(self._horizon.waiting_s, silence_s if silence_s > 2 * self._poll_s else 0.0)

    async def _follow(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await self._start(connection)
                    look, ear = Look(connection, self._horizon), Ear(connection)
                    async with asyncio.timeout(ANSWER_S):
                        await look.prepare()
                    while True:
                        await self._step(connection, look)
                        self._stepped_s, self._failures = time.monotonic(), 0
                        await asyncio.sleep(LOOK_PAUSE_S)
                        await ear.hear(self._pause_s())
            except LogRewound as error:
                # What this process has in memory, here and elsewhere, is of a history that is gone.
                log.error("%s; the service ends, clients start again with a snapshot", error)
                raise
            except (DatabaseUnavailable, psycopg.Error, TimeoutError) as error:
                log.warning("the log cannot be read now: %s", in_a_line(error))
                await self._back_off()

    async def _connect(self) -> Connection:
        async with asyncio.timeout(ANSWER_S):
            connection = await connect(self._direct_url, name="curation tail", options=PLANS)
            for channel in (CHANNEL, WATCH_CHANNEL):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            return connection

    async def _start(self, connection: Connection) -> None:
        """Raises `LogRewound` when the log is no longer the one that was read so far."""
        self._horizon = Horizon()
        async with asyncio.timeout(ANSWER_S):
            self.log_id = (await log_identity(connection)).id
            if self._last is not None:
                await check_contains(connection, self._last)
        if not self.position:
            # Sequences are never at 0, so 0 means that a transaction under way keeps the horizon back.
            while not self._horizon.position:
                async with asyncio.timeout(ANSWER_S):
                    await self._horizon.advance(connection)
                await self.pause(UNSAFE_PAUSE_S[1] if self._horizon.waiting_s else 0.0)
            async with asyncio.timeout(ANSWER_S):
                self._last = await newest_mark(connection, through=self._horizon.position)
            newest = self._last[0] if self._last is not None else 0
            self._begin(max(newest, day_start(self._horizon.position)))
        self._looked = self.position
        self.ready()

    async def _step(self, connection: Connection, look: Look) -> None:
        """Reads what is new and learns how much of it is safe by one look; while something is held back, asks first."""
        if not self._horizon.waiting_s:
            async with asyncio.timeout(ANSWER_S):
                entries = await look.take(after=self._looked, limit=READ_SIZE)
            safe = [entry for entry in entries if entry.position <= self._horizon.position]
            whole = len(safe) < len(entries) or not safe
            self._pass_on(Reading(safe, self._horizon.position if whole else safe[-1].position))
        else:
            async with asyncio.timeout(ANSWER_S):
                await self._horizon.advance(connection)
        while self._looked < self._horizon.position:
            async with asyncio.timeout(ANSWER_S):
                reading = await read_part(connection, self._looked, self._horizon.position)
            self._pass_on(reading)

    def _pass_on(self, reading: Reading) -> None:
        self._looked = max(self._looked, reading.position)
        stands = max(self.position, day_start(reading.position))
        if reading.entries:
            self._last = reading.entries[-1].position, reading.entries[-1].xid
            stands = max(stands, self._last[0])
        if stands > self.position:
            self._keep(Reading(reading.entries, stands))

    def _pause_s(self) -> float:
        """How long to wait for a notification before the next look."""
        waiting_s = self._horizon.waiting_s
        if not waiting_s:
            self._warn_at_s = self._stall_s
            return self._poll_s
        if waiting_s > self._warn_at_s:
            log.warning("an open transaction has held the stream back for %.1f s", waiting_s)
            self._warn_at_s *= 2
        # It may not notify when it ends, so there are looks; each longer after the last.
        shortest, longest = UNSAFE_PAUSE_S
        return min(max(shortest, waiting_s), longest)
