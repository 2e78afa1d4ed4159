"""Keys as a worker tells the others of them: those that their API asked to leave alone, and what is reserved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from enrichment_worker.keys import Door, Keys
from enrichment_worker.pinned import Pinned
from shared.db.engine import Connection, Database
from shared.db.limits import Ask, postpone, reserve
from shared.db.sessions import open_session
from shared.enrichment import TurnedAway
from shared.workflow import Limits, Rate
from tests.support.eventually import eventually_async
from tests.support.service import somebody_waits_for_a_lock

LIMITS = Limits(key_concurrency=2)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    async with Database(database_url) as database:
        yield database


@asynccontextmanager
async def uses(database: Database, *used: str, limits: Limits = LIMITS) -> AsyncIterator[Door]:
    """The door of a worker that uses these keys."""
    async with database.transaction() as connection:
        session = await open_session(connection, host="h", version="0", resources=[])
    async with Pinned(database.url, name="keys", random=lambda: 1.0, timeout_s=60) as pinned:
        keys = Keys(api="API", limits=[limits], session=lambda: session, pinned=pinned)
        async with keys:
            door = Door.of(keys, limits)
            for key in used:
                await door.enter(key, wait_s=60)
            yield door


async def lock_key(connection: Connection, key: str) -> None:
    """Locks a key's schedule, which nobody else may have."""
    lock = "SELECT FROM call_schedule WHERE api = 'API' AND key = %s FOR UPDATE NOWAIT"
    if (await connection.execute(lock, [key])).rowcount == 0:
        await connection.execute("INSERT INTO call_schedule VALUES ('API', %s, now())", [key])


async def held_s(connection: Connection) -> float:
    """For how long the key `held` is, as all workers know."""
    cursor = await connection.execute(
        "SELECT extract(epoch FROM next_at - clock_timestamp())::float8 FROM call_schedule WHERE key = 'held'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return float(row[0])


async def test_a_hold_never_gets_shorter(database: Database) -> None:
    async with database.transaction() as connection:
        for seconds in (3600.0, 1.0):
            await postpone(connection, "API", "held", seconds)
        assert await held_s(connection) > 60


async def test_a_key_that_is_held_is_not_locked_while_another_is_waited_for(database: Database) -> None:
    async with uses(database, "held", "held") as door:
        async with database.transaction() as connection:
            await lock_key(connection, "asked")
            door.leave("held", lasted_s=1.0, hold_s=3600.0)
            entering = asyncio.create_task(door.enter("asked", wait_s=60))
            await somebody_waits_for_a_lock(database)
            assert await held_s(connection) > 60, "it was told"
            await lock_key(connection, "held")
        await entering


@pytest.mark.parametrize("are_new", [True, False])
async def test_keys_are_waited_for_in_one_order_whatever_they_are_asked_for_in(
    database: Database, are_new: bool
) -> None:
    async def ask(*keys: str) -> int:
        async with database.transaction() as connection:
            return len(await reserve(connection, "API", [Ask(key, 1, 1.0) for key in keys], horizon_s=1.0))

    if not are_new:
        assert await ask("b") + await ask("a") == 2  # the table has them in this order, too
    async with database.transaction() as connection:
        await lock_key(connection, "a")
        asking = asyncio.create_task(ask("b", "a"))
        await somebody_waits_for_a_lock(database)
        await lock_key(connection, "b")
    assert await asking == 2


async def test_holds_are_told_in_the_order_of_their_keys(database: Database) -> None:
    async with uses(database, "b", "a") as door, database.transaction() as connection:
        await lock_key(connection, "a")
        for key in ("b", "a"):
            door.leave(key, lasted_s=1.0, hold_s=3600.0)
        await somebody_waits_for_a_lock(database)
        await lock_key(connection, "b")


async def test_who_has_no_slot_has_no_call_either(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enrichment_worker.keys.HORIZON_S", 10 * 3600.0)
    async with uses(database, "held", limits=Limits(key_concurrency=1, key_rate=Rate(calls=1, per_s=3600))) as door:
        with pytest.raises(TurnedAway):
            await door.enter("held", wait_s=60)
    async with database.transaction() as connection:
        assert round(await held_s(connection) / 3600) == 1


async def test_a_hold_that_grows_while_it_is_told_is_told_again(database: Database) -> None:
    async with uses(database, "held", "held") as door:
        async with database.transaction() as connection:
            await lock_key(connection, "held")
            door.leave("held", lasted_s=1.0, hold_s=1.0)
            await somebody_waits_for_a_lock(database)
            door.leave("held", lasted_s=1.0, hold_s=3600.0)

        async def is_held() -> bool:
            async with database.transaction() as connection:
                return await held_s(connection) > 60

        await eventually_async(is_held)
