"""Pick-up: from the commit of a batch of one to the first line of its enricher, in an idle worker.

`python -m benchmarks.pickup [--count 200] [--rounds 3]`, by turns with graphile-worker that batches nothing, and whose
jobs another process adds as well. The goal: no longer than that one, at the median. Beside it stands the same when
graphile-worker's own process adds the jobs, so that it is awake when one comes.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median, quantiles

from benchmarks.bed import database
from benchmarks.peer_runs import PeerMissing, install
from benchmarks.report import at_most, doing, result, table
from benchmarks.samples import fill, new_samples, queue_batch
from benchmarks.worker import worker
from shared.db.engine import Connection, connect

PAUSE_S = 0.1
"""Between two items: the worker has saved the one and is idle again before the next."""


async def pickup(url: str, count: int, **settings: str) -> list[float]:
    """The milliseconds of each. While one is picked up nothing but the worker is busy; `settings` are the worker's."""
    await fill(url, count)
    took_ms: list[float] = []
    async with worker(url, "telling", **settings), await connect(url, name="benchmark") as connection:
        await asyncio.sleep(1)
        for number, key in enumerate(await new_samples(connection), 1):
            await queue_batch(connection, [key])
            committed_s = time.monotonic()
            await asyncio.sleep(PAUSE_S)
            while (began_s := await _newest(connection, number)) is None:  # noqa: ASYNC110 - another process's news
                await asyncio.sleep(PAUSE_S)
            took_ms.append((began_s - committed_s) * 1e3)
    return took_ms


async def _newest(connection: Connection, count: int) -> float | None:
    """When the newest of so many was called; None until there are so many."""
    cursor = await connection.execute("SELECT max(latitude) FROM sample_facts HAVING count(*) = %s", [count])
    row = await cursor.fetchone()
    return None if row is None else float(row[0])


async def main(count: int, rounds: int) -> None:
    """Prints the table."""
    peers = await install()
    ours: list[float] = []
    theirs: list[float] = []
    awake: list[float] = []
    async with database(durable=True) as url:
        for _ in range(rounds):
            ours += await pickup(url, count)
            try:
                theirs += (await peers.run(url, "graphile.mjs", "pickup", count))["ms"]
                awake += (await peers.run(url, "graphile.mjs", "own", count))["ms"]
            except PeerMissing as error:
                doing(f"left out: {error}")
    table(
        ("", "p50 ms", "p99 ms"),
        (
            (name, f"{median(values):.2f}", f"{quantiles(values, n=100)[98]:.2f}")
            for name, values in (
                ("ours", ours),
                ("graphile-worker, unbatched", theirs),
                ("graphile-worker, whose own process adds the jobs", awake),
            )
            if values
        ),
    )
    if theirs:
        at_most("p50 beside graphile-worker's", median(ours) / median(theirs), 1, " times")
    if awake:
        result(f"Beside one whose own process adds the jobs: {median(ours) / median(awake):.2f} times.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.count, options.rounds))
