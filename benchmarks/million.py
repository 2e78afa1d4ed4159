"""A million items through the whole lifecycle, a tenth at a time: does it stay as fast, and how much does it leave?

`python -m benchmarks.million [--items 1000000]`. Each tenth is queued as the one before has ended; autovacuum is on, as
the table's settings say. Bloat: how much larger table and indexes are than rewritten by `VACUUM FULL`. Goals: the last
tenth at 0.9 of the first, bloat below 30 %, the worker below 150 MB.
"""

from __future__ import annotations

import argparse
import asyncio

import psycopg

from benchmarks.bed import database
from benchmarks.drain import completed
from benchmarks.samples import fill, queue
from benchmarks.worker import pause, worker

SIZES = "SELECT pg_table_size('samples')::float8, pg_indexes_size('samples')::float8"


async def main(count: int) -> None:
    """Prints the tables."""
    tenth = count // 10
    rates: list[float] = []
    async with (
        database(durable=True) as url,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(url, count)
        filled = await _sizes(connection)
        async with worker(url) as running:
            for number in range(1, 11):
                await pause(url, paused=True)
                await queue(url, limit=tenth)
                began_s = await pause(url, paused=False)
                while (ended_s := await completed(connection, number * tenth)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                rates.append(tenth / (ended_s - began_s))
                print(f"  {number * tenth:,}: {rates[-1]:,.0f}/s", flush=True)  # noqa: T201
            memory_mb = running.memory_peak_bytes / 1e6
        await _vacuumed(connection)
        used = await _sizes(connection)
        await connection.execute("VACUUM FULL samples")
        least = await _sizes(connection)
    half = len(rates) // 2
    print(f"\nlast to first tenth {rates[-1] / rates[0]:.2f},", end=" ")  # noqa: T201
    print(f"last to first half {sum(rates[half:]) / sum(rates[:half]):.2f}; worker {memory_mb:.0f} MB at most")  # noqa: T201
    print("\n| | filled, MB | after, MB | rewritten, MB | bloat |\n| --- | ---: | ---: | ---: | ---: |")  # noqa: T201
    for name, was, now, then in zip(("table", "indexes"), filled, used, least, strict=True):
        print(f"| {name} | {was / 1e6:,.0f} | {now / 1e6:,.0f} | {then / 1e6:,.0f} | {now / then - 1:.0%} |")  # noqa: T201


async def _vacuumed(connection: psycopg.AsyncConnection[object]) -> None:
    """Waits until autovacuum has nothing more to do with the table."""
    busy = "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'samples'::regclass)"
    while True:
        row = await (await connection.execute(busy)).fetchone()
        assert isinstance(row, tuple)
        if not row[0]:
            return
        await asyncio.sleep(0.5)


async def _sizes(connection: psycopg.AsyncConnection[object]) -> tuple[float, float]:
    row = await (await connection.execute(SIZES)).fetchone()
    assert isinstance(row, tuple)
    return row[0], row[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().items))
