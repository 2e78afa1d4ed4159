"""Setting a status on many items: all or nothing or in part, at once with others, together with the queue."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import sql

from shared.db.batches import read_progress
from shared.db.claim import claim
from shared.db.curate import CurateCall, Curated, NewBatch, curate
from shared.db.engine import Connection, Database, connect
from shared.db.finish import Finished, Result, finish
from shared.db.horizon import Horizon
from shared.db.log import Entry, append_progress, read_log
from shared.errors import Outcome
from shared.machine import FIND_NOTHING, UNCHANGED, curate_trigger
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, all_parcels, parcel_database, somebody_waits_for_a_lock

TABLE = transition_table(PARCELS)
ROUNDS = 40
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database with the tables of `parcels`."""
    async with parcel_database(database_url) as database:
        yield database


async def add(database: Database, size: int, *, backwards: bool = False) -> list[UUID]:
    """Saves so many new parcels, the table in order of the keys or in the opposite one. Returns their keys in order."""
    keys = [UUID(int=n) for n in range(1, size + 1)]
    saved = [str(key) for key in (reversed(keys) if backwards else keys)]
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO parcels (id, name) SELECT unnest(%s::uuid[]), 'a parcel'", (saved,))
    return keys


async def set_status(database: Database, status: str, keys: Sequence[UUID] | None, **options: Any) -> Curated:
    """One call in a transaction of its own."""
    async with database.transaction() as connection:
        return await set_status_in(connection, status, keys, **options)


async def set_status_in(connection: Connection, status: str, keys: Sequence[UUID] | None, **options: Any) -> Curated:
    """One call in a transaction that the caller has opened."""
    options.setdefault("batch", NewBatch(status=status))
    call = CurateCall(trigger=curate_trigger(status), keys=keys, **options)
    return await curate(connection, PARCELS, TABLE, call)


async def entries(database: Database) -> list[Entry]:
    """The whole log, however large its entries are."""
    log: list[Entry] = []
    async with database.transaction() as connection:
        while more := await read_log(connection, after=log[-1].position if log else 0, through=2**62, limit=1_000_000):
            log += more
    return log


async def state(database: Database) -> tuple[list[dict[str, Any]], list[Entry], tuple[Any, ...]]:
    """All that a call could have changed."""
    async with database.transaction() as connection:
        counts = "SELECT (SELECT count(*) FROM status_batch), (SELECT count(*) FROM batch_outcome)"
        row = await (await connection.execute(counts)).fetchone()
    assert row is not None
    return await all_parcels(database), await entries(database), row


async def test_overlapping_batches_in_opposite_orders_neither_deadlock_nor_lose_an_update(database: Database) -> None:
    keys = await add(database, 60)
    there, back = keys[:40], list(reversed(keys[20:]))
    changed = 0
    for n in range(ROUNDS):
        statuses = ("Selected", "New") if n % 2 else ("New", "Selected")
        answers = await asyncio.gather(
            set_status(database, statuses[0], there, allow_partial=True),
            set_status(database, statuses[1], back, allow_partial=True),
        )
        changed += sum(answer.changed for answer in answers)
    rows = await all_parcels(database)
    assert sum(row["version"] - 1 for row in rows) == changed > 0
    versions = defaultdict[str, list[int]](list)
    for entry in await entries(database):
        for item, version in zip(entry.items, entry.versions, strict=True):
            versions[item].append(version)
    assert versions == {str(row["id"]): list(range(2, row["version"] + 1)) for row in rows if row["version"] > 1}


async def test_batches_that_meet_half_way_from_both_ends_do_not_deadlock(database: Database) -> None:
    # Few keys are looked up by the index, in its order, and many met in the order of the table: unless put in order.
    keys = await add(database, 5_000, backwards=True)
    few = keys[499::500]
    async with database.transaction() as connection:
        await connection.execute("ANALYZE parcels")
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", (few[len(few) // 2],))
        calls = [
            asyncio.create_task(set_status(database, "Selected", chosen, allow_partial=True)) for chosen in (few, keys)
        ]
        await waiting(connection, len(calls))
    answers = await asyncio.gather(*calls)
    assert sum(answer.changed for answer in answers) == len(keys)


