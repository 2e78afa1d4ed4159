"""Services that stop while they are called."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import grpc.aio
import pytest

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from tests.support.quick import quick_server

STOPS = 200
CALLERS = 8


async def ends_of_calls() -> Counter[grpc.StatusCode]:
    """How the last call of each caller ended: one server starts, is called, and stops."""
    server = quick_server()
    ends = Counter[grpc.StatusCode]()
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = pb_grpc.CurationServiceStub(channel)
        answers = 0
        busy = asyncio.Event()

        async def keep_calling(number: int) -> None:
            nonlocal answers
            try:
                while True:
                    if number % 2:
                        await stub.ListWorkflows(pb.ListWorkflowsRequest(), timeout=10)
                    else:
                        await stub.ListBatches(pb.ListBatchesRequest(), timeout=10)
                    answers += 1
                    if answers > 5 * CALLERS:
                        busy.set()
            except grpc.aio.AioRpcError as error:
                ends[error.code()] += 1

        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(keep_calling(number))
            await busy.wait()
            await server.stop()
    return ends


@pytest.mark.timeout(3_600)
async def test_no_call_that_comes_as_a_service_stops_is_left_waiting() -> None:
    ends = Counter[grpc.StatusCode]()
    for _ in range(STOPS):
        ends += await ends_of_calls()
    # gRPC cancels what came to the connection and could not be taken any more.
    assert set(ends) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert ends.total() == STOPS * CALLERS
