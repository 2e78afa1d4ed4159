"""What a claim, a batch update, a page of a list and a read of the log cost however much there is.

`python -m benchmarks.growth [--rows 10000 1000000 10000000] [--entries 10000 1000000 10000000 100000000] [--rounds 20]
[--buffers 1024MB]`: tables whose keys are in the order in which rows came, tables whose keys are in none, then logs,
each on a server of its own, by turns in one run, medians. What changes something is rolled back, so that all stays as
it is. The goal is at most 1.2 times the smallest one's time.

A batch is of pages of the list that were just shown, as people choose, or of rows anywhere in the table; beside each
the bare UPDATE of such rows tells how much of the growth is PostgreSQL's. What is queued are pages, too. Ten million
entries make a day, so a partition of the log. Ten million rows take 12 GB of disk and two minutes to fill, a hundred
million entries 38 GB and eight; they are left out where the disk has no room for them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from statistics import median
from tempfile import gettempdir
from uuid import UUID

import psycopg

from benchmarks.bed import RESOURCE, database, place_id, service, stub
from benchmarks.big import add_many_entries, add_many_places
from benchmarks.compare import Measure, interleave
from benchmarks.report import at_most, doing, result, table
from curation.v1 import curation_pb2 as pb
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.database_tail import DatabaseTail
from shared.db.embedded import NO_SETTINGS
from shared.db.engine import Connection, connect
from shared.machine import curate_trigger
from shared.registry import load_registry
from shared.table import transition_table

GOAL = 1.2
FLOOR = "bare UPDATE"
SOME = 1_000
"""Items of a batch, and of a claim; entries of a read."""
PAGE = 100
QUEUED = 5_000
"""Of each table, so that only the table grows; fewer by what is on two of the pages."""
CLAIMS = 4
"""One after another, as in a drain."""
ROWS = (10_000, 1_000_000, 10_000_000)
ENTRIES = (10_000, 1_000_000, 10_000_000, 100_000_000)
ENTRY_BYTES = 500
"""What an entry takes of the disk, with room to spare."""
WORKFLOW = load_registry()[RESOURCE]
TABLE = transition_table(WORKFLOW)
BARE = "UPDATE places_staging SET status = 'Archived', version = version + 1 WHERE id = ANY(%b)"
"""The least that the batch update does to a row."""
Work = Callable[[], Awaitable[float]]
"""Does it once, and says how many seconds it took."""
Change = Callable[[Connection, Sequence[UUID]], Awaitable[int]]
"""Changes rows, and says how many."""
Bench = Callable[[int], AbstractAsyncContextManager[Mapping[str, Work]]]
"""What is measured of a size, by name."""


async def main(sizes: Sequence[int], entries: Sequence[int], rounds: int, settings: Mapping[str, str]) -> None:
    """Prints a table for each."""
    benches: Sequence[tuple[str, str, Sequence[int], Bench]] = (
        ("keys in order", "rows", sizes, partial(of_rows, in_order=True, settings=settings)),
        ("keys in no order", "rows", sizes, partial(of_rows, in_order=False, settings=settings)),
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
async def of_rows(
    size: int, *, in_order: bool, settings: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[Mapping[str, Work]]:
    """What is done to a table of so many rows."""
    async with database(more=settings) as url, service(url) as bed, bed.channel() as channel:
        await add_many_places(url, size, in_order=in_order)
        async with await connect(url, name="benchmark", autocommit=False) as connection:

            def some_key() -> UUID:
                return place_id(random.randint(1, size), in_order=in_order)  # noqa: S311 - a sample

            async def shown() -> list[UUID]:
                return await _shown(connection, some_key)

            for _ in range(0, QUEUED, SOME):
                queued = await _curate(connection, "SelectedForDeepScan", await shown())
                await connection.commit()
                assert queued > 0

            async def anywhere() -> list[UUID]:
                return [place_id(n, in_order=in_order) for n in random.sample(range(1, size + 1), SOME)]

            def changing(change: Change, choose: Callable[[], Awaitable[list[UUID]]]) -> Work:
                async def work() -> float:
                    return await _timed(connection, change, await choose())

                return work

            async def claim_some() -> float:
                # It takes the same rows each time: what was rolled back of them is in nobody's way but here.
                await _vacuum(url)
                turn = -inf
                began_s = time.perf_counter()
                for _ in range(CLAIMS):
                    claimed = await claim(connection, WORKFLOW, TABLE, session=1, limit=SOME, from_turn=turn)
                    turn = claimed.turn
                    assert len(claimed.items) == SOME
                taken_s = time.perf_counter() - began_s
                await connection.rollback()
                return taken_s / CLAIMS

            async def list_some() -> float:
                began_s = time.perf_counter()
                request = pb.ListItemsRequest(resource=RESOURCE, filter='status = "New"', page_size=PAGE)
                assert len((await stub(channel).ListItems(request)).items) == PAGE
                return time.perf_counter() - began_s

            yield {
                f"batch update of {SOME:,}, pages that were shown": changing(_archive, shown),
                f"{FLOOR} of {SOME:,}, pages that were shown": changing(_update, shown),
                f"batch update of {SOME:,}, anywhere": changing(_archive, anywhere),
                f"{FLOOR} of {SOME:,}, anywhere": changing(_update, anywhere),
                f"claim of {SOME:,}": claim_some,
                f"page of {PAGE}": list_some,
            }


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
                return await _timed(connection, _archive, await _shown(connection, some_key))

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


async def _vacuum(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM (INDEX_CLEANUP ON) places_staging")


async def _shown(connection: Connection, some_key: Callable[[], UUID]) -> list[UUID]:
    """The keys of some pages of the list, which are in memory as they were shown."""
    keys: list[UUID] = []
    for _ in range(SOME // PAGE):
        found = await connection.execute(
            """SELECT * FROM places_staging
               WHERE id >= %s AND deep_scan_status IS NULL ORDER BY id LIMIT %s""",
            [some_key(), PAGE],
        )
        keys += [row[0] for row in await found.fetchall()]
    await connection.rollback()
    return list(dict.fromkeys(keys))


async def _curate(connection: Connection, status: str, keys: Sequence[UUID]) -> int:
    call = CurateCall(trigger=curate_trigger(status), keys=keys, batch=NewBatch(status=status), allow_partial=True)
    return (await curate(connection, WORKFLOW, TABLE, call)).changed


async def _archive(connection: Connection, keys: Sequence[UUID]) -> int:
    return await _curate(connection, "Archived", keys)


async def _update(connection: Connection, keys: Sequence[UUID]) -> int:
    return (await connection.execute(BARE, [keys])).rowcount


async def _timed(connection: Connection, change: Change, keys: Sequence[UUID]) -> float:
    """Seconds for a thousand."""
    began_s = time.perf_counter()
    changed = await change(connection, keys)
    taken_s = time.perf_counter() - began_s
    await connection.rollback()
    return taken_s / changed * SOME


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
