"""What workers have in hand: claims say it until their worker forgets them, and no completion writes an index."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from curation_service.log_keeper import LogKeeper
from shared.db.claim import Claimed, claim, follow_up
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Database
from shared.db.finish import Result, finish
from shared.db.in_hand import note_claims, own_items
from shared.db.queue import count_queue
from shared.db.sessions import close_session, open_session, rescue
from shared.machine import curate_trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.integration.test_partitions import LATER_DAYS, go_back_to, keep, name_of, today
from tests.support.eventually import eventually_async
from tests.support.parcels import PARCELS
from tests.support.service import add_many, parcel_database
from tests.support.worker import GADGETS

TABLE = transition_table(PARCELS)
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database with the tables of `parcels`."""
    async with parcel_database(database_url) as database:
        yield database


async def queue(database: Database, count: int) -> int:
    """Queues so many new parcels. Returns the id of a session that may claim them."""
    await add_many(database, count)
    async with database.transaction() as connection:
        keys = [row[0] for row in await (await connection.execute("SELECT id FROM parcels")).fetchall()]
        call = CurateCall(trigger=curate_trigger("Scan"), keys=keys, batch=NewBatch(status="Scan"))
        await curate(connection, PARCELS, TABLE, call)
        return await open_session(connection, host="h", version="1", resources=["parcels"])


async def take(database: Database, session: int, limit: int) -> Claimed:
    async with database.transaction() as connection:
        return await claim(connection, PARCELS, TABLE, session=session, limit=limit)


async def end(database: Database, items: Sequence[Item], trigger: str = "complete") -> None:
    async with database.transaction() as connection:
        results = [Result(item, trigger, values={"code": str(item.key)}) for item in items]
        assert (await finish(connection, PARCELS, TABLE, results)).dropped == 0


async def claims(database: Database) -> list[int]:
    """Those that are not forgotten."""
    async with database.transaction() as connection:
        cursor = await connection.execute("SELECT position FROM worker_claim ORDER BY position")
        return [position for (position,) in await cursor.fetchall()]


async def rescued(database: Database) -> int:
    async with database.transaction() as connection:
        return await rescue(connection, PARCELS, TABLE)


async def own(database: Database, session: int) -> set[object]:
    async with database.transaction() as connection:
        items = await own_items(connection, PARCELS, session)
        assert (await count_queue(connection, PARCELS)).in_flight == len(items)
        return {item.key for item in items}


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_completion_writes_no_index(database: Database, attempts: int) -> None:
    session = await queue(database, 5)
    for _ in range(attempts - 1):
        await end(database, (await take(database, session, 5)).items, "retry")
    items = (await take(database, session, 5)).items
    async with database.transaction() as connection:
        await finish(connection, PARCELS, TABLE, [Result(item, "complete", values={"code": "x"}) for item in items])
        # Only of completions: whatever else happens to an item changes what an index says of it.
        cursor = await connection.execute(
            "SELECT n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'parcels'"
        )
        assert await cursor.fetchone() == (5,)


async def test_what_a_session_has_in_hand_is_what_it_claimed_and_has_not_settled(database: Database) -> None:
    session = await queue(database, 5)
    first, second = await take(database, session, 2), await take(database, session, 3)
    assert await own(database, session) == {item.key for item in (*first.items, *second.items)}
    await end(database, first.items)
    await end(database, second.items[:1], "release")
    assert await own(database, session) == {item.key for item in second.items[1:]}
    again = await take(database, session, 5)
    assert await own(database, session) == {item.key for item in second.items}, "once, although claimed twice"
    assert [item.key for item in again.items] == [second.items[0].key]


async def test_what_follows_a_claim_forgets_the_settled_ones_of_its_session(database: Database) -> None:
    session = await queue(database, 3)
    async with database.transaction() as connection:
        other = await open_session(connection, host="h", version="1", resources=["parcels"])
    first, theirs = await take(database, session, 1), await take(database, other, 1)
    await end(database, first.items)
    last = await take(database, session, 1)
    async with database.autocommit() as connection:
        asked = "SHOW synchronous_commit"
        before = await (await connection.execute(asked)).fetchone()
        # A standby that took over without its last commits gives a position once more, maybe to another workflow.
        await connection.execute(
            "INSERT INTO worker_claim (position, resource, session) VALUES (1, 'others', %s)", [session]
        )
        await follow_up(connection, PARCELS, session=session, settled=[first.position, theirs.position, 1])
        assert await (await connection.execute(asked)).fetchone() == before
    assert await claims(database) == [1, theirs.position, last.position]


async def test_claims_of_a_session_that_is_over_are_forgotten_with_the_last_of_their_items(database: Database) -> None:
    session = await queue(database, 4)
    first, second = await take(database, session, 2), await take(database, session, 2)
    await end(database, first.items)
    assert (await rescued(database), await claims(database)) == (0, [first.position, second.position])
    async with database.transaction() as connection:
        await close_session(connection, session)
    async with database.transaction() as holder:
        await holder.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", [second.items[0].key])
        assert (await rescued(database), await claims(database)) == (1, [second.position]), "one is locked"
    assert (await rescued(database), await claims(database)) == (1, [])
    async with database.transaction() as connection:
        assert (await connection.execute("SELECT FROM failure_group")).rowcount == 0, "they wait for another attempt"


