"""What one claim, batch update and page of a list cost in tables of ten thousand rows, a million, and ten million.

`python -m benchmarks.growth [--rows 10000 1000000 10000000] [--rounds 30]`: by turns in one run, of rows at
random, or those whose turn it is. The first two are rolled back, so that the table stays as it is. The goal is at most
1.2 times the smallest table's time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from uuid import UUID

import psycopg

from benchmarks.bed import RESOURCE, add_places, database, place_ids, service, stub
from benchmarks.compare import Measure, interleave
from curation.v1 import curation_pb2 as pb
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import connect
from shared.machine import curate_trigger
from shared.registry import load_registry
from shared.table import transition_table

GOAL = 1.2
SOME = 1_000
"""Items of a batch, and of a claim."""
QUEUED = 5_000
"""Of each table, so that only the table grows."""
QUEUE = """UPDATE places_staging
SET status = 'SelectedForDeepScan', deep_scan_status = 'queued', deep_scan_turn = random() WHERE random() < %s"""
Work = Callable[[], Awaitable[None]]


async def main(sizes: Sequence[int], rounds: int) -> None:
    """Prints the table."""
    costs = await measured(sizes, rounds)
    print(f"\n| work | {' | '.join(f'{size:,} rows, ms' for size in sizes)} | ratio | goal | met |")  # noqa: T201
    print(f"| --- {'| ---: ' * len(sizes)}| ---: | ---: | --- |")  # noqa: T201
    for name, by_size in costs.items():
        ratio = by_size[-1] / by_size[0]
        values = " | ".join(f"{cost:.2f}" for cost in by_size)
        print(f"| {name} | {values} | {ratio:.2f} | {GOAL} | {'yes' if ratio <= GOAL else 'no'} |")  # noqa: T201


async def measured(sizes: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Medians in milliseconds, for each kind of work by size."""
    async with AsyncExitStack() as stack:
        works = {size: await stack.enter_async_context(_works(size)) for size in sizes}
        measures = {f"{name}/{size}": _timed(work) for size, named in works.items() for name, work in named.items()}
        taken = await interleave(rounds, measures)
    return {name: [median(taken[f"{name}/{size}"]) * 1e3 for size in sizes] for name in works[sizes[0]]}


@asynccontextmanager
async def _works(size: int) -> AsyncIterator[Mapping[str, Work]]:
    """What is done to a table of this size, by name."""
    workflow = load_registry()[RESOURCE]
    table = transition_table(workflow)
    async with database() as url, service(url) as bed, bed.channel() as channel:
        await add_places(url, 1, size)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as setting_up:
            await setting_up.execute(QUEUE, (QUEUED / size,))
            await setting_up.execute("VACUUM ANALYZE places_staging")
        async with await connect(url, name="benchmark", autocommit=False) as connection:
            some = [UUID(key) for n in random.sample(range(1, size + 1), SOME) for key in place_ids(n, n)]

            async def curate_some() -> None:
                batch = NewBatch(status="Archived")
                call = CurateCall(trigger=curate_trigger("Archived"), keys=some, batch=batch, allow_partial=True)
                assert (await curate(connection, workflow, table, call)).changed > 0
                await connection.rollback()

            async def claim_some() -> None:
                claimed = await claim(connection, workflow, table, session=1, limit=SOME)
                assert len(claimed.items) == SOME
                await connection.rollback()

            async def list_some() -> None:
                request = pb.ListItemsRequest(resource=RESOURCE, filter='status = "New"', page_size=100)
                assert len((await stub(channel).ListItems(request)).items) == 100

            yield {
                f"batch update of {SOME:,}": curate_some,
                f"claim of {SOME:,}": claim_some,
                "page of 100": list_some,
            }


def _timed(work: Work) -> Measure:
    async def measure() -> float:
        began_s = time.perf_counter()
        await work()
        return time.perf_counter() - began_s

    return measure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    asyncio.run(main(options.rows, options.rounds))
