"""Whose turn it is in the queue: batches take turns, what had to wait goes first, what is held stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from curation.v1 import curation_pb2 as pb
from shared.db.batches import read_progress
from shared.db.claim import Claimed, claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Database
from shared.db.finish import Result, finish
from shared.machine import curate_trigger
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, all_parcels, parcel_database, refused, running_service

TABLE = transition_table(PARCELS)
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database with the tables of `parcels`."""
    async with parcel_database(database_url) as database:
        yield database


async def add(database: Database, size: int) -> list[UUID]:
    """Saves so many parcels. Returns their keys."""
    async with database.transaction() as connection:
        statement = "INSERT INTO parcels (name) SELECT 'a parcel' FROM generate_series(1, %s) RETURNING id"
        return [row[0] for row in await (await connection.execute(statement, (size,))).fetchall()]


async def queue(database: Database, keys: Sequence[UUID], *, weight: float = 1.0, cancel: bool = False) -> int:
    """Queues items as a batch of their own. Returns its id."""
    async with database.transaction() as connection:
        call = CurateCall(
            trigger=curate_trigger("Scan"),
            keys=keys,
            batch=NewBatch(status="Scan"),
            weight=weight,
            cancel_in_flight=cancel,
        )
        curated = await curate(connection, PARCELS, TABLE, call)
    assert curated.batch is not None
    return curated.batch


async def take(database: Database, limit: int, *, from_turn: float = float("-inf"), probe: bool = False) -> Claimed:
    """One claim in a transaction of its own."""
    async with database.transaction() as connection:
        return await claim(connection, PARCELS, TABLE, session=1, limit=limit, from_turn=from_turn, probe=probe)


async def end(database: Database, claimed: Claimed, trigger: str, *, delay_s: float = 0.0) -> None:
    """Ends what was claimed."""
    async with database.transaction() as connection:
        results = [Result(item, trigger, delay_s=delay_s) for item in claimed.items]
        assert (await finish(connection, PARCELS, TABLE, results)).dropped == 0


