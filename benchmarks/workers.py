"""Workers 1, 2, 4, 8 on one database, with an enricher that waits 200 ms as for an external API.

`python -m benchmarks.workers [--workers 1 2 4 8] [--seconds 8]`. Each runs 400 enrichers at once, so it can complete
2,000 items a second. The processor time of each item says where PostgreSQL, or the machine, is the limit.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg

from benchmarks.bed import database
from benchmarks.drain import completed
from benchmarks.report import doing, table
from benchmarks.samples import CALL_S, fill, queue, slowly
from benchmarks.worker import pause, worker

PER_S = slowly.limits.concurrency / CALL_S
"""What one worker could complete."""


async def scale(url: str, workers: int, seconds: float) -> tuple[float, float, float]:
    """Items a second; microseconds of a core that workers, and that everything on the machine, spent on each."""
    count = int(PER_S * workers * seconds)
    await fill(url, count)
    await queue(url)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
        await connection.execute("VACUUM ANALYZE samples")
        await pause(url, paused=True)
        running = [await stack.enter_async_context(worker(url, "slowly")) for _ in range(workers)]
        before_s, busy_s = sum(one.cpu_s for one in running), _busy_s()
        began_s = await pause(url, paused=False)
        while (ended_s := await completed(connection, count)) is None:  # noqa: ASYNC110 - another process's news
            await asyncio.sleep(0.1)
        spent_s = sum(one.cpu_s for one in running) - before_s
        return count / (ended_s - began_s), spent_s / count * 1e6, (_busy_s() - busy_s) / count * 1e6


def _busy_s() -> float:
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / 100


async def main(numbers: list[int], seconds: float) -> None:
    """Prints the table."""
    rows: list[tuple[str, ...]] = []
    async with database(durable=True) as url:
        for number in numbers:
            per_s, mine_us, all_us = await scale(url, number, seconds)
            share = per_s / (PER_S * number)
            rows.append((f"{number}", f"{per_s:,.0f}", f"{share:.2f}", f"{mine_us:.0f}", f"{all_us:.0f}"))
            doing("   ".join(rows[-1]))
    head = ("workers", "items/s", "of what their enrichers could", "workers, us of a core an item", "the machine")
    table(head, rows, texts=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    asyncio.run(main(options.workers, options.seconds))
