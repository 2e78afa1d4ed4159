"""Calls of the clients while their service stops, and another one starts in its place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from curation.v1 import curation_pb2 as pb
from curation_client import aio, sync
from tests.support.eventually import eventually
from tests.support.quick import quick_server

SERVICES = 10
CALLERS = 4
CALLS = 20
"""Of all callers together, before a service is told to stop."""


class Calls:
    """What callers share."""

    def __init__(self) -> None:
        self.answers: list[pb.ListBatchesResponse] = []
        self.is_over = threading.Event()

    async def until_more(self) -> None:
        """Returns once there are some more answers."""
        enough = len(self.answers) + CALLS
        await eventually(lambda: len(self.answers) >= enough)


async def call_aio(address: str, calls: Calls) -> None:
    async with aio.CurationClient(address) as client:
        while not calls.is_over.is_set():
            calls.answers.append(await client.list_batches(pb.ListBatchesRequest()))


async def call_sync(address: str, calls: Calls) -> None:
    def call() -> None:
        with sync.CurationClient(address) as client:
            while not calls.is_over.is_set():
                calls.answers.append(client.list_batches(pb.ListBatchesRequest()))

    await asyncio.to_thread(call)


@pytest.mark.parametrize("call", [call_aio, call_sync])
async def test_no_call_fails_when_its_service_makes_room_for_another(
    call: Callable[[str, Calls], Coroutine[Any, Any, None]],
) -> None:
    calls = Calls()
    async with asyncio.TaskGroup() as group:
        async with quick_server() as first:
            address = f"127.0.0.1:{first.port}"
            callers = [group.create_task(call(address, calls)) for _ in range(CALLERS)]
            await calls.until_more()
        for _ in range(SERVICES):
            async with quick_server(address):
                await calls.until_more()
        async with quick_server(address):
            calls.is_over.set()
            await asyncio.wait(callers)