async def test_reports_of_progress_move_no_number_of_a_batch(database: Database) -> None:
    answer = await set_status(database, "Scan", await add(database, 1))
    assert answer.batch is not None
    async with database.transaction() as connection:
        (item,) = (await claim(connection, PARCELS, TABLE, session=1, limit=1)).items
        await append_progress(connection, PARCELS, [(item.key, item.version, "asking", 0.5)])
        progress = await read_progress(connection, answer.batch)
    assert (progress.total, progress.queued, progress.processing) == (1, 0, 1)


async def test_results_of_a_worker_wait_for_items_in_the_order_that_all_others_do(database: Database) -> None:
    keys = await add(database, 2)
    await set_status(database, "Scan", keys)
    async with database.transaction() as connection:
        items = (await claim(connection, PARCELS, TABLE, session=1, limit=2)).items
        await connection.execute("UPDATE parcels SET name = name WHERE id = %s", (keys[0],))  # the table has it last
    results = [Result(item, FIND_NOTHING) for item in sorted(items, key=lambda item: str(item.key), reverse=True)]
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", (keys[0],))
        finishing = asyncio.create_task(end(database, results))
        await somebody_waits_for_a_lock(database)
        await connection.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE NOWAIT", (keys[1],))
    assert (await finishing).saved == 2


async def end(database: Database, results: Sequence[Result]) -> Finished:
    async with database.transaction() as connection:
        return await finish(connection, PARCELS, TABLE, results)


