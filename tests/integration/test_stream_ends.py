"""How streams end when their service stops, and how they wait when a transaction does not end."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any
from urllib.request import urlopen

import grpc
import grpc.aio
import pytest

from curation.v1 import curation_pb2 as pb
from curation_client.watch import LOST
from curation_service.snapshot import CHUNK_SIZE
from shared.db.engine import connect
from shared.metrics import MetricsServer
from tests.support.log import curate_in, update
from tests.support.service import WAIT_S, RunningService, add_many, refusal, running_service

Call = grpc.aio.UnaryStreamCall[Any, Any]
EVENT = tuple[str, int]
FLOOD_COUNT = 4_000
"""Items of a change of which two do not fit between a service and a client that does not read."""


def watch(service: RunningService, **fields: Any) -> Call:
    call: Call = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", **fields))
    return call


async def read_on(call: Call, count: int | None = None) -> tuple[list[EVENT], str, grpc.aio.AioRpcError | None]:
    """The events up to the last token, that token, and the error at the end, or None once there are so many."""
    events: list[EVENT] = []
    since: list[EVENT] = []
    token = ""
    try:
        while count is None or len(events) < count:
            async with asyncio.timeout(WAIT_S):
                message: Any = await call.read()
            since += [(event.item_id, event.version) for event in message.events.events]
            if message.resume_token:
                events, since, token = events + since, [], message.resume_token
        return events, token, None
    except grpc.aio.AioRpcError as error:
        return events, token, error


async def test_a_stopping_service_tells_many_watchers_at_once_and_slow_ones_lose_nothing(database_url: str) -> None:
    rounds = 6
    async with running_service(database_url, grace_s=1, heartbeat_s=0.1) as service:
        await add_many(service.database, FLOOD_COUNT)
        quick = [watch(service, skip_snapshot=True, ids=pb.ItemIds(ids=[str(uuid.UUID(int=1))])) for _ in range(150)]
        slow = [watch(service, skip_snapshot=True) for _ in range(3)]
        begun: list[Any] = await asyncio.gather(*(call.read() for call in [*quick, *slow]))
        for turn in range(rounds):
            await update(service.database, ("Selected", "New")[turn % 2], *range(1, FLOOD_COUNT + 1))
        ends = asyncio.gather(*map(read_to_error, quick))
        await service.server.stop()
        for error in await ends:
            told = refusal(error)
            assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        async with running_service(database_url, heartbeat_s=0.1) as other:
            for call, first in zip(slow, begun[-len(slow) :], strict=True):
                before, token, error_or_none = await read_on(call)
                assert error_or_none is not None
                assert error_or_none.code() in LOST
                missing = rounds * FLOOD_COUNT - len(before)
                rest, _, _ = await read_on(watch(other, resume_token=token or first.resume_token), missing)
                assert sorted(before + rest) == sorted(
                    (str(uuid.UUID(int=n)), version)
                    for n in range(1, FLOOD_COUNT + 1)
                    for version in range(2, rounds + 2)
                )


async def read_to_error(call: Call) -> grpc.aio.AioRpcError:
    error = (await messages_and_error(call))[1]
    assert error is not None, "the stream ended in order"
    return error


async def messages_and_error(call: Call) -> tuple[list[pb.WatchStatusResponse], grpc.aio.AioRpcError | None]:
    messages: list[pb.WatchStatusResponse] = []
    try:
        while isinstance(message := await call.read(), pb.WatchStatusResponse):
            messages.append(message)
    except grpc.aio.AioRpcError as error:
        return messages, error
    return messages, None


async def test_a_stopping_service_does_not_go_on_sending_a_snapshot(database_url: str) -> None:
    async with running_service(database_url, grace_s=20) as service:
        await add_many(service.database, 60 * CHUNK_SIZE, note="x" * 1000)
        call = watch(service)
        await call.initial_metadata()
        stopping = asyncio.create_task(service.server.stop())
        await service.server.stopping.wait()
        messages, error = await messages_and_error(call)
        assert error is not None
        assert refusal(error).reason == "SERVER_STOPPING"
        assert not any(message.HasField("snapshot_end") for message in messages)
        await stopping


async def test_a_watcher_that_vanishes_amid_a_message_is_no_error_of_the_service(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    for call in ("WatchStatus", "ListItems"):
        try:
            raise grpc.aio.InternalError("of a message that cannot be sent")
        except grpc.aio.InternalError:  # as gRPC logs it, when it has not heard yet that the caller is gone
            message = "ExecuteBatchError raised in core by servicer method [%s]"
            logging.getLogger("grpc._cython.cygrpc").exception(message, f"/curation.v1.CurationService/{call}")
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "ListItems" in error


async def test_a_transaction_that_is_left_open_shows_in_the_metric_until_it_ends(database_url: str) -> None:
    async with running_service(database_url, metrics_listen="127.0.0.1:0") as service:
        await add_many(service.database, 2)
        call = watch(service, skip_snapshot=True)
        await call.read()
        late = await connect(database_url, name="late", autocommit=False)
        async with late:
            await curate_in(late, "Selected", 1)
            await update(service.database, "Selected", 2)
            while not await lag_s(service):
                pass
            await late.commit()
            message: Any = await call.read()
            while not message.events.events:
                message = await call.read()
            assert message.events.events[0].item_id == str(uuid.UUID(int=1))
        while await lag_s(service):
            pass
        call.cancel()


async def lag_s(service: RunningService) -> float:
    """As Prometheus reads it."""
    numbers = next(part for part in service.parts if isinstance(part, MetricsServer))
    url = f"http://127.0.0.1:{numbers.port}/metrics"
    text = await asyncio.to_thread(lambda: urlopen(url, timeout=WAIT_S).read().decode())
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("curation_stream_lag_seconds "))
