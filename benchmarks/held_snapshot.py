"""The drain while another transaction holds a snapshot open, so that vacuum can remove nothing: the death of queues.

`python -m benchmarks.held_snapshot [--items 300000] [--rounds 5]`. The snapshot is taken before the items are queued,
so that every version of every row since is dead and stays: three for each item. Beside it the same drain without;
medians. Goals: at least half as fast, and as fast at the last 100,000 items as at the first.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import psycopg

from benchmarks.bed import database
from benchmarks.drain import completed
from benchmarks.report import at_least, doing, table
from benchmarks.samples import fill, queue
from benchmarks.worker import pause, worker

PORTION = 100_000
RATES = """
SELECT sum(n) / extract(epoch FROM max(at) - min(began))::float8 FROM (
    SELECT at, n, lag(at, 1, %(began)s) OVER (ORDER BY at) AS began, sum(n) OVER (ORDER BY at, position) AS done
    FROM (SELECT at, position, cardinality(items) AS n FROM status_event WHERE kind = 'complete') e
) e GROUP BY (done - 1) / %(portion)s ORDER BY (done - 1) / %(portion)s
"""


@asynccontextmanager
async def held(url: str, *, hold: bool) -> AsyncIterator[None]:
    """Holds a snapshot open meanwhile."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        if hold:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await connection.execute("SELECT count(*) FROM samples")
        yield
        await connection.rollback()


async def rates(url: str, count: int, *, hold: bool) -> list[float]:
    """Items a second of each 100,000, one after another."""
    await fill(url, count)
    async with held(url, hold=hold), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await queue(url)
        await connection.execute("VACUUM ANALYZE samples")
        await pause(url, paused=True)
        async with worker(url):
            began_s = await pause(url, paused=False)
            while await completed(connection, count) is None:  # noqa: ASYNC110 - another process's news
                await asyncio.sleep(0.1)
        return await rates_of_log(connection, began_s, PORTION)


async def rates_of_log(connection: psycopg.AsyncConnection[object], began_s: float, portion: int) -> list[float]:
    """Items a second of each portion of those completed, as the log has them."""
    cursor = await connection.execute("SELECT to_timestamp(%s)", [began_s])
    row = await cursor.fetchone()
    assert isinstance(row, tuple)
    cursor = await connection.execute(RATES, {"began": row[0], "portion": portion})
    return [float(found[0]) for found in await cursor.fetchall() if isinstance(found, tuple)]


async def main(count: int, rounds: int) -> None:
    """Prints the table."""
    rows: list[tuple[str, ...]] = []
    ratios: list[float] = []
    declines: list[float] = []
    async with database(durable=True) as url:
        for _ in range(rounds):
            whole: dict[bool, float] = {}
            for hold in (False, True):
                each = await rates(url, count, hold=hold)
                whole[hold] = len(each) / sum(1 / rate for rate in each)
                name, listed = "held" if hold else "none", ", ".join(f"{rate:,.0f}" for rate in each)
                rows.append((name, listed, f"{whole[hold]:,.0f}", f"{each[-1] / each[0]:.2f}"))
                doing("   ".join(rows[-1]))
            ratios.append(whole[True] / whole[False])
            declines.append(each[-1] / each[0])
    table(("snapshot", f"items/s of each {PORTION:,}", "items/s", "last to first"), rows, texts=2)
    at_least("held to none", median(ratios), 0.5)
    at_least("last to first, held", median(declines), 0.9)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.items, options.rounds))
