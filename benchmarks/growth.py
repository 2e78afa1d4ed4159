"""What a claim, a batch update, a page of a list and a read of the log cost however much there is.

`python -m benchmarks.growth [--rows 10000 1000000 10000000] [--entries 10000 1000000 10000000 100000000] [--rounds 20]
[--buffers 1024MB]`: tables whose keys are in the order in which rows came, tables whose keys are in none, the same
without the index that the author's own column has, then logs, each on a server of its own, by turns in one run,
medians. What changes something is rolled back, so that all stays as it is. The goal is at most 1.2 times the smallest
one's time.

A batch is of pages of the list that were just shown, as people choose, or of rows anywhere in the table. What is queued
are pages, too. Beside each the bare UPDATE of such rows tells how much of the growth is PostgreSQL's. Ten million
entries make a day, so a partition of the log. Ten million rows take 12 GB of disk and two minutes to fill, a hundred
million entries 38 GB and eight; they are left out where the disk has no room for them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from statistics import median
from tempfile import gettempdir
from uuid import UUID

from benchmarks.bed import database, place_id
from benchmarks.big import add_many_entries, add_many_places
from benchmarks.compare import Measure, interleave
from benchmarks.growth_rows import FLOOR, SOME, Work, archive, of_rows, shown, timed
from benchmarks.report import at_most, doing, result, table
from shared.db.database_tail import DatabaseTail
from shared.db.embedded import NO_SETTINGS
from shared.db.engine import connect

GOAL = 1.2
ROWS = (10_000, 1_000_000, 10_000_000)
ENTRIES = (10_000, 1_000_000, 10_000_000, 100_000_000)
ENTRY_BYTES = 500
"""What an entry takes of the disk, with room to spare."""
Bench = Callable[[int], AbstractAsyncContextManager[Mapping[str, Work]]]
"""What is measured of a size, by name."""


async def main(sizes: Sequence[int], entries: Sequence[int], rounds: int, settings: Mapping[str, str]) -> None:
    """Prints a table for each."""
    of_our_indexes = partial(of_rows, in_order=False, only_ours=True)
    benches: Sequence[tuple[str, str, Sequence[int], Bench]] = (
        ("keys in order", "rows", sizes, partial(of_rows, in_order=True, settings=settings)),
        ("keys in no order", "rows", sizes, partial(of_rows, in_order=False, settings=settings)),
        ("keys in no order, no index but ours", "rows", sizes, partial(of_our_indexes, settings=settings)),
        ("the log", "entries", entries, partial(of_entries, settings=settings)),
    )
    for title, unit, of_sizes, bench in benches:
        if not of_sizes:
            continue
        costs = await measured(of_sizes, rounds, bench)
        table(
            (title, *(f"{size:,} {unit}, ms" for size in of_sizes)),
            ((name, *(f"{cost:.2f}" for cost in by_size)) for name, by_size in costs.items()),
        )
        for name, by_size in costs.items():
            times = by_size[-1] / by_size[0]
            if name.startswith(FLOOR):
                result(f"  {name}, {title}: {times:.2f} times.")
            else:
                at_most(f"{name}, {title}", times, GOAL, " times")
        result("")


async def measured(sizes: Sequence[int], rounds: int, bench: Bench) -> dict[str, list[float]]:
    """Medians in milliseconds, for each kind of work by size."""
    async with AsyncExitStack() as stack:
        works: dict[int, Mapping[str, Work]] = {}
        for size in sizes:
            began_s = time.monotonic()
            works[size] = await stack.enter_async_context(bench(size))
            doing(f"  {size:,} made in {time.monotonic() - began_s:.0f} s")
        names = list(works[sizes[0]])
        # The sizes of one work after another: what a machine is busy with meanwhile meets all of them.
        measures: dict[str, Measure] = {f"{name}/{size}": works[size][name] for name in names for size in sizes}
        taken = await interleave(rounds, measures, warm_up=3)
    return {name: [median(taken[f"{name}/{size}"]) * 1e3 for size in sizes] for name in names}


@asynccontextmanager
async def of_entries(size: int, *, settings: Mapping[str, str] = NO_SETTINGS) -> AsyncIterator[Mapping[str, Work]]:
    """What is done beside a log of so many entries."""
    async with database(more=settings) as url:
        await add_many_places(url, ROWS[0])
        many = await add_many_entries(url, size)
        async with (
            await connect(url, name="benchmark", autocommit=False) as connection,
            DatabaseTail(url=url, direct_url=url, items_max=0) as tail,
        ):

            def some_key() -> UUID:
                return place_id(random.randint(1, ROWS[0]))  # noqa: S311 - a sample

            async def read_newest() -> float:
                return await _read(tail, many.position(size - SOME))

            async def read_older() -> float:
                return await _read(tail, many.position(random.randrange(1, size - SOME)))  # noqa: S311

            async def append() -> float:
                return await timed(connection, archive, await shown(connection, some_key))

            yield {
                f"tail, the newest {SOME:,} entries": read_newest,
                f"tail, {SOME:,} entries from anywhere": read_older,
                f"batch update of {SOME:,}": append,
            }


def _that_fit(entries: Sequence[int]) -> list[int]:
    free = shutil.disk_usage(gettempdir()).free
    fit = [size for size in entries if size * ENTRY_BYTES < free]
    for size in entries[len(fit) :]:
        doing(f"left out: {size:,} entries: the disk has {free / 1e9:.0f} GB free")
    return fit


async def _read(tail: DatabaseTail, position: int) -> float:
    began_s, seen = time.perf_counter(), 0
    while seen < SOME:
        reading = await tail.read(position)
        seen, position = seen + len(reading.entries), reading.position
    return (time.perf_counter() - began_s) / seen * SOME


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--entries", type=int, nargs="*", default=ENTRIES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--buffers", help="shared_buffers of the servers; as they are where it is left out")
    options = parser.parse_args()
    given = {"shared_buffers": options.buffers} if options.buffers else {}
    asyncio.run(main(options.rows, _that_fit(options.entries), options.rounds, given))
