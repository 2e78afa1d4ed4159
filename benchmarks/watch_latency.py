"""Latency of the stream, from COMMIT to the client, beside raw LISTEN/NOTIFY of the same commits in the same run.

`python -m benchmarks.watch_latency [--commits 100] [--items 10] [--seconds 10]`: goals are a median of at most three
times the raw one, and 99 of 100 below 10 ms at 1,000 events a second.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import psycopg

from benchmarks.bed import RESOURCE, Bed, database, service, stub
from benchmarks.watch_entries import APPEND
from curation.v1 import curation_pb2 as pb


async def main(commits_per_s: int, items: int, seconds: float, *, durable: bool) -> None:
    """Prints the two rows."""
    async with database(durable=durable) as url, service(url) as bed:
        raw, stream = await _measured(bed, commits_per_s, items, seconds)
    print(f"{commits_per_s} commits/s of {items} events for {seconds:g} s")  # noqa: T201
    for name, values in (("LISTEN/NOTIFY", raw), ("WatchStatus", stream)):
        cuts = statistics.quantiles(values, n=1000)
        print(  # noqa: T201
            f"  {name:14} n={len(values):6}  p50 {cuts[499] * 1e3:6.2f} ms  p99 {cuts[989] * 1e3:6.2f} ms  "
            f"p99.9 {cuts[998] * 1e3:6.2f} ms"
        )
    print(f"  p50 ratio {statistics.median(stream) / statistics.median(raw):.2f}")  # noqa: T201


async def _measured(bed: Bed, commits_per_s: int, items: int, seconds: float) -> tuple[list[float], list[float]]:
    sent: dict[int, float] = {}
    raw: list[float] = []
    stream: list[float] = []
    total = int(commits_per_s * seconds)

    async def hear(listening: psycopg.AsyncConnection[object]) -> None:
        async for notice in listening.notifies():
            now = time.perf_counter()
            raw.append(now - sent[int(notice.payload)])

    async with (
        bed.channel() as channel,
        await psycopg.AsyncConnection.connect(bed.url, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(bed.url) as writing,
    ):
        await listening.execute("LISTEN raw")
        call = stub(channel).WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, skip_snapshot=True))
        await call.read()  # it has begun

        async def watch() -> None:
            seen = 0
            while seen < total * items:
                message: Any = await call.read()
                now = time.perf_counter()
                stream.extend(now - sent[event.attempt] for event in message.events.events)
                seen = len(stream)

        ears, eyes = asyncio.create_task(hear(listening)), asyncio.create_task(watch())
        began = time.perf_counter()
        for number in range(1, total + 1):
            await asyncio.sleep(began + number / commits_per_s - time.perf_counter())
            await writing.execute(
                APPEND.format(items=items).replace("i.ones\nFROM", f"array_fill({number}, ARRAY[{items}])\nFROM")
            )
            await writing.execute(f"SELECT pg_notify('curation', 'places'), pg_notify('raw', '{number}')")
            sent[number] = time.perf_counter()
            await writing.commit()
        await asyncio.wait_for(eyes, 30)
        ears.cancel()
        call.cancel()
    return raw, stream


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--durable", action="store_true", help="commits wait for the disk")
    options = parser.parse_args()
    asyncio.run(main(options.commits, options.items, options.seconds, durable=options.durable))