async def test_what_is_in_hand_is_known_when_the_log_of_its_claim_is_gone(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        go_back_to(connection, today(connection) - timedelta(days=LATER_DAYS))
        session = await queue(database, 4)
        done, lost = await take(database, session, 2), await take(database, session, 2)
        await end(database, done.items)
        assert keep(connection, retention_days=LATER_DAYS - 1).dropped == 1
    assert await own(database, session) == {item.key for item in lost.items}
    async with database.transaction() as other:
        await close_session(other, session)
    assert (await rescued(database), await claims(database)) == (2, [])


async def test_an_item_whose_key_was_changed_while_a_worker_had_it_is_found_within_a_day(database: Database) -> None:
    session = await queue(database, 3)
    taken, kept = await take(database, session, 2), await take(database, session, 1)
    changed = uuid.UUID(int=99)
    async with database.autocommit() as connection:
        await connection.execute("UPDATE parcels SET id = %s WHERE id = %s", [changed, taken.items[0].key])
        results = [Result(item, "complete", values={"code": "x"}) for item in taken.items]
        assert (await finish(connection, PARCELS, TABLE, results)).dropped == 1
        await follow_up(connection, PARCELS, session=session, settled=[taken.position])
    with psycopg.connect(database.url, autocommit=True) as other:
        other.execute(f"DROP TABLE {name_of(today(other) + timedelta(days=1))}")
    # Whichever others cannot be looked through: here are no gadgets.
    workflows = [GADGETS, PARCELS, GADGETS]
    async with LogKeeper(url=database.url, retention_days=LATER_DAYS, batch_retention_days=None, workflows=workflows):

        async def is_found() -> bool:
            return len(await claims(database)) == 2

        await eventually_async(is_found)
    assert await own(database, session) == {changed, kept.items[0].key}, "what was in a claim is in no other one"
    async with database.autocommit() as connection:
        await close_session(connection, session)
    assert (await rescued(database), await claims(database)) == (2, [])


async def test_an_item_is_in_the_hand_of_whoever_claimed_it_last(database: Database) -> None:
    session = await queue(database, 2)
    async with database.transaction() as connection:
        other = await open_session(connection, host="h", version="1", resources=["parcels"])
    given_back, kept = (await take(database, session, 2)).items
    await end(database, [given_back], "release")
    (taken,) = (await take(database, other, 1)).items
    async with database.transaction() as connection:
        for each, item in ((session, kept), (other, taken)):
            assert await own_items(connection, PARCELS, each) == [replace(item, data={})]


async def test_an_item_whose_status_was_set_by_hand_is_in_nobodys_hand(database: Database) -> None:
    session = await queue(database, 1)
    await take(database, session, 1)
    async with database.transaction() as connection:
        await connection.execute("UPDATE parcels SET scan_status = NULL")
        assert await own_items(connection, PARCELS, session) == []
        await close_session(connection, session)
    assert (await rescued(database), await claims(database)) == (0, [])


async def test_what_is_with_workers_by_its_rows_alone_is_noted_once_for_each(database: Database) -> None:
    sessions = [await queue(database, 5)]
    async with database.transaction() as connection:
        sessions.append(await open_session(connection, host="h", version="1", resources=["parcels"]))
    taken = [(await take(database, session, limit)).items for session, limit in zip(sessions, (1, 2), strict=True)]
    with psycopg.connect(database.url) as other:
        # Nobody is to be told of what only looks so.
        other.execute(
            "UPDATE parcels SET scan_status = CASE name WHEN 'parcel 4' THEN 'processing' END,"
            " scan_worker = CASE name WHEN 'parcel 5' THEN %s END WHERE scan_worker IS NULL",
            [sessions[0]],
        )
        other.execute("DELETE FROM worker_claim")
        assert [note_claims(other, PARCELS) for _ in range(2)] == [3, 0]
    async with database.transaction() as reader:
        for session, items in zip(sessions, taken, strict=True):
            own = await own_items(reader, PARCELS, session)
            assert {item.key for item in own} == {item.key for item in items}


async def test_claims_of_other_workflows_are_not_read_as_keys_of_this_one(database: Database) -> None:
    session = await queue(database, 4)
    await end(database, (await take(database, session, 2)).items)
    await take(database, session, 1)
    async with database.transaction() as connection:
        living = await open_session(connection, host="h", version="1", resources=["parcels"])
        await connection.execute(
            "INSERT INTO worker_claim (position, resource, session, items)"
            " VALUES (0, 'others', %s, '{38}'), (1, 'others', %s, '{39}')",
            [session, living],
        )
    theirs = await take(database, living, 1)
    async with database.transaction() as connection:
        await close_session(connection, session)
        await connection.execute("SET LOCAL enable_nestloop = off")  # however it is planned
        assert await rescue(connection, PARCELS, TABLE) == 1
    assert await claims(database) == [0, 1, theirs.position]
    assert await own(database, living) == {item.key for item in theirs.items}
