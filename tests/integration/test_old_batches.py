"""Batches that are over go with their outcomes, and only those: on a real PostgreSQL, with the writer's own log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from psycopg.errors import AdminShutdown, LockNotAvailable

from curation.v1 import curation_pb2 as pb
from curation_service.log_keeper import LogKeeper
from shared.db import old_batches
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Database
from shared.db.finish import Result, finish
from shared.db.old_batches import Dropped, drop_batches
from shared.db.sessions import open_session
from shared.failure import Failure
from shared.machine import curate_trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.integration.test_partitions import LATER_DAYS, go_back_to, keep, name_of, partitions, today
from tests.support.batches import parcel_id, update
from tests.support.eventually import eventually_async
from tests.support.parcels import PARCELS
from tests.support.service import add_many, parcel_database, refused, running_service
from tests.support.shops import not_waiting

Connection = psycopg.Connection[Any]
TABLE = transition_table(PARCELS)
RETENTION_DAYS = 365
AGE = "UPDATE status_batch SET created_at = created_at - interval '400 days'"
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Ten parcels, and a log that nobody has kept for some weeks."""
    async with parcel_database(database_url) as database:
        await add_many(database, 10)
        with psycopg.connect(database_url, autocommit=True) as connection:
            go_back_to(connection, today(connection) - timedelta(days=LATER_DAYS))
        yield database


