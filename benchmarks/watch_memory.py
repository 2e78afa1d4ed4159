"""Memory of the service for each watcher that waits, or reads nothing; with `--cycles`, after streams that were left.

`python -m benchmarks.watch_memory [--watchers 1000] [--slow 200]`: those who read nothing are spread over a log of a
million events, each with another part of it to be told, which is the most that they can take.
`python -m benchmarks.watch_memory --cycles 20000`: prints what the service holds after each tenth; it must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.bed import RESOURCE, Bed, database, service, stub
from benchmarks.report import at_most, table
from benchmarks.watch_entries import append
from curation.v1 import curation_pb2 as pb

AT_ONCE = 50
"""Streams that a tenth of the cycles opens side by side."""
NOBODY = "00000000-0000-0000-0000-000000000001"
"""An item that does not exist."""
SELECTIONS: tuple[dict[str, Any], ...] = (
    {"skip_snapshot": True},
    {"ids": pb.ItemIds(ids=[NOBODY])},
    {"filter": 'country = "DE"'},
    {},
)


async def watchers(bed: Bed, count: int, selection: dict[str, Any]) -> tuple[float, float]:
    """The KiB that a waiting watcher takes, and the MB of the whole service."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(bed.channel()) for _ in range(10)]
        request = pb.WatchStatusRequest(resource=RESOURCE, **selection)
        first = stub(channels[0]).WatchStatus(request)
        await first.read()
        before = bed.memory_bytes
        calls = [stub(channels[number % 10]).WatchStatus(request) for number in range(count)]
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(call.read() for call in calls[start : start + AT_ONCE]))
        await append(bed.url, commits=20, items=10)
        used = bed.memory_bytes
        for call in [first, *calls]:
            call.cancel()
    return (used - before) / count / 1024, used / 1e6


async def slow_watchers(url: str, count: int) -> float:
    """The KiB that a watcher takes which is behind, each somewhere else, and reads nothing."""
    async with service(url) as bed, bed.channel() as channel:
        tokens = []
        for _ in range(count):
            call = stub(channel).WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, skip_snapshot=True))
            message: Any = await call.read()
            tokens.append(message.resume_token)
            call.cancel()
            await append(url, commits=50, items=100)
    async with service(url) as bed, AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(bed.channel()) for _ in range(10)]
        before = bed.memory_bytes
        calls = [
            stub(channels[number % 10]).WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, resume_token=token))
            for number, token in enumerate(tokens)
        ]
        await asyncio.gather(*(call.read() for call in calls))
        await asyncio.sleep(5)  # until nobody is sent anything any more
        used = bed.memory_bytes
        for call in calls:
            call.cancel()
    return (used - before) / count / 1024


async def cycles(bed: Bed, count: int) -> None:
    """Prints what the service holds, over and over."""
    async with bed.channel() as channel:

        async def cycle(number: int) -> None:
            request = pb.WatchStatusRequest(resource=RESOURCE, **SELECTIONS[number % len(SELECTIONS)])
            call = stub(channel).WatchStatus(request)
            if number % 3:
                await call.read()
            call.cancel()

        held = [(0, bed.memory_bytes)]
        for tenth in range(1, 11):
            for _ in range(count // 10 // AT_ONCE):
                await asyncio.gather(*(cycle(number) for number in range(AT_ONCE)))
            held.append((tenth * count // 10, bed.memory_bytes))
        table(("cycles", "MiB"), ((f"{number:,}", f"{size / 2**20:.1f}") for number, size in held), texts=0)


async def main(count: int, slow_count: int, cycle_count: int) -> None:
    """Runs the one or the other."""
    async with database() as url:
        if cycle_count:
            async with service(url) as bed:
                await cycles(bed, cycle_count)
            return
        rows: list[tuple[str, str]] = []
        largest_mb = 0.0
        for selection in SELECTIONS:
            async with service(url) as bed:
                each_kib, service_mb = await watchers(bed, count, selection)
            rows.append((f"waits, by {', '.join(selection) or 'snapshot'}", f"{each_kib:.0f}"))
            largest_mb = max(largest_mb, service_mb)
        rows.append((f"reads nothing, one of {slow_count}", f"{await slow_watchers(url, slow_count):.0f}"))
    table(("watcher", "KiB"), rows)
    at_most(f"the service with {count:,} who wait", largest_mb, 200, " MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--cycles", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(main(options.watchers, options.slow, options.cycles))
