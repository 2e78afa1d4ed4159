"""Lists read from a real streaming standby: as old as it is behind, and nothing else depends on it."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import psycopg

from curation.v1 import curation_pb2 as pb
from tests.support.service import WAIT_S, RunningService, add_parcels, refused, running_service
from tests.support.standby import primary_and_standby


async def statuses(service: RunningService) -> set[str]:
    """What the three calls that read say of the status of the one parcel there is."""
    page = await service.stub.ListItems(pb.ListItemsRequest(resource="parcels", with_counts=True))
    counts = await service.stub.CountItems(pb.CountItemsRequest(resource="parcels"))
    found = await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=page.items[0].id))
    return {page.items[0].status, page.counts[0].status, counts.counts[0].status, found.item.status}


async def run(url: str, statement: str) -> Any:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(statement.encode())).fetchone()
        assert row is not None
        return row[0]


async def replayed(primary: str, standby: str) -> None:
    """Returns once the standby has all that was committed."""
    written = await run(primary, "SELECT pg_current_wal_insert_lsn()")
    async with asyncio.timeout(WAIT_S):
        while await run(standby, f"SELECT pg_last_wal_replay_lsn() < '{written}'"):
            pass


async def test_lists_are_as_old_as_the_standby_and_writes_and_streams_are_not(postgres_folder: Path) -> None:
    async with (
        primary_and_standby(postgres_folder) as (primary, standby),
        running_service(primary, read_url=standby) as service,
    ):
        (key,) = await add_parcels(service.database, {})
        await replayed(primary, standby)
        assert await statuses(service) == {"New"}
        await run(standby, "SELECT pg_wal_replay_pause()")
        update = pb.BatchUpdateStatusRequest(
            resource="parcels", ids=pb.ItemIds(ids=[str(key)]), status="Selected", request_id=str(uuid.uuid4())
        )
        answer = await service.stub.BatchUpdateStatus(update)
        assert answer.batch.changed_count == 1
        assert await statuses(service) == {"New"}
        snapshot: Any = await service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels")).read()
        assert [item.status for item in snapshot.snapshot.items] == ["Selected"]
        assert (await service.stub.BatchUpdateStatus(update)).batch.batch_id == answer.batch.batch_id
        await run(standby, "SELECT pg_wal_replay_resume()")
        await replayed(primary, standby)
        assert await statuses(service) == {"Selected"}


async def test_without_its_standby_a_service_writes_and_streams_and_says_that_it_cannot_list(
    database_url: str,
) -> None:
    nobody = "postgresql://postgres@127.0.0.1:1/nothing"
    async with running_service(database_url, read_url=nobody) as service:
        await add_parcels(service.database, {})
        refusal = await refused(service.stub.ListItems(pb.ListItemsRequest(resource="parcels")))
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        snapshot: Any = await service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels")).read()
        assert len(snapshot.snapshot.items) == 1
