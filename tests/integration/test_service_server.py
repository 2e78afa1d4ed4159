"""The server round the service: health, sizes, errors on the wire, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.app import service_parts
from curation_service.server import LEFT_OVER_S, SERVICE, Server
from curation_service.settings import ServiceSettings
from shared.db.engine import Database
from shared.errors import AddressUnavailable
from shared.registry import Registry
from tests.support.parcels import PARCELS
from tests.support.service import (
    RunningService,
    add_parcels,
    refused,
    somebody_waits_for_a_lock,
)


@asynccontextmanager
async def another_server(
    service: RunningService, *, database: Database | None = None, grace_s: float = 0, listen: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[Server, pb_grpc.CurationServiceAsyncStub]]:
    """A second server of the same service, with a client of the usual limits."""
    settings = ServiceSettings(DATABASE_URL=service.database.url, listen=listen, grace_s=grace_s)
    async with AsyncExitStack() as stack:
        for part in service_parts(settings, Registry(PARCELS), database or service.database):
            server = await stack.enter_async_context(part)
        assert isinstance(server, Server)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
        yield server, pb_grpc.CurationServiceStub(channel)


async def test_health_says_serving_and_not_serving_once_it_stops(service: RunningService) -> None:
    stub: Any = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", SERVICE):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    async with (
        another_server(service, grace_s=20) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.stopping.set()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_a_call_under_way_is_answered_while_the_service_stops(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with another_server(service, grace_s=20) as (server, stub):
        async with service.database.transaction() as connection:
            await connection.execute("LOCK TABLE parcels IN ACCESS EXCLUSIVE MODE")
            call = stub.ListItems(pb.ListItemsRequest(resource="parcels"))
            await somebody_waits_for_a_lock(service.database)
            stopping = asyncio.create_task(server.stop())
            await server.stopping.wait()
        assert len((await call).items) == 1
        await stopping


async def test_a_request_that_comes_slowly_is_answered_while_the_service_stops(service: RunningService) -> None:
    async with (
        another_server(service, grace_s=20) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        slow: Any = channel.stream_unary(
            f"/{SERVICE}/ListWorkflows",
            request_serializer=pb.ListWorkflowsRequest.SerializeToString,
            response_deserializer=pb.ListWorkflowsResponse.FromString,
        )()
        await pb_grpc.CurationServiceStub(channel).ListBatches(pb.ListBatchesRequest())  # came behind its headers
        stopping = asyncio.create_task(server.stop())
        has_stopped, _ = await asyncio.wait({stopping}, timeout=4 * LEFT_OVER_S)
        assert not has_stopped
        await slow.write(pb.ListWorkflowsRequest())
        await slow.done_writing()
        assert [workflow.resource for workflow in (await slow).workflows] == ["parcels"]
        await stopping


async def test_neither_who_watches_the_health_nor_an_answered_call_keeps_the_service_until_the_grace_ends(
    service: RunningService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "stop_timeout_s", 15)
    async with (
        another_server(service, grace_s=25) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await pb_grpc.CurationServiceStub(channel).ListBatches(pb.ListBatchesRequest())
        await server.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "did not stop" not in caplog.text


async def test_a_call_that_outlasts_the_grace_is_cancelled(service: RunningService) -> None:
    async with service.database.transaction() as connection:
        await connection.execute("LOCK TABLE parcels IN ACCESS EXCLUSIVE MODE")
        call = service.stub.ListItems(pb.ListItemsRequest(resource="parcels"))
        await somebody_waits_for_a_lock(service.database)
        await service.server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_second_service_cannot_listen_on_the_same_address(service: RunningService) -> None:
    with pytest.raises(AddressUnavailable):
        async with another_server(service, listen=service.address):
            pass


async def test_a_database_that_cannot_be_reached_is_unavailable(service: RunningService) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none")
    async with nowhere, another_server(service, database=nowhere) as (_, stub):
        refusal = await refused(stub.CountItems(pb.CountItemsRequest(resource="parcels")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")


async def test_an_unexpected_error_reaches_the_caller_as_a_reference(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    async with service.database.core() as connection:
        await connection.execute(text("ALTER TABLE parcels RENAME TO hidden_parcels"))
        await connection.execute(text("CREATE VIEW parcels AS SELECT * FROM hidden_parcels WHERE 1 / 0 = 1"))
    refusal = await refused(service.stub.ListItems(pb.ListItemsRequest(resource="parcels")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "parcels" not in refusal.message
    (told,) = [each.getMessage() for each in caplog.records if refusal.metadata["reference"] in each.getMessage()]
    assert "ListItems" in told


async def test_the_largest_error_passes_a_client_with_the_usual_limits(service: RunningService) -> None:
    async with another_server(service) as (_, stub):
        refusal = await refused(stub.GetItem(pb.GetItemRequest(resource="漢" * 10_000, id="x")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESOURCE")
        ids = pb.ItemIds(ids=["漢" * 1_000] * 1_000)
        request = pb.BatchUpdateStatusRequest(resource="parcels", status="漢" * 10_000, ids=ids)
        refusal = await refused(stub.BatchUpdateStatus(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_the_errors_of_a_stream_have_details_too(service: RunningService) -> None:
    refusal = await refused(service.stub.WatchStatus(pb.WatchStatusRequest(resource="nope")).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESOURCE")


async def test_a_stream_goes_on_elsewhere_when_the_service_stops(service: RunningService) -> None:
    async with another_server(service, grace_s=20) as (server, stub):
        stream: Any = stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", skip_snapshot=True))
        assert (await stream.read()).resume_token
        server.stopping.set()

        async def read_to_the_end() -> None:
            while await stream.read() is not grpc.aio.EOF:
                pass

        refusal = await refused(read_to_the_end())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
