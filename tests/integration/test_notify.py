"""Who is woken by what: watchers by every change, workers by all but claims and progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from psycopg import sql

from shared.db.claim import claim, follow_up
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.curate_each import curate_each
from shared.db.engine import Connection, Database, connect
from shared.db.finish import Result, finish
from shared.db.log import append_progress
from shared.db.sessions import rescue
from shared.db.writer import CHANNEL, WATCH_CHANNEL
from shared.machine import FIND_NOTHING, curate_trigger
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, add_parcels, parcel_database

TABLE = transition_table(PARCELS)
MARK = "the end of a step"
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With two parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, {}, {})
        yield database


async def heard(listening: Connection) -> list[tuple[str, str]]:
    """What was said since this was asked last."""
    await listening.execute(sql.SQL("NOTIFY {}, {}").format(sql.Identifier(CHANNEL), sql.Literal(MARK)))
    said: list[tuple[str, str]] = []
    async with asyncio.timeout(WAIT_S):
        async for notification in listening.notifies():
            if notification.payload == MARK:
                break
            said.append((notification.channel, notification.payload))
    return said


async def test_watchers_hear_of_every_change_and_workers_of_those_that_may_make_work(database: Database) -> None:
    async with await connect(database.url, name="a test") as listening:
        for channel in (CHANNEL, WATCH_CHANNEL):
            await listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        async with database.autocommit() as connection:
            call = CurateCall(trigger=curate_trigger("Scan"), keys=[UUID(int=1)], batch=NewBatch(status="Scan"))
            await curate(connection, PARCELS, TABLE, call)
        assert await heard(listening) == [(CHANNEL, "parcels")]
        async with database.autocommit() as connection:
            (item,) = (await claim(connection, PARCELS, TABLE, session=1, limit=1)).items
            await follow_up(connection, PARCELS, session=1, settled=[])
        assert await heard(listening) == [(WATCH_CHANNEL, "parcels")]
        async with database.autocommit() as connection:
            await append_progress(connection, PARCELS, [(item.key, item.version, "asking", 0.5)])
        assert await heard(listening) == [(WATCH_CHANNEL, "parcels")]
        async with database.autocommit() as connection:
            await finish(connection, PARCELS, TABLE, [Result(item, FIND_NOTHING)])
        assert await heard(listening) == [(CHANNEL, "parcels")]


async def test_workers_hear_of_a_rescue(database: Database) -> None:
    async with await connect(database.url, name="a test") as listening:
        async with database.autocommit() as connection:
            call = CurateCall(trigger=curate_trigger("Scan"), keys=[UUID(int=1)], batch=NewBatch(status="Scan"))
            await curate(connection, PARCELS, TABLE, call)
            await claim(connection, PARCELS, TABLE, session=1, limit=1)
        await listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        async with database.autocommit() as connection:
            assert await rescue(connection, PARCELS, TABLE) == 1
        assert await heard(listening) == [(CHANNEL, "parcels")]


async def test_calls_for_one_item_each_that_are_carried_out_together_are_told_once(database: Database) -> None:
    async with await connect(database.url, name="a test") as listening:
        await listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        async with database.autocommit() as connection:
            trigger, batch = curate_trigger("Scan"), NewBatch(status="Scan")
            calls = [CurateCall(trigger=trigger, keys=[UUID(int=n)], batch=batch) for n in (1, 2)]
            assert None not in await curate_each(connection, PARCELS, TABLE, calls)
        assert await heard(listening) == [(CHANNEL, "parcels")]
