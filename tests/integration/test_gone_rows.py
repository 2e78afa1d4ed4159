"""Rows that are gone before their end close their batch, and nothing else is ever taken for gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from curation.v1 import curation_pb2 as pb
from curation_service import gone_rows, progress
from curation_service.gone_rows import GoneRows
from shared.db.batches import Progress, read_progress
from shared.db.claim import claim
from shared.db.engine import Database
from shared.db.gone import count_gone
from shared.db.sessions import open_session
from shared.failure import Failure
from shared.table import transition_table
from shared.workflow import Item
from tests.integration.test_old_batches import end, make_batch, take
from tests.support.eventually import DEADLINE_S, eventually_async
from tests.support.parcels import PARCELS
from tests.support.service import add_many, parcel_database, running_service
from tests.support.shops import not_waiting
from tests.support.worker import GADGETS

Connection = psycopg.Connection[Any]
COUNT = 300
FAILURE = Failure.of("an API", "HTTP 500", "no")
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Some hundreds of parcels."""
    async with parcel_database(database_url) as database:
        await add_many(database, COUNT)
        yield database


@pytest.fixture
def connection(database: Database) -> Any:
    """A connection that commits each statement."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection


def look(connection: Connection, *batches: int) -> int:
    """Looks for what is gone of these batches."""
    with connection.transaction():
        return count_gone(connection, PARCELS, batches)


def delete(connection: Connection, *numbers: int) -> None:
    keys = [UUID(int=number) for number in numbers]
    assert connection.execute("DELETE FROM parcels WHERE id = ANY(%s)", [keys]).rowcount == len(keys)


async def progress_of(database: Database, batch: int) -> Progress:
    async with database.transaction() as reader:
        return await read_progress(reader, batch)


async def waiting_under_way_kept_and_queued(database: Database) -> tuple[int, Sequence[Item], int]:
    """A batch of four: one waits for its next attempt, two are with a worker, and the number of one that is queued."""
    batch = await make_batch(database, "Scan", 1, 2, 3, 4)
    items = await take(database, 3)
    await end(database, items[:1], "retry", error="no", failure=FAILURE, delay_s=3600.0)
    queued = ({1, 2, 3, 4} - {item.key.int for item in items}).pop()
    return batch, items, queued


async def test_rows_that_are_deleted_before_their_end_are_counted_as_dequeued_once(
    database: Database, connection: Connection
) -> None:
    batch, (waiting, under_way, kept), queued = await waiting_under_way_kept_and_queued(database)
    other = await make_batch(database, "Scan", 5)
    delete(connection, waiting.key.int, under_way.key.int, queued)
    assert await progress_of(database, batch) == Progress(4, 2, 2, 0, 0, 0), "nobody has looked"
    assert look(connection, batch, other, 10**9) == 1
    assert await progress_of(database, batch) == Progress(4, 0, 1, 0, 0, 3)
    assert look(connection, batch, other) == 0
    await end(database, [under_way, kept])
    assert await progress_of(database, batch) == Progress(4, 0, 0, 1, 0, 3)
    assert await progress_of(database, other) == Progress(1, 1, 0, 0, 0, 0)
    assert look(connection, batch, other) == 0


async def test_rows_that_are_back_are_counted_back(database: Database, connection: Connection) -> None:
    batch, (_, under_way, kept), queued = await waiting_under_way_kept_and_queued(database)
    before = await progress_of(database, batch)
    connection.execute("CREATE TABLE detached AS SELECT * FROM parcels WHERE id <> %s", [kept.key])
    connection.execute("DELETE FROM parcels WHERE id <> %s", [kept.key])
    assert look(connection, batch) == 1
    assert await progress_of(database, batch) == Progress(4, 0, 1, 0, 0, 3)
    connection.execute("INSERT INTO parcels SELECT * FROM detached")
    assert look(connection, batch) == 1
    assert await progress_of(database, batch) == before
    await end(database, [under_way, kept])
    assert {item.key.int for item in await take(database, 1)} == {queued}
    assert look(connection, batch) == 0


async def test_a_batch_of_another_workflow_is_passed_over(database: Database, connection: Connection) -> None:
    batch = await make_batch(database, "Scan", 1, 2)
    connection.execute("TRUNCATE parcels")
    connection.execute("UPDATE status_batch SET resource = 'others' WHERE id = %s", [batch])
    assert look(connection, batch) == 0
    connection.execute("UPDATE status_batch SET resource = 'parcels' WHERE id = %s", [batch])
    assert look(connection, batch) == 1
    assert (await progress_of(database, batch)).done


async def test_what_a_batch_lost_to_another_one_is_not_gone(database: Database, connection: Connection) -> None:
    first = await make_batch(database, "Scan", 1, 2, 3)
    await make_batch(database, "Selected", 1)
    second = await make_batch(database, "Scan", 1, 2, 3)
    assert look(connection, first, second) == 0
    delete(connection, 1, 3)
    assert look(connection, first, second) == 2
    assert await progress_of(database, first) == Progress(3, 1, 0, 0, 0, 2)
    assert await progress_of(database, second) == Progress(1, 0, 0, 0, 0, 1)


async def test_an_item_that_its_worker_claimed_twice_is_one(database: Database, connection: Connection) -> None:
    batch = await make_batch(database, "Scan", 1, 2)
    async with database.transaction() as writer:
        session = await open_session(writer, host="h", version="1", resources=["parcels"])
    for _ in range(2):
        async with database.transaction() as writer:
            claimed = await claim(writer, PARCELS, transition_table(PARCELS), session=session, limit=2)
        assert len(claimed.items) == 2
        assert look(connection, batch) == 0
        await end(database, claimed.items, "release")
    assert look(connection, batch) == 0


async def test_one_at_a_time_looks(database: Database, connection: Connection) -> None:
    with psycopg.connect(database.url) as other:
        count_gone(other, PARCELS, [])
        with not_waiting(), pytest.raises(LockNotAvailable):
            look(connection)


async def test_nothing_is_taken_for_gone_while_workers_are_busy(database: Database, connection: Connection) -> None:
    batches = [await make_batch(database, "Scan", *range(start, COUNT, 3)) for start in (1, 2, 3)]
    triggers = ("find_nothing", "retry", "fail", "release")

    async def work(turn: int) -> None:
        for round_ in range(20):
            items = await take(database, 4)
            trigger = triggers[(turn + round_) % 4]
            failed = {"error": "no", "failure": FAILURE} if trigger in ("retry", "fail") else {}
            await end(database, items, trigger, **failed)

    async def look_on(workers: asyncio.Future[Any]) -> int:
        looks = 0
        while not workers.done():
            assert await asyncio.to_thread(look, connection, *batches) == 0
            looks += 1
        return looks

    workers = asyncio.gather(*map(work, range(3)))
    assert await look_on(workers) > 1
    await workers


async def test_only_batches_that_somebody_was_told_of_since_are_looked_at(
    database: Database, connection: Connection
) -> None:
    batch = await make_batch(database, "Scan", 1)
    looks = GoneRows(url=database.url, workflows=[PARCELS])
    looks.told(batch, await progress_of(database, batch))
    await looks._look()
    delete(connection, 1)
    await looks._look()
    assert not (await progress_of(database, batch)).done
    looks.told(batch, await progress_of(database, batch))
    await looks._look()
    assert (await progress_of(database, batch)).done


async def test_who_is_told_to_stop_looks_at_nothing_more(database: Database, connection: Connection) -> None:
    batch = await make_batch(database, "Scan", 1)
    delete(connection, 1)
    looks = GoneRows(url=database.url, workflows=[PARCELS])
    looks.told(batch, await progress_of(database, batch))
    await looks.stop()
    await looks._look()
    assert not (await progress_of(database, batch)).done


async def test_a_workflow_that_cannot_be_looked_at_is_left_for_later_and_others_are_not(
    database: Database, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    batch = await make_batch(database, "Scan", 1)
    delete(connection, 1)
    looks = GoneRows(url=database.url, workflows=[GADGETS, PARCELS])  # no gadgets here
    looks.told(batch, await progress_of(database, batch))
    await looks._look()
    assert "gadgets: whether rows are gone is left for later" in caplog.text
    assert (await progress_of(database, batch)).done


@pytest.mark.parametrize("watched", [True, False])
async def test_who_waits_for_a_batch_hears_that_it_is_done_though_rows_of_it_are_gone(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr(gone_rows, "INTERVAL_S", 3 * progress.INTERVAL_S)
    monkeypatch.setattr(progress, "LOOK_S", 0.1)
    batch = await make_batch(database, "Scan", 1, 2)
    async with running_service(database.url) as service:
        delete(connection, 1, 2)
        if watched:
            request = pb.WatchStatusRequest(resource="parcels", batch_id=str(batch), end_when_done=True)
            call = service.stub.WatchStatus(request, timeout=DEADLINE_S)
            *_, last = [part.progress async for part in call if part.HasField("progress")]
        else:

            async def is_done() -> bool:
                return (await service.stub.GetBatch(pb.GetBatchRequest(batch_id=str(batch)))).progress.done

            await eventually_async(is_done)
            last = (await service.stub.GetBatch(pb.GetBatchRequest(batch_id=str(batch)))).progress
        assert (last.done, last.dequeued) == (True, 2)
