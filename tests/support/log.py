"""Changes of `parcels` at the log's own level, and the tails that follow them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Connection, Database, connect
from shared.db.log import Entry
from shared.db.tail import Tail
from shared.machine import curate_trigger
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S

TABLE = transition_table(PARCELS)


async def curate_in(connection: Connection, status: str, *numbers: int) -> int:
    """Sets a status in the caller's transaction; gives the position."""
    keys = [uuid.UUID(int=number) for number in numbers]
    call = CurateCall(trigger=curate_trigger(status), keys=keys, batch=NewBatch(status=status))
    curated = await curate(connection, PARCELS, TABLE, call)
    assert curated.position is not None
    return curated.position


async def update(database: Database, status: str, *numbers: int) -> int:
    """Sets a status; gives the position."""
    async with database.transaction() as connection:
        return await curate_in(connection, status, *numbers)


@asynccontextmanager
async def open_transaction(database: Database) -> AsyncIterator[Connection]:
    """A transaction that the test commits when it likes."""
    async with await connect(database.url, name="late", autocommit=False) as connection:
        yield connection


async def arrive(tail: Tail, position: int) -> None:
    """Returns once the tail is there."""
    async with asyncio.timeout(WAIT_S):
        await tail.moved(position - 1)


async def read_all(tail: Tail, after: int) -> list[Entry]:
    """All behind a position, in as many readings as it takes."""
    entries: list[Entry] = []
    while after < tail.position:
        reading = await tail.read(after)
        assert reading.position > after
        assert all(after < entry.position <= reading.position for entry in reading.entries)
        entries += reading.entries
        after = reading.position
    return entries


def versions(entries: list[Entry]) -> list[tuple[int, int]]:
    """Number and version of each item, in order."""
    return [
        (uuid.UUID(item).int, version)
        for entry in entries
        for item, version in zip(entry.items, entry.versions, strict=True)
    ]


async def cut(database: Database, name: str) -> None:
    """Ends the connections of this name, and waits until they are gone."""
    statement = text(
        """SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
           WHERE application_name = :name AND datname = current_database()"""
    )
    async with database.core() as connection:
        assert await connection.scalar(statement, {"name": name})


async def prune(database: Database, through: int) -> None:
    """Drops the log up to a position, as its retention does."""
    async with database.core() as connection:
        await connection.execute(text(f"DELETE FROM status_event WHERE position <= {through}"))
        await connection.execute(text(f"UPDATE event_log SET pruned_through = {through}"))


async def go_back(database: Database, through: int) -> None:
    """What a restored backup does to the log: what came later is gone, and its positions are drawn once more."""
    async with database.core() as connection:
        await connection.execute(text(f"DELETE FROM status_event WHERE position > {through}"))
        await connection.execute(text(f"SELECT setval('status_event_position', {through})"))