async def execute(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(statement.encode())


async def test_a_small_batch_behind_a_large_one_is_served_between_its_items(database: Database) -> None:
    keys = await add(database, 1_010)
    await queue(database, keys[:1_000])
    large = {item.key for item in (await take(database, 100)).items}
    assert large <= set(keys[:1_000])
    await queue(database, keys[1_000:])
    taken = {item.key for item in (await take(database, 22)).items}
    assert set(keys[1_000:]) <= taken


async def test_batches_share_by_their_weights(database: Database) -> None:
    keys = await add(database, 900)
    batches = {
        await queue(database, keys[:300], weight=0.1): "low",
        await queue(database, keys[300:600]): "normal",
        await queue(database, keys[600:], weight=10.0): "high",
    }
    claimed = await take(database, 222)
    async with database.transaction() as connection:
        keys_taken = [item.key for item in claimed.items]
        rows = await connection.execute("SELECT scan_batch FROM parcels WHERE id = ANY(%s)", (keys_taken,))
        shares = Counter(batches[row[0]] for row in await rows.fetchall())
    assert shares == {"low": 2, "normal": 20, "high": 200}


async def test_batches_share_by_the_priority_that_they_came_with(database_url: str) -> None:
    async with running_service(database_url) as service:
        keys = await add(service.database, 900)
        batches: dict[str, str] = {}
        for name, some in (("low", keys[:300]), ("normal", keys[300:600]), ("high", keys[600:])):
            request = pb.BatchUpdateStatusRequest(
                resource="parcels",
                status="Scan",
                ids=pb.ItemIds(ids=map(str, some)),
                priority=f"BATCH_PRIORITY_{name.upper()}",
            )
            batch = (await service.stub.BatchUpdateStatus(request)).batch
            assert batch.priority == request.priority
            assert (await service.stub.GetBatch(pb.GetBatchRequest(batch_id=batch.batch_id))).batch == batch
            batches[batch.batch_id] = name
        taken = [item.key for item in (await take(service.database, 222)).items]
        rows = [row for row in await all_parcels(service.database) if row["id"] in taken]
        shares = Counter(batches[str(row["scan_batch"])] for row in rows)
    assert shares == {"low": 2, "normal": 20, "high": 200}


async def test_a_retry_has_a_priority_too_and_an_unknown_one_changes_nothing(database_url: str) -> None:
    async with running_service(database_url) as service:
        (key,) = await add(service.database, 1)
        await queue(service.database, [key])
        await end(service.database, await take(service.database, 1), "fail")
        request = pb.RetryFailedRequest(resource="parcels", ids=pb.ItemIds(ids=[str(key)]))
        request.priority = 9  # type: ignore[assignment] # as a newer client may send
        before = await all_parcels(service.database)
        assert [field for field, _ in (await refused(service.stub.RetryFailed(request))).fields] == ["priority"]
        assert await all_parcels(service.database) == before
        request.priority = pb.BATCH_PRIORITY_HIGH
        assert (await service.stub.RetryFailed(request)).batch.priority == pb.BATCH_PRIORITY_HIGH
        request.validate_only = True
        assert (await service.stub.RetryFailed(request)).batch.priority == pb.BATCH_PRIORITY_HIGH
        plain = pb.RetryFailedRequest(resource="parcels", filter="id:*")
        assert (await service.stub.RetryFailed(plain)).batch.priority == pb.BATCH_PRIORITY_NORMAL


async def test_items_are_claimed_in_the_order_of_their_turns(database: Database) -> None:
    keys = sorted(await add(database, 30))
    await queue(database, keys)
    taken = [sorted(item.key for item in (await take(database, 10)).items) for _ in range(3)]
    assert taken == [keys[:10], keys[10:20], keys[20:]]


async def test_a_claim_that_starts_where_the_last_one_ended_misses_nothing(database: Database) -> None:
    keys = sorted(await add(database, 30))
    await queue(database, keys[:15])
    await queue(database, keys[15:])  # two of each turn, and one claim ends between two
    seen: list[UUID] = []
    turn = float("-inf")
    while (claimed := await take(database, 9, from_turn=turn)).items:
        assert claimed.turn > turn
        turn = claimed.turn
        seen += [item.key for item in claimed.items]
    assert (sorted(seen), turn) == (keys, 14)
    await queue(database, (await add(database, 1)))
    assert not (await take(database, 7, from_turn=turn)).items
    assert len((await take(database, 7)).items) == 1


@pytest.mark.parametrize("waited", [False, True], ids=["first", "again"])
async def test_a_claim_waits_for_no_row_that_others_hold(database: Database, waited: bool) -> None:
    keys = sorted(await add(database, 3))
    await queue(database, keys)
    if waited:
        await end(database, await take(database, 3), "release")
    async with database.transaction() as holder:
        await holder.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", (keys[0],))
        async with asyncio.timeout(WAIT_S):
            claimed = await take(database, 3)
    assert sorted(item.key for item in claimed.items) == keys[1:]


async def test_what_was_given_back_keeps_its_turn(database: Database) -> None:
    keys = sorted(await add(database, 20))
    await queue(database, keys)
    first = await take(database, 5)
    await end(database, first, "release")
    again = await take(database, 5)
    assert {item.key for item in again.items} == {item.key for item in first.items}
    assert {item.attempt for item in again.items} == {1}


async def test_a_retry_waits_for_its_time_and_then_goes_before_the_others(database: Database) -> None:
    keys = sorted(await add(database, 20))
    await queue(database, keys)
    first = await take(database, 2)
    await end(database, first, "retry", delay_s=3600.0)
    assert not {item.key for item in first.items} & {item.key for item in (await take(database, 10)).items}
    await execute(database, "UPDATE parcels SET scan_run_at = now() WHERE scan_run_at IS NOT NULL")
    again = await take(database, 5)
    assert {item.key for item in first.items} < {item.key for item in again.items}
    assert len(again.items) == 5


async def test_of_those_that_had_to_wait_goes_first_whose_time_came_first(database: Database) -> None:
    await queue(database, await add(database, 2))
    first, second = await take(database, 1), await take(database, 1)
    await end(database, second, "release")
    await end(database, first, "release")
    again = [item.key for _ in range(2) for item in (await take(database, 1)).items]
    assert again == [second.items[0].key, first.items[0].key]


@pytest.mark.parametrize(
    ("held", "probing"),
    [
        ("INSERT INTO workflow_state (resource, paused_at) VALUES ('parcels', now())", False),
        ("INSERT INTO api_state (api, held_until) VALUES ('parcels API', now() + interval '1 hour')", True),
        ("INSERT INTO api_state (api, broken_since) VALUES ('parcels API', now())", True),
    ],
)
async def test_nothing_is_claimed_while_the_workflow_is_paused_or_its_api_held(
    database: Database, held: str, probing: bool
) -> None:
    await queue(database, await add(database, 3))
    await execute(database, held)
    assert not (await take(database, 3)).items
    assert len((await take(database, 1, probe=True)).items) == probing
    await execute(database, "DELETE FROM workflow_state")
    await execute(database, "DELETE FROM api_state")
    assert len((await take(database, 3)).items) == 3 - probing


async def test_what_belongs_to_others_holds_nobody_back(database: Database) -> None:
    await queue(database, await add(database, 3))
    await execute(database, "INSERT INTO workflow_state (resource, paused_at) VALUES ('places', now())")
    await execute(database, "INSERT INTO api_state (api, broken_since) VALUES ('places API', now())")
    assert len((await take(database, 3)).items) == 3


@pytest.mark.parametrize("under_way", [True, False])
async def test_an_item_taken_to_another_batch_leaves_the_old_one_done(database: Database, under_way: bool) -> None:
    keys = await add(database, 3)
    old = await queue(database, keys)
    claimed = await take(database, 3)
    if not under_way:
        await end(database, claimed, "find_nothing")
    new = await queue(database, keys, cancel=True)
    async with database.transaction() as connection:
        before, after = await read_progress(connection, old), await read_progress(connection, new)
    assert (before.queued, before.processing, before.done) == (0, 0, True)
    assert (before.completed, before.dequeued) == ((0, 3) if under_way else (3, 0))
    assert (after.queued, after.total, after.done) == (3, 3, False)
