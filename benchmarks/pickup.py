"""Pick-up: from the commit of a batch of one to the first line of its enricher, in an idle worker.

`python -m benchmarks.pickup [--count 200] [--rounds 3]`, by turns with graphile-worker that batches nothing. The goal:
no longer than that one, at the median.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median, quantiles

import psycopg

from benchmarks.bed import database
from benchmarks.peer_runs import PeerMissing, install
from benchmarks.report import at_most, doing, table
from benchmarks.samples import fill, queue
from benchmarks.worker import worker

PAUSE_S = 0.1
"""Between two items: the worker is idle again."""
LOOK_S = 0.002


async def pickup(url: str, count: int) -> list[float]:
    """The milliseconds of each."""
    await fill(url, count)
    took_ms: list[float] = []
    async with worker(url, "telling"), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await asyncio.sleep(1)
        for number in range(count):
            await queue(url, limit=1)
            committed_s = time.monotonic()
            while (began_s := await _newest(connection, number)) is None:  # noqa: ASYNC110 - another process's news
                await asyncio.sleep(LOOK_S)
            took_ms.append((began_s - committed_s) * 1e3)
            await asyncio.sleep(PAUSE_S)
    return took_ms


async def _newest(connection: psycopg.AsyncConnection[object], number: int) -> float | None:
    cursor = await connection.execute("SELECT max(latitude) FROM sample_facts HAVING count(*) > %s", [number])
    row = await cursor.fetchone()
    assert row is None or isinstance(row, tuple)
    return None if row is None else float(row[0])


async def main(count: int, rounds: int) -> None:
    """Prints the table."""
    peers = await install()
    ours: list[float] = []
    theirs: list[float] = []
    async with database(durable=True) as url:
        for _ in range(rounds):
            ours += await pickup(url, count)
            try:
                theirs += (await peers.run(url, "graphile.mjs", "pickup", count))["ms"]
            except PeerMissing as error:
                doing(f"left out: {error}")
    table(
        ("", "p50 ms", "p99 ms"),
        (
            (name, f"{median(values):.2f}", f"{quantiles(values, n=100)[98]:.2f}")
            for name, values in (("ours", ours), ("graphile-worker, unbatched", theirs))
            if values
        ),
    )
    if theirs:
        at_most("p50 beside graphile-worker's", median(ours) / median(theirs), 1, " times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.count, options.rounds))
