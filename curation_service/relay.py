"""Reads the log for all replicas of the service, and passes it on over NATS.

Every replica has one; an advisory lock of PostgreSQL says which of them works, and goes on to another when that one's
connection ends. After a cut two may work at once for a moment: the stream accepts messages of only one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import NoReturn

import psycopg

from curation_service.backbone import BEAT_S, Backbone, connected
from shared.db.database_tail import DatabaseTail
from shared.db.engine import KEEPALIVE_OPTIONS, Connection, connect
from shared.db.log import Mark, check_contains
from shared.db.ring import Reading
from shared.db.tail import Tail
from shared.errors import BackboneUnavailable, DatabaseUnavailable, LogRewound, TokenExpired
from shared.lifecycle import Part
from shared.waits import backoff

log = logging.getLogger(__name__)

TURN_S = 1.0
"""Between attempts to become the one that works."""
ITEMS_MAX = 20_000
"""What it keeps in memory: when NATS takes it more slowly than the log grows, it reads the table."""


class Relay(Part):
    """Relays, or waits for its turn."""

    def __init__(self, *, url: str, listen_url: str, nats_url: str) -> None:
        """The lock is taken over `listen_url`: a pooler would lose it."""
        super().__init__()
        self._url, self._listen_url, self._nats_url = url, listen_url, nats_url
        self._failures = 0
        self.working = False
        """It is the one that relays."""

    async def _run(self) -> None:
        self.ready()
        await self.work_until_stopped(self._take_turns())

    async def _take_turns(self) -> None:
        while True:
            try:
                async with await connect(self._listen_url, name="curation relay", options=KEEPALIVE_OPTIONS) as lock:
                    # A statement that waits for the lock would hold a snapshot, and vacuum back.
                    while not await _acquired(lock):  # noqa: ASYNC110 - so PostgreSQL has no event for it
                        await asyncio.sleep(TURN_S)
                    await self._work(lock)
            except* (DatabaseUnavailable, psycopg.Error, BackboneUnavailable, TimeoutError) as group:
                log.warning("the log is not relayed from here now: %s", group.exceptions[0])
            await self.pause(backoff(self._failures))
            self._failures += 1

    async def _work(self, lock: Connection) -> None:
        tail = DatabaseTail(url=self._url, direct_url=self._listen_url, items_max=ITEMS_MAX)
        async with tail, connected(self._nats_url, tail.log_id, name="curation relay") as backbone:
            log.info("relaying the log")
            self.working = True
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(tail.ended())
                    await self._pass_on(tail, backbone, lock)
            finally:
                self.working = False

    async def _pass_on(self, tail: Tail, backbone: Backbone, lock: Connection) -> NoReturn:
        clock = asyncio.get_running_loop().time
        position, checked_s = await backbone.position(), clock()
        if position is not None and not await _is_of_this_log(lock, position, backbone.last):
            log.error("the stream is of a log that was restored since; it begins anew")
            await backbone.purge()
            position = None
        if position is None:
            position = tail.position
        reading = Reading((), position)
        while True:
            await backbone.publish(position, reading, lag_s=tail.lag_s)
            position, self._failures = reading.position, 0
            if clock() - checked_s >= BEAT_S:
                async with asyncio.timeout(BEAT_S):
                    await lock.execute("SELECT")  # raises when the lock is lost
                checked_s = clock()
            try:
                reading = await _next(tail, position)
            except TokenExpired:
                # What is no more cannot be relayed: the gap is left, and whoever needs it is told the same.
                position = tail.position
                reading = Reading((), position)


async def _is_of_this_log(connection: Connection, position: int, last: Mark | None) -> bool:
    """Whether the log has been there, and still has the last entry that was relayed of it."""
    cursor = await connection.execute("SELECT last_value FROM status_event_position")
    row = await cursor.fetchone()
    try:
        if last is not None:
            await check_contains(connection, last)
    except LogRewound:
        return False
    return row is not None and position <= row[0]


async def _acquired(lock: Connection) -> bool:
    # By the log's name: a database may have one in each of several schemas.
    cursor = await lock.execute(
        "SELECT pg_try_advisory_lock(hashtextextended('curation relay ' || id::text, 0)) FROM event_log"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _next(tail: Tail, position: int) -> Reading:
    """What follows a position; empty when nothing does for as long as a beat."""
    with suppress(TimeoutError):
        async with asyncio.timeout(BEAT_S):
            await tail.moved(position)
    return await tail.read(position)
