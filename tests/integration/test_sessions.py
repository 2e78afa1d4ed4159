"""What connections rely on, whatever a database was told to do by default and however many files are open."""

from __future__ import annotations

import asyncio
import os
import resource
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import psycopg
import pytest
from psycopg import sql

from curation.v1 import curation_pb2 as pb
from shared.db.access import WORKER
from shared.db.engine import Database
from shared.db.readiness import DatabaseReady
from shared.errors import StatementCanceled
from shared.registry import load_registry
from tests.support.service import RunningService, add_parcels, running_service
from tests.support.worker import World

DEFAULTS = [
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_isolation", "serializable"),
    ("datestyle", "SQL, DMY"),
    ("client_encoding", "LATIN1"),
    ("array_nulls", "off"),
    ("idle_session_timeout", "1"),
]


@pytest.mark.parametrize(("name", "value"), DEFAULTS)
async def test_defaults_of_the_database_are_set_back(database_url: str, name: str, value: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.SQL(name), value))
    async with DatabaseReady(url=database_url, workflows=load_registry().values(), access=WORKER, timeout_s=0):
        pass
    async with running_service(database_url) as service:
        keys = await add_parcels(service.database, *[{"name": "Łódź"}] * 8)
        # Whoever waits for the rows sees what the one before left.
        await asyncio.gather(*(_update(service, keys, status) for status in ("Selected", "Archived") * 4))
        shown = await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=str(keys[0])))
        assert {event.reason for event in shown.history} == {"żółć"}


async def test_the_pool_works_with_files_above_the_1023rd(database_url: str) -> None:
    with many_open_files(1_050):
        async with Database(database_url) as database:
            async with database.core() as connection:
                await connection.exec_driver_sql("SELECT 1")
            async with database.autocommit(planned_once=True) as few:
                await few.execute("SELECT 1")


async def test_a_source_whose_columns_get_other_types_costs_a_try_not_the_service(service: RunningService) -> None:
    await add_parcels(service.database, {})
    request, refusals = pb.ListItemsRequest(resource="parcels"), []
    for _ in range(12):  # until it is prepared, and planned once
        await service.stub.ListItems(request)
    async with await psycopg.AsyncConnection.connect(service.database.url) as connection:
        await connection.execute("ALTER TABLE parcels ALTER COLUMN size TYPE bigint")
    for _ in range(12):
        try:
            answer = await service.stub.ListItems(request)
        except grpc.aio.AioRpcError as error:
            refusals.append(error.code())
    assert len(answer.items) == 1
    assert refusals == [grpc.StatusCode.UNAVAILABLE]


async def test_a_source_whose_columns_get_other_types_does_not_end_a_worker(world: World) -> None:
    async with world.worker() as worker:
        for column_type in ("varchar(99)", "text"):
            await world.queue("a", "b")
            await world.ended(worker)
            async with world.transaction() as connection:
                await connection.execute(f"ALTER TABLE gadgets ALTER COLUMN name TYPE {column_type}")
        await world.queue("c")
        assert {row["lookup_status"] for row in await world.ended(worker)} == {"completed"}


async def _update(service: RunningService, keys: list[uuid.UUID], status: str) -> None:
    await service.stub.BatchUpdateStatus(
        pb.BatchUpdateStatusRequest(
            resource="parcels",
            ids=pb.ItemIds(ids=[str(key) for key in keys]),
            status=status,
            reason="żółć",
            allow_partial=True,
        )
    )


@contextmanager
def many_open_files(count: int) -> Iterator[None]:
    """So many more than there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 1_000)), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    try:
        yield
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_the_database_gave_up_on_is_told_from_a_database_that_is_away(database_url: str) -> None:
    async with Database(database_url) as database:

        async def sleep() -> None:
            async with database.transaction() as connection:
                await connection.execute("SET LOCAL statement_timeout = 1")
                await connection.execute("SELECT pg_sleep(60)")

        with pytest.raises(StatementCanceled):
            await sleep()
