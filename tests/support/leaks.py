"""Streams opened and left in every way, over and over, and what the processes on both sides hold afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client import aio, sync

RESOURCE = "places"
AT_ONCE = 25
NOBODY = "00000000-0000-0000-0000-000000000001"
SELECTIONS: Sequence[dict[str, Any]] = (
    {},
    {"skip_snapshot": True},
    {"ids": pb.ItemIds(ids=[NOBODY])},
    {"filter": 'country = "DE" AND status = "New"'},
)


@dataclass(slots=True)
class Held:
    """What processes hold, in bytes, after each round."""

    pids: Sequence[int]
    samples: list[tuple[float, Sequence[int]]] = field(default_factory=list)
    """How many streams there have been, or seconds, and the bytes of each process."""

    def sample(self, streams: float) -> None:
        """Looks."""
        gc.collect()
        self.samples.append((streams, [_resident_bytes(pid) for pid in self.pids]))

    def growth(self) -> list[float]:
        """Bytes for each, by process: the median over all pairs of samples, which an odd one does not move."""
        pairs = list(combinations(self.samples, 2))
        return [
            statistics.median((later[1][n] - earlier[1][n]) / (later[0] - earlier[0]) for earlier, later in pairs)
            for n in range(len(self.pids))
        ]

    def table(self, names: Sequence[str], *, of: str = "streams") -> str:
        """To print."""
        head = [f"| {of} | {' | '.join(f'{name} MiB' for name in names)} |", f"| ---: {'| ---: ' * len(names)}|"]
        rows = [
            f"| {n:,.0f} | {' | '.join(f'{size / 2**20:.1f}' for size in sizes)} |"
            for n, sizes in self.samples[:: max(1, len(self.samples) // 10)]
        ]
        return "\n".join([*head, *rows])


Leave: TypeAlias = "Callable[[pb_grpc.CurationServiceAsyncStub, int], Awaitable[None]]"


async def before_anything_came(stub: pb_grpc.CurationServiceAsyncStub, number: int) -> None:
    _open(stub, number).cancel()


async def after_a_message(stub: pb_grpc.CurationServiceAsyncStub, number: int) -> None:
    call = _open(stub, number)
    await call.read()
    call.cancel()


async def amid_a_read(stub: pb_grpc.CurationServiceAsyncStub, number: int) -> None:
    call = _open(stub, number)
    await call.read()
    reading = asyncio.ensure_future(call.read())
    await asyncio.sleep(0)
    # The call, not the read: that would leak in the client, whatever the server does.
    call.cancel()
    await asyncio.wait({reading})


def _open(stub: pb_grpc.CurationServiceAsyncStub, number: int) -> grpc.aio.UnaryStreamCall[Any, Any]:
    request = pb.WatchStatusRequest(resource=RESOURCE, **SELECTIONS[number % len(SELECTIONS)])
    call: grpc.aio.UnaryStreamCall[Any, Any] = stub.WatchStatus(request)
    return call


WAYS: Sequence[Leave] = (before_anything_came, after_a_message, amid_a_read)


async def leave_streams(address: str, count: int) -> None:
    """Opens so many bare streams, some at once, and leaves each in its way."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.CurationServiceStub(channel)
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            await asyncio.gather(*(WAYS[number % len(WAYS)](stub, number) for number in numbers))


async def leave_clients(address: str, count: int) -> None:
    """Opens so many watches of the client and leaves them: closed, cancelled amid a read, and of the plain form."""
    async with aio.CurationClient(address) as client:
        for number in range(count):
            if number % 3 == 0:
                updates = client.watch(RESOURCE, skip_snapshot=bool(number % 2))
                async with aclosing(updates):
                    await anext(updates)
            elif number % 3 == 1:
                await _cancelled(client)
    await asyncio.to_thread(_leave_plainly, address, count // 3)


async def _cancelled(client: aio.CurationClient) -> None:
    came = asyncio.Event()

    async def watch() -> None:
        async for _ in client.watch(RESOURCE):
            came.set()

    watching = asyncio.create_task(watch())
    await came.wait()
    watching.cancel()
    await asyncio.wait({watching})


def _leave_plainly(address: str, count: int) -> None:
    with sync.CurationClient(address) as client:
        for number in range(count):
            with closing(client.watch(RESOURCE, skip_snapshot=bool(number % 2))) as updates:
                next(updates)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
