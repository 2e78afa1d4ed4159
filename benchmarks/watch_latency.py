"""Latency of the stream, from COMMIT to the client, beside raw LISTEN/NOTIFY of the same commits in the same run.

`python -m benchmarks.watch_latency [--commits 100] [--items 10] [--seconds 10] [--no-durable]`:
goals are a median of at most three times the raw one, and 99 of 100 below 10 ms at 1,000 events a second. Between the
two stands the least that a stream over grpc.aio can take: a bare server that passes each notification on as a message,
and reads nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import psycopg

from benchmarks.bare import bare_server
from benchmarks.bed import RESOURCE, database, service, stub
from benchmarks.report import at_most, table
from benchmarks.watch_entries import APPEND
from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc

ROUNDS = 5
RAW, RELAYED, STREAM = "LISTEN/NOTIFY", "the same, passed on over grpc.aio", "WatchStatus"
_FIRST = itertools.count(1, 1_000_000)


class Pace(NamedTuple):
    """What is committed."""

    commits_per_s: int
    items: int
    seconds: float
    """For each of those who are told."""


async def main(pace: Pace, *, durable: bool) -> None:
    """Prints the two rows."""
    took = await measured(pace, durable=durable)
    cuts = {name: [cut * 1e3 for cut in statistics.quantiles(values, n=1000)] for name, values in took.items()}
    table(
        (f"{pace.commits_per_s} commits/s of {pace.items} events", "p50 ms", "p99 ms", "p99.9 ms"),
        ((name, *(f"{cut[place - 1]:.2f}" for place in (500, 990, 999))) for name, cut in cuts.items()),
    )
    raw, _, stream = (cut[499] for cut in cuts.values())
    at_most("p50 beside LISTEN/NOTIFY's", stream / raw, 3, " times")
    at_most("p99", cuts[STREAM][989], 10, " ms")


class Relay(pb_grpc.CurationServiceServicer):
    """Passes notifications on, their payload in the field of the token, and nothing else happens."""

    async def WatchStatus(self, request: pb.WatchStatusRequest, context: Any) -> AsyncIterator[pb.WatchStatusResponse]:  # noqa: N802
        """Streams those of the database whose address the request has for a token."""
        async with await psycopg.AsyncConnection.connect(request.resume_token, autocommit=True) as listening:
            await listening.execute("LISTEN raw")
            yield pb.WatchStatusResponse(heartbeat=pb.Heartbeat())
            async for notice in listening.notifies():
                yield pb.WatchStatusResponse(resume_token=notice.payload)


async def measured(pace: Pace, *, durable: bool) -> dict[str, list[float]]:
    """What each took, in seconds: by turns, so that none takes the processor from another."""
    async with (
        database(durable=durable) as url,
        service(url) as bed,
        bare_server("benchmarks.watch_latency:Relay") as relay,
        bed.channel() as channel,
        relay.channel() as relay_channel,
        await psycopg.AsyncConnection.connect(bed.url, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(bed.url) as writing,
    ):
        took: dict[str, list[float]] = {name: [] for name in (RAW, RELAYED, STREAM)}
        for _ in range(ROUNDS):
            await _turn(writing, pace, took[RAW], _notifications(listening), "raw")
            await _turn(writing, pace, took[RELAYED], _relayed(stub(relay_channel), bed.url), "raw")
            await _turn(writing, pace, took[STREAM], _watched(stub(channel)), "curation")
    return took


async def _turn(
    writing: psycopg.AsyncConnection[object],
    pace: Pace,
    took: list[float],
    numbers: AsyncGenerator[Sequence[int], None],
    channel: str,
) -> None:
    """Commits at the pace while somebody is told of it; `numbers` says which commits came, each event by itself."""
    sent: dict[int, float] = {}
    # Nobody was told of what other turns committed, and the service reads that late.
    first = next(_FIRST)
    last = first + int(pace.commits_per_s * pace.seconds / ROUNDS) - 1

    async def hear() -> None:
        async for came in numbers:
            now = time.perf_counter()
            took.extend(now - sent[number] for number in came if number in sent)
            if last in came:
                break

    await anext(numbers)  # it has begun
    ears = asyncio.create_task(hear())
    began = time.perf_counter()
    for number in range(first, last + 1):
        await asyncio.sleep(began + (number - first) / pace.commits_per_s - time.perf_counter())
        await writing.execute(
            APPEND.format(items=pace.items).replace("i.ones\nFROM", f"array_fill({number}, ARRAY[{pace.items}])\nFROM")
        )
        payload = "places" if channel == "curation" else str(number)
        await writing.execute(f"SELECT pg_notify('{channel}', '{payload}')")
        sent[number] = time.perf_counter()
        await writing.commit()
    await asyncio.wait_for(ears, 30)
    await numbers.aclose()


async def _notifications(listening: psycopg.AsyncConnection[object]) -> AsyncGenerator[Sequence[int], None]:
    await listening.execute("LISTEN raw")
    yield ()
    async for notice in listening.notifies():
        yield (int(notice.payload),)


def _relayed(relay: pb_grpc.CurationServiceAsyncStub, url: str) -> AsyncGenerator[Sequence[int], None]:
    call = relay.WatchStatus(pb.WatchStatusRequest(resume_token=url))
    return _received(call, lambda message: (int(message.resume_token),) if message.resume_token else ())


def _watched(service: pb_grpc.CurationServiceAsyncStub) -> AsyncGenerator[Sequence[int], None]:
    call = service.WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, skip_snapshot=True))
    return _received(call, lambda message: [event.attempt for event in message.events.events])


async def _received(
    call: Any, numbers: Callable[[pb.WatchStatusResponse], Sequence[int]]
) -> AsyncGenerator[Sequence[int], None]:
    try:
        while True:
            yield numbers(await call.read())
    finally:
        call.cancel()  # or it would go on beside those of the next turns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--durable", action=argparse.BooleanOptionalAction, default=True, help="commits wait for the disk"
    )
    options = parser.parse_args()
    asyncio.run(main(Pace(options.commits, options.items, options.seconds), durable=options.durable))
