"""A batch that is open for longer than the log is kept: its watchers, lists and numbers have what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation_service import snapshot
from curation_service.selected_rows import read_pages
from curation_service.snapshot import Snapshots
from curation_service.watch_request import WatchRequest, read_watch
from shared.db.engine import Database
from shared.db.log import append_progress, log_identity
from shared.db.partitions import keep_partitions
from shared.errands import Errands
from shared.registry import Registry
from tests.integration import test_old_batches
from tests.integration.test_old_batches import end, make_batch, take
from tests.integration.test_partitions import keep
from tests.integration.test_watch import watching
from tests.support.batches import parcel_id
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, running_service, somebody_waits_for_a_lock

pytestmark = pytest.mark.postgres_versions
database = test_old_batches.database

LATER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Left:
    """A batch of which the log has dropped all but what happened last."""

    service: RunningService
    batch: str


@pytest.fixture
async def left(database: Database) -> AsyncIterator[Left]:
    """Of eight parcels 1 was done before, and 5 since; 2 to 4 and 6 were claimed before, 7 and 8 wait."""
    batch = await make_batch(database, "Scan", *range(1, 9))
    items = {item.key.int: item for item in await take(database, 6)}
    await make_batch(database, "Scan", 9)
    await end(database, [items[1]])
    await end(database, [items[2]], "retry", error="no", delay_s=LATER_S)
    with psycopg.connect(database.url, autocommit=True) as connection:
        assert keep(connection, retention_days=1).dropped == 1
    await end(database, [items[4]], "release")
    await end(database, [items[5]])
    async with database.transaction() as driver:
        await append_progress(driver, PARCELS, [(items[3].key, items[3].version, "weighing", 0.5)])
    async with running_service(database.url) as service:
        yield Left(service, str(batch))


async def watch_of(database: Database, batch: str) -> WatchRequest:
    async with database.transaction() as connection:
        log = (await log_identity(connection)).id
    request = pb.WatchStatusRequest(resource="parcels", batch_id=batch)
    return read_watch(request, Registry(PARCELS), log=log, items_max=1)


@pytest.mark.parametrize("page_size", [2, snapshot.PAGE_SIZE])
async def test_the_snapshot_of_an_open_batch_has_what_waits_or_is_under_way_though_the_log_dropped_it(
    left: Left, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "PAGE_SIZE", page_size)
    async with watching(left.service, batch_id=left.batch) as stream:
        told = [item.id for message in stream.messages for item in message.snapshot.items]
        assert sorted(told) == [parcel_id(n) for n in range(2, 9)], "each once; not what was done before"
        assert stream.messages[-1].snapshot_end.item_count == len(told)
        await take(left.service.database, 1)
        assert [kind for _, _, kind in await stream.events(1)] == ["claim"]


async def test_a_snapshot_that_begins_while_the_log_is_being_dropped_lacks_nothing(database: Database) -> None:
    watch = await watch_of(database, str(await make_batch(database, "Scan", 1, 2)))
    async with Errands(at_once=1) as errands:
        snapshots = Snapshots(database=database, errands=errands)

        async def count() -> int:
            async with snapshots.taken(watch) as snapshot:
                return snapshot.item_count

        with psycopg.connect(database.url) as keeper:
            assert keep_partitions(keeper, retention_days=1).dropped == 1
            counting = asyncio.create_task(count())
            await somebody_waits_for_a_lock(database, relation="status_event")
        assert await counting == 2


async def test_who_leaves_amid_such_a_snapshot_leaves_no_cursor_behind(left: Left) -> None:
    async with left.service.database.core(isolation="REPEATABLE READ") as connection:
        watch = await watch_of(left.service.database, left.batch)
        pages = read_pages(connection, watch, size=2, lacks_batch=True)
        assert len(await anext(pages)) == 2
        await pages.aclose()
        assert await connection.scalar(text("SELECT count(*) FROM pg_cursors")) == 0


async def test_lists_items_and_numbers_of_an_open_batch_are_whole_though_the_log_dropped_it(left: Left) -> None:
    stub = left.service.stub
    for asked, numbers in (("", range(1, 9)), (" AND queue_status = queued", (2, 4, 7, 8))):
        query = pb.ListItemsRequest(resource="parcels", filter=f"batch_id = {left.batch}{asked}")
        assert [item.id for item in (await stub.ListItems(query)).items] == [parcel_id(n) for n in numbers]
    progress = (await stub.GetBatch(pb.GetBatchRequest(batch_id=left.batch))).progress
    assert (progress.total, progress.queued, progress.processing, progress.completed) == (8, 4, 2, 2)
    for number, kinds in ((7, []), (4, ["release"])):
        found = await stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(number)))
        assert (found.item.batch_id, found.item.queue_status) == (left.batch, pb.QUEUE_STATUS_QUEUED)
        assert [event.kind for event in found.history] == kinds, "a history is as long as the log"
