"""A worker drains what is queued, beside the raw floor in the same run.

`python -m benchmarks.drain [--items 100000] [--rounds 3]`: claim, an enricher that does nothing, the upsert
of what it found, completion and the events of both, from the commit that lets it begin to the last completion, as the
log has them. Rounds are interleaved and medians taken, for a machine is not the same from minute to minute. The goal
is at least 0.8 of the floor; `benchmarks.against_peers` has other queues.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from statistics import median

import psycopg
from sqlalchemy import make_url

from benchmarks import floor_drain
from benchmarks.bed import database
from benchmarks.report import at_least, doing, table
from benchmarks.samples import fill, queue
from benchmarks.worker import pause, worker
from shared.db.embedded import create_database

POLL_S = 0.1
GOAL = 0.8
"""How often it is asked whether the drain has ended; when it did, the log says."""


@dataclass(frozen=True, slots=True)
class Drain:
    """How a drain went."""

    per_s: float
    cpu_s: float
    """Of the worker's process."""
    memory_bytes: int


async def drain(url: str, count: int, **settings: str) -> Drain:
    """Fills, queues and drains so many samples; `settings` are the worker's."""
    await fill(url, count)
    await queue(url)
    return await drain_queued(url, count, **settings)


async def drain_queued(url: str, count: int, **settings: str) -> Drain:
    """Drains so many samples, all that there are."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE samples")
        await pause(url, paused=True)
        async with worker(url, **settings) as running:
            before_s = running.cpu_s
            began_s = await pause(url, paused=False)
            while (ended_s := await completed(connection, count)) is None:  # noqa: ASYNC110 - another process's news
                await asyncio.sleep(POLL_S)
            return Drain(count / (ended_s - began_s), running.cpu_s - before_s, running.memory_peak_bytes)


async def completed(connection: psycopg.AsyncConnection[object], count: int, *, since: int = 0) -> float | None:
    """The database's time at which so many had been completed since a position of the log; None until then.

    They are counted by their attempts, the shortest of an entry's arrays: to read all keys ten times a second took a
    tenth of a core from a drain, and more the further it was.
    """
    row = await (
        await connection.execute(
            """SELECT sum(cardinality(attempts)), extract(epoch FROM max(at))::float8
               FROM status_event WHERE position > %s AND kind IN ('complete', 'find_nothing', 'fail')""",
            [since],
        )
    ).fetchone()
    assert isinstance(row, tuple)
    return row[1] if row[0] == count else None


async def main(count: int, rounds: int) -> None:
    """Prints the table."""
    floors: list[float] = []
    drains: list[Drain] = []
    async with database(durable=True) as url:
        other = make_url(url).set(database="floor").render_as_string(hide_password=False)
        await create_database(make_url(url).set(database="postgres").render_as_string(hide_password=False), "floor")
        for _ in range(rounds):
            floors.append(await asyncio.to_thread(floor_drain.drain, other, count))
            drains.append(await drain(url, count))
            doing(f"  floor {floors[-1]:8,.0f}/s   worker {drains[-1].per_s:8,.0f}/s")
    ours, floor = median(d.per_s for d in drains), median(floors)
    cpu_us, memory_mib = median(d.cpu_s for d in drains) / count * 1e6, max(d.memory_bytes for d in drains) / 2**20
    table(
        (f"{count:,} items, medians of {rounds}", "items/s", "us of a core an item", "MiB at most"),
        (("raw floor", f"{floor:,.0f}", "", ""), ("worker", f"{ours:,.0f}", f"{cpu_us:.0f}", f"{memory_mib:.0f}")),
    )
    at_least("of the floor", ours / floor, GOAL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.items, options.rounds))
