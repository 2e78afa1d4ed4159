"""A database whose owner bounds statements: whose statement took too long is told so, and not to try again at once."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc
import psycopg
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from psycopg import sql

from curation.v1 import curation_pb2 as pb
from shared.db.engine import connect
from tests.support.batches import everything, update
from tests.support.service import add_parcels, refusal, running_service


async def test_a_statement_that_the_database_ends_is_no_database_that_is_away(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        name = sql.Identifier(owner.info.dbname)
        owner.execute(sql.SQL("ALTER DATABASE {} SET statement_timeout = '300ms'").format(name))
    async with running_service(database_url) as service:
        await add_parcels(service.database, {}, {})
        before = await everything(service.database)
        async with await connect(database_url, name="holder", autocommit=False) as holder:
            await holder.execute("LOCK TABLE parcels IN ACCESS EXCLUSIVE MODE")
            calls: list[Awaitable[object]] = [
                service.stub.BatchUpdateStatus(update("Scan", 1)),
                service.stub.BatchUpdateStatus(update("Scan", 1, 2)),
                service.stub.BatchUpdateStatus(update("Scan", filter="id:*")),
                service.stub.ListItems(pb.ListItemsRequest(resource="parcels")),
                service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels")).read(),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                told = refusal(caught.value)
                assert (told.code, told.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "STATEMENT_CANCELED")
                status = rpc_status.from_call(caught.value)  # type: ignore[arg-type] # it has what a Call has
                assert status is not None
                assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
        assert await everything(service.database) == before
