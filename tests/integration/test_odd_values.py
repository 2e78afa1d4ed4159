"""Values of an author's table that PostgreSQL has and Python, or protobuf, has not: they stop no page and no worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc.aio
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import JSON, Column, Interval, MetaData, Time, text

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.listing import PAGE_BYTES
from shared.db.claim import claim
from shared.db.sessions import open_session
from shared.table import transition_table
from tests.support.batches import update
from tests.support.parcels import PARCELS, parcels
from tests.support.service import RunningService, add_many, add_parcels, running_service

wide = parcels.to_metadata(MetaData())
for column in (
    Column("opens", Time),
    Column("closes", Time(timezone=True)),
    Column("lasts", Interval),
    Column("document", JSON),
):
    wide.append_column(column)
WIDE = replace(PARCELS, source=wide)
"""Parcels with columns of types that nothing can be filtered by, too."""

DEEP = 3_000
ORDERED = {"sent_at", "local_time", "due", "price"}
ODD = [
    ("sent_at", "infinity"),
    ("sent_at", "0044-03-15 BC"),
    ("local_time", "-infinity"),
    ("due", "infinity"),
    ("due", "10001-01-01"),
    ("opens", "24:00:00"),
    ("closes", "24:00:00+02"),
    ("lasts", "1000000000 days"),
    ("price", "NaN"),
    ("details", '{"a":' * 40 + "1" + "}" * 40),
    ("details", "[" * DEEP + "]" * DEEP),
    ("details", "9" * 5_000),
    ("details", "1e400"),
    ("document", "[" * DEEP + "]" * DEEP),
    ("document", "9" * 5_000),
    ("document", ' {"half a pair": "\\ud800"}'),
]


@pytest_asyncio.fixture
async def service(database_url: str) -> AsyncIterator[RunningService]:
    async with running_service(database_url, workflow=WIDE) as running:
        yield running


@pytest.mark.parametrize(("column", "value"), ODD, ids=lambda value: value[:14])
async def test_a_row_with_an_odd_value_is_listed_watched_and_claimed_with_others(
    service: RunningService, column: str, value: str
) -> None:
    await add_parcels(service.database, {}, {}, {})
    async with service.database.core() as connection:
        statement = f"UPDATE parcels SET {column} = '{value}' WHERE name <> 'parcel 3'"
        await connection.execute(text(statement.replace(":", "\\:")))
    order_by = column if column in ORDERED else "name"
    token, seen = "", []
    for _ in range(3):
        request = pb.ListItemsRequest(resource="parcels", order_by=order_by, page_size=1, page_token=token)
        page = await service.stub.ListItems(request)
        seen += [item.id for item in page.items]
        token = page.next_page_token
    assert (len(set(seen)), token) == (3, "")
    if "infinity" in value:
        request = pb.ListItemsRequest(resource="parcels", filter=f'{column} = "{value}"')
        assert len((await service.stub.ListItems(request)).items) == 2
    watching = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels"))
    async for message in watching:
        if message.WhichOneof("part") == "snapshot_end":
            assert message.snapshot_end.item_count == 3
            break
    watching.cancel()
    await service.stub.BatchUpdateStatus(update("Scan", 1, 2, 3))
    async with service.database.transaction() as driver:
        session = await open_session(driver, host="h", version="1", resources=["parcels"])
        claimed = await claim(driver, WIDE, transition_table(WIDE), session=session, limit=9)
    assert len(claimed.items) == 3


async def test_a_row_that_is_larger_than_a_page_is_one(service: RunningService) -> None:
    await add_many(service.database, 3, note="x" * (PAGE_BYTES + 1))
    page = await service.stub.ListItems(pb.ListItemsRequest(resource="parcels"))
    assert (len(page.items), page.next_page_token != "") == (1, True)


async def test_an_interval_is_told_whatever_its_length_and_however_the_database_writes_it(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(sql.SQL("ALTER DATABASE {} SET intervalstyle = iso_8601").format(database))
    async with running_service(database_url, workflow=WIDE) as service:
        await add_parcels(service.database, {}, {})
        async with service.database.core() as core:
            for name, lasts in (("parcel 1", "infinity"), ("parcel 2", "1 day")):
                await core.execute(text(f"UPDATE parcels SET lasts = '{lasts}' WHERE name = '{name}'"))
        page = await service.stub.ListItems(pb.ListItemsRequest(resource="parcels"))
    assert [item.data["lasts"] for item in page.items] == ["infinity", str(timedelta(days=1))]


async def test_large_rows_come_in_messages_that_any_client_takes(service: RunningService) -> None:
    await add_many(service.database, 200, note="x" * 30_000)
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub: Any = pb_grpc.CurationServiceStub(channel)
        listed, token = 0, ""
        while token or not listed:
            request = pb.ListItemsRequest(resource="parcels", page_size=200, page_token=token)
            page = await stub.ListItems(request)
            listed, token = listed + len(page.items), page.next_page_token
        assert listed == 200
        watching = stub.WatchStatus(pb.WatchStatusRequest(resource="parcels"))
        items = 0
        async for message in watching:
            items += len(message.snapshot.items)
            if message.WhichOneof("part") == "snapshot_end":
                break
        watching.cancel()
    assert items == 200
