"""Latency of the stream, from COMMIT to the client, beside raw LISTEN/NOTIFY of the same commits in the same run.

`python -m benchmarks.watch_latency [--commits 100] [--items 10] [--seconds 10]`: goals are a median of at most three
times the raw one, and 99 of 100 below 10 ms at 1,000 events a second. Between the two stands the least that a stream
over grpc.aio can take: a bare server that passes each notification on as a message, and reads nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import psycopg

from benchmarks.bed import RESOURCE, Bed, database, service, stub
from benchmarks.watch_entries import APPEND
from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc


async def main(commits_per_s: int, items: int, seconds: float, *, durable: bool) -> None:
    """Prints the two rows."""
    async with database(durable=durable) as url, service(url) as bed, _relay() as port:
        raw, relayed, stream = await _measured(bed, port, commits_per_s, items, seconds)
    print(f"{commits_per_s} commits/s of {items} events for {seconds:g} s")  # noqa: T201
    for name, values in (("LISTEN/NOTIFY", raw), ("and grpc.aio", relayed), ("WatchStatus", stream)):
        cuts = statistics.quantiles(values, n=1000)
        print(  # noqa: T201
            f"  {name:14} n={len(values):6}  p50 {cuts[499] * 1e3:6.2f} ms  p99 {cuts[989] * 1e3:6.2f} ms  "
            f"p99.9 {cuts[998] * 1e3:6.2f} ms"
        )
    median = statistics.median(stream)
    print(  # noqa: T201
        f"  p50 is {median / statistics.median(raw):.2f} times LISTEN/NOTIFY's, "
        f"{median / statistics.median(relayed):.2f} times that with grpc.aio"
    )


class Relay(pb_grpc.CurationServiceServicer):
    """Passes notifications on, their payload in the field of the token, and nothing else happens."""

    async def WatchStatus(self, request: pb.WatchStatusRequest, context: Any) -> AsyncIterator[pb.WatchStatusResponse]:  # noqa: N802
        """Streams those of the database whose address the request has for a token."""
        async with await psycopg.AsyncConnection.connect(request.resume_token, autocommit=True) as listening:
            await listening.execute("LISTEN raw")
            yield pb.WatchStatusResponse(heartbeat=pb.Heartbeat())
            async for notice in listening.notifies():
                yield pb.WatchStatusResponse(resume_token=notice.payload)


@asynccontextmanager
async def _relay() -> AsyncIterator[int]:
    """The bare server in a process of its own; gives its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.watch_latency", "--relay", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    yield int(await process.stdout.readline())
    process.terminate()
    await process.wait()


async def serve_relay() -> None:
    """The bare server."""
    server = grpc.aio.server()
    pb_grpc.add_CurationServiceServicer_to_server(Relay(), server)  # type: ignore[abstract] # one method is called
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # noqa: T201
    await server.wait_for_termination()


async def _measured(
    bed: Bed, relay_port: int, commits_per_s: int, items: int, seconds: float
) -> tuple[list[float], list[float], list[float]]:
    sent: dict[int, float] = {}
    raw: list[float] = []
    relayed: list[float] = []
    stream: list[float] = []
    total = int(commits_per_s * seconds)

    async def hear(listening: psycopg.AsyncConnection[object]) -> None:
        async for notice in listening.notifies():
            now = time.perf_counter()
            raw.append(now - sent[int(notice.payload)])

    async with (
        bed.channel() as channel,
        replace(bed, port=relay_port).channel() as relay_channel,
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

        relaying = stub(relay_channel).WatchStatus(pb.WatchStatusRequest(resume_token=bed.url))
        await relaying.read()

        async def hear_relayed() -> None:
            while len(relayed) < total:
                message: Any = await relaying.read()
                relayed.append(time.perf_counter() - sent[int(message.resume_token)])

        relay_ears = asyncio.create_task(hear_relayed())
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
        await asyncio.wait_for(relay_ears, 30)
        ears.cancel()
        relaying.cancel()
        call.cancel()
    return raw, relayed, stream


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--durable", action="store_true", help="commits wait for the disk")
    parser.add_argument("--relay", action="store_true", help="be the bare server")
    options = parser.parse_args()
    if options.relay:
        asyncio.run(serve_relay())
    else:
        asyncio.run(main(options.commits, options.items, options.seconds, durable=options.durable))
