"""Values of an author's table that PostgreSQL has and Python, or protobuf, has not: they stop no page and no worker."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from shared.db.claim import claim
from shared.db.sessions import open_session
from shared.table import transition_table
from tests.support.batches import update
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, add_many, add_parcels

DEEP = 3_000
ODD = [
    ("sent_at", "infinity"),
    ("sent_at", "0044-03-15 BC"),
    ("local_time", "-infinity"),
    ("due", "infinity"),
    ("due", "10001-01-01"),
    ("price", "NaN"),
    ("details", '{"a":' * 40 + "1" + "}" * 40),
    ("details", "[" * DEEP + "]" * DEEP),
    ("details", "9" * 5_000),
    ("details", "1e400"),
]


@pytest.mark.parametrize(("column", "value"), ODD, ids=lambda value: value[:14])
async def test_a_row_with_an_odd_value_is_listed_watched_and_claimed_with_others(
    service: RunningService, column: str, value: str
) -> None:
    await add_parcels(service.database, {}, {}, {})
    async with service.database.core() as connection:
        statement = f"UPDATE parcels SET {column} = '{value}' WHERE name <> 'parcel 3'"
        await connection.execute(text(statement.replace(":", "\\:")))
    order_by = column if "infinity" in value or value == "NaN" else "name"
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
        claimed = await claim(driver, PARCELS, transition_table(PARCELS), session=session, limit=9)
    assert len(claimed.items) == 3


async def test_a_snapshot_of_large_rows_comes_in_messages_that_any_client_takes(service: RunningService) -> None:
    await add_many(service.database, 200, note="x" * 30_000)
    async with grpc.aio.insecure_channel(service.address) as channel:
        watching: Any = pb_grpc.CurationServiceStub(channel).WatchStatus(pb.WatchStatusRequest(resource="parcels"))
        items = 0
        async for message in watching:
            items += len(message.snapshot.items)
            if message.WhichOneof("part") == "snapshot_end":
                break
        watching.cancel()
    assert items == 200