async def waiting(connection: Connection, size: int) -> None:
    """Returns once so many of this database's connections wait for a lock."""
    statement = """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(WAIT_S):
        while True:
            # In a transaction the statistics are those of its first look.
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            if (await (await connection.execute(statement)).fetchall()) == [(size,)]:
                return


async def test_a_batch_that_waited_judges_what_the_other_left(database: Database) -> None:
    keys = await add(database, 3)
    async with database.transaction() as first:
        await set_status_in(first, "Archived", keys[1:])
        second = asyncio.create_task(set_status(database, "Scan", list(reversed(keys)), allow_partial=True))
        await somebody_waits_for_a_lock(database)
    answer = await second
    assert (answer.changed, answer.queued, dict(answer.counts)) == (1, 1, {"illegal_transition": 2})
    assert {outcome.status for outcome in answer.outcomes} == {"Archived"}
    assert [(row["status"], row["version"]) for row in await all_parcels(database)] == [
        ("Scan", 2),
        ("Archived", 2),
        ("Archived", 2),
    ]


async def test_an_atomic_batch_with_one_refused_item_changes_nothing_and_names_it(database: Database) -> None:
    keys, absent = await add(database, 4), UUID(int=10**6)
    await set_status(database, "Archived", keys[2:3])
    before = await state(database)
    answer = await set_status(database, "Scan", [*keys, absent])
    assert answer.refused == 2
    assert answer.position is None
    assert list(answer.outcomes) == [
        Outcome(str(keys[2]), "illegal_transition", "Archived", "none", 2),
        Outcome(str(absent), "not_found", None, None, None),
    ]
    assert await state(database) == before


async def test_an_atomic_batch_takes_no_offence_at_items_that_are_there_already(database: Database) -> None:
    keys = await add(database, 2)
    await set_status(database, "Selected", keys[:1])
    answer = await set_status(database, "Selected", keys)
    assert (answer.requested, answer.changed, answer.refused, dict(answer.counts)) == (2, 1, 0, {UNCHANGED: 1})


async def test_a_partial_batch_changes_the_rest_and_stores_what_it_left(database: Database) -> None:
    keys, absent = await add(database, 4), UUID(int=10**6)
    await set_status(database, "Archived", keys[2:3])
    answer = await set_status(database, "Scan", [*keys, absent], allow_partial=True)
    assert (answer.requested, answer.changed, answer.queued, answer.refused) == (5, 3, 3, 2)
    rows = await all_parcels(database)
    assert [(row["status"], row["scan_status"], row["scan_batch"], row["version"]) for row in rows] == [
        *[("Scan", "queued", answer.batch, 2)] * 2,
        ("Archived", None, None, 2),
        ("Scan", "queued", answer.batch, 2),
    ]
    async with database.transaction() as connection:
        outcomes = "SELECT item, reason FROM batch_outcome WHERE batch = %s ORDER BY ordinal"
        stored = await (await connection.execute(outcomes, (answer.batch,))).fetchall()
    assert stored == [(str(keys[2]), "illegal_transition"), (str(absent), "not_found")]


@pytest.mark.parametrize("allow_partial", [False, True])
async def test_an_item_of_another_version_than_expected_is_left_as_it_is(
    database: Database, allow_partial: bool
) -> None:
    keys = await add(database, 3)
    await set_status(database, "Selected", keys[:1])
    answer = await set_status(database, "Scan", keys, versions=[1, 1, None], allow_partial=allow_partial)
    assert list(answer.outcomes) == [Outcome(str(keys[0]), "stale_version", "Selected", "none", 2)]
    rows = await all_parcels(database)
    assert [row["status"] for row in rows] == ["Selected", *["Scan" if allow_partial else "New"] * 2]


@pytest.mark.parametrize("allow_partial", [False, True])
async def test_a_call_without_a_batch_tells_what_would_happen_and_changes_nothing(
    database: Database, allow_partial: bool
) -> None:
    keys = await add(database, 3)
    await set_status(database, "Archived", keys[:1])
    before = await state(database)
    answer = await set_status(database, "Scan", keys, batch=None, allow_partial=allow_partial)
    assert (answer.changed, answer.queued, answer.refused, answer.position) == (2, 2, 1, None)
    assert await state(database) == before


async def test_the_queue_is_part_of_the_same_transaction(database: Database) -> None:
    keys = await add(database, 2)
    before = await state(database)
    async with database.transaction() as connection:
        assert (await set_status_in(connection, "Scan", keys)).queued == 2
        await connection.rollback()
    assert await state(database) == before
    await set_status(database, "Scan", keys)
    rows, log, _ = await state(database)
    assert {(row["status"], row["scan_status"]) for row in rows} == {("Scan", "queued")}
    assert [(entry.to_status, entry.to_queue, sorted(entry.items)) for entry in log] == [
        ("Scan", "queued", [str(key) for key in keys])
    ]


async def test_ten_thousand_keys_and_a_hundred_thousand_matches_go_through_at_once(database: Database) -> None:
    keys = await add(database, 100_000)
    by_key = await set_status(database, "Selected", keys[:10_000])
    assert (by_key.requested, by_key.changed, by_key.refused) == (10_000, 10_000, 0)
    where = sql.SQL("s.name = %(name)s")
    by_filter = await set_status(database, "Scan", None, where=where, parameters={"name": "a parcel"})
    assert (by_filter.requested, by_filter.changed, by_filter.queued) == (100_000, 100_000, 100_000)
    async with database.transaction() as connection:
        cursor = await connection.execute(
            "SELECT status, scan_status, version, count(*) FROM parcels GROUP BY 1, 2, 3 ORDER BY 3"
        )
        assert await cursor.fetchall() == [("Scan", "queued", 2, 90_000), ("Scan", "queued", 3, 10_000)]
    assert sum(len(entry.items) for entry in await entries(database)) == 110_000


async def test_more_matches_than_allowed_change_nothing(database: Database) -> None:
    await add(database, 3)
    before = await state(database)
    answer = await set_status(database, "Scan", None, where=sql.SQL("true"), items_max=2)
    assert (answer.requested, answer.position) == (3, None)
    assert await state(database) == before


async def test_a_reader_that_remembers_the_last_position_misses_a_late_commit_and_the_horizon_does_not(
    database: Database,
) -> None:
    keys, horizon = await add(database, 2), Horizon()
    reader = await connect(database.url, name=f"reader {uuid4()}")
    async with reader:
        start = await advanced(horizon, reader, 1)
        async with database.transaction() as older:
            early = (await set_status_in(older, "Scan", keys[:1])).position
            late = (await set_status(database, "Scan", keys[1:])).position
            assert early is not None
            assert late is not None
            assert start < early < late
            # What a naive reader sees, and remembers.
            assert [e.position for e in await read_log(reader, after=start, through=2**62, limit=10)] == [late]
            assert await horizon.advance(reader) < early
            assert await read_log(reader, after=start, through=horizon.position, limit=10) == []
        assert [e.position for e in await read_log(reader, after=late, through=2**62, limit=10)] == []
        safe = await advanced(horizon, reader, late)
        assert [e.position for e in await read_log(reader, after=start, through=safe, limit=10)] == [early, late]


async def advanced(horizon: Horizon, reader: Connection, position: int) -> int:
    """Waits until the horizon has reached a position: other databases of the server may hold it back for a moment."""
    async with asyncio.timeout(WAIT_S):
        while await horizon.advance(reader) < position:
            pass
    return horizon.position
