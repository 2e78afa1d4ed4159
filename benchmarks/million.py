"""A million items through the whole lifecycle, a tenth at a time: does it stay as fast, and how much does it leave?

`python -m benchmarks.million [--items 1000000] [--passes 2] [--anywhere]`. Each tenth is queued as the one before has
ended: the next ones in order of key, as a list shows them, or any. With a second pass the same items are queued once
more. Autovacuum is on, as the table's settings say. Bloat: how much larger table and indexes are than rewritten by
`VACUUM FULL`, which packs them as their fillfactors say. Goals: the last tenths at 0.9 of the first, bloat below 30 %,
the worker below 150 MB. One tenth differs from the next by a tenth for no reason, so medians of three are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from uuid import UUID

import psycopg

from benchmarks.bed import database
from benchmarks.drain import completed
from benchmarks.report import at_least, at_most, doing, result, table
from benchmarks.samples import fill, queue
from benchmarks.worker import pause, worker

TENTHS = 10
SIZES = """
WITH indexes AS (
    SELECT indexrelid::regclass::text AS name, pg_relation_size(indexrelid)::float8 AS size,
           stat.avg_leaf_density AS packed,
           ((stat.deleted_pages + stat.empty_pages) * current_setting('block_size')::float8) AS free
    FROM pg_index, pgstatindex(indexrelid) stat WHERE indrelid = 'samples'::regclass
)
SELECT 'table', pg_table_size('samples')::float8, NULL::float8, NULL::float8
UNION ALL SELECT 'indexes', sum(size), sum(free), NULL FROM indexes
UNION ALL SELECT 'both', pg_total_relation_size('samples')::float8, NULL, NULL
UNION ALL SELECT name, size, free, packed FROM indexes WHERE size > 1e5
"""
Sizes = Mapping[str, tuple[float, float | None, float | None]]
"""Bytes; of an index those that are free for new entries, and how full its other pages are, in per cent."""


async def main(count: int, passes: int, *, anywhere: bool) -> None:
    """Prints the tables."""
    tenth = count // TENTHS
    rates: list[float] = []
    used: list[Sizes] = []
    async with (
        database(durable=True) as url,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await connection.execute("CREATE EXTENSION pgstattuple")
        await fill(url, count)
        found = await connection.execute("SELECT id FROM samples ORDER BY id")
        keys: list[UUID] = [key for (key,) in await found.fetchall()]
        if anywhere:
            random.shuffle(keys)
        filled = await _sizes(connection)
        async with worker(url) as running:
            for _ in range(passes):
                for start in range(0, tenth * TENTHS, tenth):
                    rates.append(await _one(connection, url, keys[start : start + tenth]))
                    doing(f"  {len(rates) * tenth:,}: {rates[-1]:,.0f}/s")
                await _vacuumed(connection)
                used.append(await _sizes(connection))
            memory_mb = running.memory_peak_bytes / 1e6
        await connection.execute("VACUUM FULL samples")
        least = await _sizes(connection)
    half = len(rates) // 2
    result(f"Tenths, items/s: {', '.join(f'{rate:,.0f}' for rate in rates)}.\n")
    after = (f"after {count * number:,}, MB" for number in range(1, passes + 1))
    columns = ("", "filled, MB", *after, "free of it", "rewritten, MB", "bloat, %", "packed, %")
    table(columns, _rows(filled, used, least))
    at_least("last tenths to first", median(rates[-3:]) / median(rates[:3]), 0.9)
    at_least("last half to first", sum(rates[half:]) / sum(rates[:half]), 0.9)
    for name in ("table", "indexes", "both"):
        at_most(f"bloat, {name}", _bloat(name, used[-1], least) * 100, 30, " %")
    at_most("memory of the worker", memory_mb, 150, " MB")


async def _one(connection: psycopg.AsyncConnection[tuple[object, ...]], url: str, keys: Sequence[UUID]) -> float:
    """Queues these, and drains them. Returns how many a second."""
    await pause(url, paused=True)
    since = await queue(url, keys)
    began_s = await pause(url, paused=False)
    while (ended_s := await completed(connection, len(keys), since=since)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return len(keys) / (ended_s - began_s)


def _rows(filled: Sizes, used: Sequence[Sizes], least: Sizes) -> Iterator[tuple[str, ...]]:
    for name, (_, free, packed) in used[-1].items():
        was, *now, then = (_mb(sizes[name][0] if name in sizes else 0.0) for sizes in (filled, *used, least))
        bloat = f"{_bloat(name, used[-1], least) * 100:.0f}" if name in least else ""
        yield name, was, *now, _mb(free), then, bloat, "" if packed is None else f"{packed:.0f}"


def _mb(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f}"


def _bloat(name: str, used: Sizes, least: Sizes) -> float:
    return used[name][0] / least[name][0] - 1


async def _vacuumed(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Waits until autovacuum has nothing more to do with the table."""
    busy = "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'samples'::regclass)"
    while True:
        row = await (await connection.execute(busy)).fetchone()
        assert row is not None
        if not row[0]:
            return
        await asyncio.sleep(0.5)


async def _sizes(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> Sizes:
    rows = await (await connection.execute(SIZES)).fetchall()
    return {str(name): numbers for name, *numbers in rows}  # type: ignore[misc]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--anywhere", action="store_true")
    options = parser.parse_args()
    asyncio.run(main(options.items, options.passes, anywhere=options.anywhere))