@pytest.fixture
def connection(database: Database) -> Any:
    """A connection that commits each statement."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection


async def make_batch(database: Database, status: str, *numbers: int, **named: Any) -> int:
    """Sets a status on parcels, as far as they are there. Returns the batch."""
    call = CurateCall(
        trigger=curate_trigger(status),
        keys=[UUID(int=number) for number in numbers],
        batch=NewBatch(status=status, **named),
        allow_partial=True,
    )
    async with database.transaction() as connection:
        curated = await curate(connection, PARCELS, TABLE, call)
    assert curated.batch is not None
    return curated.batch


async def take(database: Database, count: int) -> Sequence[Item]:
    """Claims as many of what is queued."""
    async with database.transaction() as connection:
        session = await open_session(connection, host="h", version="1", resources=["parcels"])
        claimed = await claim(connection, PARCELS, TABLE, session=session, limit=count)
    assert len(claimed.items) == count
    return claimed.items


async def end(database: Database, items: Sequence[Item], trigger: str = "find_nothing", **result: Any) -> None:
    async with database.transaction() as connection:
        await finish(connection, PARCELS, TABLE, [Result(item, trigger, **result) for item in items])


def drop(connection: Connection, after: int = 0) -> Dropped:
    with connection.transaction():
        return drop_batches(connection, retention_days=RETENTION_DAYS, after=after)


def forget(connection: Connection) -> None:
    """Drops the part of the log in which everything was, and has batches grow old."""
    assert keep(connection, retention_days=1).dropped == 1
    connection.execute(AGE)


def there(connection: Connection) -> list[tuple[int, int]]:
    """Each batch that is there, or has outcomes, with how many."""
    rows = connection.execute(
        """SELECT id, count(ordinal) FROM (SELECT id FROM status_batch UNION SELECT batch FROM batch_outcome) b (id)
        LEFT JOIN batch_outcome o ON o.batch = b.id GROUP BY id ORDER BY id"""
    ).fetchall()
    assert (
        connection.execute("SELECT FROM batch_outcome WHERE batch NOT IN (SELECT id FROM status_batch)").rowcount == 0
    )
    return [(batch, outcomes) for batch, outcomes in rows]


async def test_a_batch_goes_with_its_outcomes_once_it_is_old_and_the_log_has_dropped_all_of_it(
    database: Database, connection: Connection
) -> None:
    batch = await make_batch(database, "Scan", 1, 2, 97, 98, 99)
    await end(database, await take(database, 2))
    assert (drop(connection).count, there(connection)) == (0, [(batch, 3)])
    connection.execute(AGE)
    assert (drop(connection).count, there(connection)) == (0, [(batch, 3)]), "it is in the log"
    assert keep(connection, retention_days=1).dropped == 1
    connection.execute("UPDATE status_batch SET created_at = now() - interval '364 days'")
    assert (drop(connection), there(connection)) == (Dropped(0, None), [(batch, 3)]), "it is young"
    connection.execute("UPDATE status_batch SET created_at = now() - interval '366 days'")
    assert (drop(connection).count, there(connection)) == (1, [])


async def test_a_batch_that_changed_or_queued_nothing_goes_too(database: Database, connection: Connection) -> None:
    changed, _ = [await make_batch(database, "Selected", 1) for _ in range(2)]
    connection.execute(AGE)
    assert (drop(connection).count, there(connection)) == (1, [(changed, 0)]), "the log has what it did"
    forget(connection)
    assert (drop(connection).count, there(connection)) == (1, [])


async def test_an_open_batch_stays_however_old_and_goes_when_its_end_is_forgotten(
    database: Database, connection: Connection
) -> None:
    names = ("done", "failed", "dequeued", "waits again", "under way", "queued")
    batches = {name: await make_batch(database, "Scan", n, 99) for n, name in enumerate(names, 1)}
    await make_batch(database, "Selected", 3)
    items = {item.key.int: item for item in await take(database, 4)}
    assert sorted(items) == [1, 2, 4, 5]
    await end(database, [items[1]])
    failure = Failure.of("an API", "HTTP 500", "no")
    await end(database, [items[2]], "fail", error="no", failure=failure)
    await end(database, [items[4]], "retry", error="no", failure=failure, delay_s=3600.0)
    forget(connection)
    assert drop(connection).count == 4
    left = [(batches[name], 1) for name in ("waits again", "under way", "queued")]
    assert there(connection) == left
    assert drop(connection, after=left[-1][0]) == Dropped(0, None), "all of them have been looked at"
    await end(database, [items[5]])
    assert (drop(connection).count, there(connection)) == (0, left), "its end is in the log"
    connection.execute(
        'UPDATE status_batch SET folded = folded || \'{"processing": 0, "completed": 1}\' WHERE id = %s', [left[1][0]]
    )
    assert (drop(connection).count, there(connection)) == (1, [left[0], left[2]]), "as once that is dropped"
    await make_batch(database, "Selected", 6)
    assert drop(connection).through is None, "all that come after a young one are young"


async def test_who_is_killed_in_the_midst_leaves_batches_whole_and_the_next_goes_on(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_batches, "PORTION", 4)
    batches = [await make_batch(database, "Selected", n, 98, 99) for n in range(1, 6)]
    forget(connection)
    # Written last, it stands behind the others.
    connection.execute("UPDATE status_batch SET folded = folded WHERE id = %s", [batches[0]])
    with psycopg.connect(database.url) as killed:
        first = drop_batches(killed, retention_days=RETENTION_DAYS, after=0)
        killed.commit()
        assert first == Dropped(2, batches[1]), "a batch and its two outcomes are three, and one more is begun"
        second = drop_batches(killed, retention_days=RETENTION_DAYS, after=batches[1])
        assert second == Dropped(2, batches[3])
        connection.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
        with pytest.raises(AdminShutdown):
            killed.execute("SELECT")
    assert there(connection) == [(batch, 2) for batch in batches[2:]]
    assert drop(connection) == second
    assert drop(connection, after=batches[3]) == Dropped(1, batches[4])
    assert drop(connection, after=batches[4]) == Dropped(0, None)
    assert there(connection) == []


async def test_one_at_a_time_drops_them(database: Database, connection: Connection) -> None:
    with psycopg.connect(database.url) as other:
        drop_batches(other, retention_days=RETENTION_DAYS, after=0)
        with not_waiting(), pytest.raises(LockNotAvailable):
            drop(connection)


async def test_what_names_a_batch_that_is_gone_says_so_and_its_request_id_is_new(
    database: Database, connection: Connection
) -> None:
    request_id = uuid4()
    gone = str(await make_batch(database, "Scan", 1, 99, request_id=request_id, digest=b""))
    await end(database, await take(database, 1), "fail", error="no", failure=Failure.of("an API", "HTTP 500", "no"))
    forget(connection)
    young = await make_batch(database, "Selected", 2)
    async with running_service(database.url) as service:
        stub = service.stub

        async def is_dropped() -> bool:
            return there(connection) == [(young, 0)]

        await eventually_async(is_dropped)
        for call in (
            stub.GetBatch(pb.GetBatchRequest(batch_id=gone)),
            stub.ListBatchOutcomes(pb.ListBatchOutcomesRequest(batch_id=gone)),
            stub.ListFailureGroups(pb.ListFailureGroupsRequest(resource="parcels", batch_id=gone)),
            stub.RetryFailed(pb.RetryFailedRequest(resource="parcels", batch_id=gone)),
            stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", batch_id=gone)).read(),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_BATCH")
        listed = await stub.ListBatches(pb.ListBatchesRequest())
        assert [batch.batch_id for batch in listed.batches] == [str(young)]
        found = await stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1)))
        assert found.item.batch_id == gone, "the row still names it"
        named = await stub.ListItems(pb.ListItemsRequest(resource="parcels", filter=f"batch_id = {gone}"))
        assert [item.id for item in named.items] == [parcel_id(1)]
        again = await stub.BatchUpdateStatus(update("Selected", 1, request_id=str(request_id)))
        assert (again.replayed, again.batch.changed_count) == (False, 1)


@pytest.mark.parametrize(("retention_days", "left"), [(RETENTION_DAYS, 1), (500, 2), (None, 2)])
async def test_the_keeper_of_the_log_drops_old_batches_as_it_is_told(
    database: Database, connection: Connection, retention_days: int | None, left: int
) -> None:
    await make_batch(database, "Selected", 1, 99)
    forget(connection)
    await make_batch(database, "Selected", 2, 99)
    keeper = LogKeeper(url=database.url, retention_days=1, batch_retention_days=retention_days, workflows=[])
    keeper._keep()
    assert len(there(connection)) == left


async def test_the_keeper_drops_an_old_batch_whose_rows_are_gone_like_any_other(
    database: Database, connection: Connection
) -> None:
    await make_batch(database, "Scan", 1, 2)
    connection.execute("DELETE FROM parcels WHERE id IN (%s, %s)", [UUID(int=1), UUID(int=2)])
    still_open = await make_batch(database, "Scan", 3)
    connection.execute(AGE)
    keeper = LogKeeper(url=database.url, retention_days=1, batch_retention_days=RETENTION_DAYS, workflows=[PARCELS])
    keeper._keep()
    assert len(there(connection)) == 2, "that day it finds out"
    keeper._keep()
    assert there(connection) == [(still_open, 0)]


async def test_the_keeper_goes_on_behind_a_batch_that_stays_until_there_are_no_more(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_batches, "PORTION", 2)
    open_one = await make_batch(database, "Scan", 1)
    for n in range(2, 7):
        await make_batch(database, "Selected", n)
    connection.execute(AGE)
    LogKeeper(url=database.url, retention_days=1, batch_retention_days=RETENTION_DAYS, workflows=[])._keep()
    assert there(connection) == [(open_one, 0)]


async def test_a_keeper_that_is_told_to_stop_leaves_old_batches_for_later(
    database: Database, connection: Connection
) -> None:
    batch = await make_batch(database, "Selected", 1)
    connection.execute(AGE)
    keeper = LogKeeper(url=database.url, retention_days=1, batch_retention_days=RETENTION_DAYS, workflows=[])
    await keeper.stop()
    keeper._keep()
    assert there(connection) == [(batch, 0)]


@pytest.mark.parametrize("done", [0, 1])
async def test_a_keeper_that_comes_to_grief_keeps_what_it_has_done(
    database: Database, connection: Connection, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_batches, "PORTION", 1)
    batches = [await make_batch(database, "Selected", n) for n in range(1, 4)]
    connection.execute(AGE)
    connection.execute(
        f"""CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;
        CREATE TRIGGER curse BEFORE DELETE ON status_batch FOR EACH ROW WHEN (OLD.id = {batches[done]})
            EXECUTE FUNCTION curse()""".encode()
    )
    keeper = LogKeeper(url=database.url, retention_days=1, batch_retention_days=RETENTION_DAYS, workflows=[])
    with pytest.raises(psycopg.errors.RaiseException, match="not this one"):
        keeper._keep()
    assert there(connection) == [(batch, 0) for batch in batches[done:]]
    assert name_of(today(connection)) in partitions(connection)
