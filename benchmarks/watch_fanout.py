"""Fan-out: events a second that reach all watchers together, beside what grpc.aio alone streams in the same run.

`python -m benchmarks.watch_fanout`: for 1, 100 and 1,000 watchers, with 1 and with 100 events in an entry of the log.
Alone, a server sends messages that are made already, of 1 and of 100 events. The service groups what is committed
close together, so its messages are fewer than its entries; both numbers are printed. The goal is at least half.
A single watcher of large entries is faster than PostgreSQL writes them: there the log is written first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from benchmarks.bare import bare_server
from benchmarks.bed import RESOURCE, Bed, database, service, stub
from benchmarks.report import at_least, doing, table
from benchmarks.watch_entries import append
from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc

CHANNELS = 10
"""Connections that the watchers share."""
CASES = ((1, 1, 5_000), (1, 100, 2_000), (100, 1, 200), (100, 100, 100), (1000, 1, 20), (1000, 100, 5))
"""Watchers, events of an entry, entries."""
WRITTEN_FIRST = (1, 100)


class Alone(pb_grpc.CurationServiceServicer):
    """Sends what it was asked for in the field of the token, `messages/events`, and nothing else happens."""

    async def WatchStatus(self, request: pb.WatchStatusRequest, context: Any) -> AsyncIterator[pb.WatchStatusResponse]:  # noqa: N802
        """Streams."""
        messages, events = map(int, request.resume_token.split("/"))
        event = pb.StatusEvent(
            item_id="01890a5d-ac96-774b-bcce-b302099a8057", version=1, kind="curate", previous_status="New",
            status="Selected", previous_queue_status=pb.QUEUE_STATUS_NONE, queue_status=pb.QUEUE_STATUS_NONE,
            attempt=1,
        )  # fmt: skip
        event.event_time.GetCurrentTime()
        message = pb.WatchStatusResponse(events=pb.StatusEvents(events=[event] * events), resume_token="x" * 30)
        yield pb.WatchStatusResponse(heartbeat=pb.Heartbeat())
        for _ in range(messages):
            yield message


async def main() -> None:
    """Prints a row for each case."""
    async with AsyncExitStack() as stack:
        floor = await stack.enter_async_context(bare_server("benchmarks.watch_fanout:Alone"))
        bed = await stack.enter_async_context(service(await stack.enter_async_context(database())))
        rows: list[tuple[str, ...]] = []
        ratios: list[float] = []
        for watchers, items, entries in CASES:
            base, _ = await _run(floor, watchers, items * entries, token=f"{entries}/{items}")
            token = ""
            if (watchers, items) == WRITTEN_FIRST:
                token = await _token(bed)
                await append(bed.url, commits=entries, items=items)
            commits = 0 if token else entries
            rate, messages = await _run(bed, watchers, items * entries, token=token, commits=commits, items=items)
            ratios.append(rate / base)
            numbers = (watchers, items, base, rate, messages)
            rows.append((*(f"{number:,.0f}" for number in numbers), f"{ratios[-1]:.2f}"))
            doing("   ".join(rows[-1]))
    head = ("watchers", "events of an entry", "grpc.aio alone, events/s", "service, events/s", "messages/s", "ratio")
    table(head, rows, texts=0)
    at_least("the least of them", min(ratios), 0.5)


async def _run(
    bed: Bed, watchers: int, events: int, *, token: str = "", commits: int = 0, items: int = 0
) -> tuple[float, float]:
    """Events and messages a second over all watchers, from the first commit until the last watcher has all."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(bed.channel()) for _ in range(min(watchers, CHANNELS))]
        request = pb.WatchStatusRequest(resource=RESOURCE, resume_token=token, skip_snapshot=True)
        calls = [stub(channels[number % len(channels)]).WatchStatus(request) for number in range(watchers)]
        messages = 0

        async def watch(call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
            nonlocal messages
            seen = 0
            while seen < events:
                message: Any = await call.read()
                seen += len(message.events.events)
                messages += 1

        if commits:
            await asyncio.gather(*(call.read() for call in calls))  # all have begun
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(watch(call))
            if commits:
                group.create_task(append(bed.url, commits=commits, items=items))
        seconds = time.perf_counter() - began
        for call in calls:
            call.cancel()
    return watchers * events / seconds, messages / seconds


async def _token(bed: Bed) -> str:
    """Where the log is now."""
    async with bed.channel() as channel:
        call = stub(channel).WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, skip_snapshot=True))
        message: Any = await call.read()
        call.cancel()
    token: str = message.resume_token
    return token


if __name__ == "__main__":
    asyncio.run(main())
