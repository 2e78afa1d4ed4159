"""A minute's look for regressions: the drain and a batch update beside their floors, by turns, in one run.

`python -m benchmarks.quick`. It warns of a ratio under its bound, which leaves room for a busy machine; it is no test.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import make_url

from benchmarks import floor_drain
from benchmarks.batch_update import measured
from benchmarks.bed import add_places, database, service
from benchmarks.compare import Row, interleave, print_rows, row_of_rates
from benchmarks.drain import drain
from benchmarks.report import doing
from shared.db.embedded import create_database

ITEMS, ROWS, ROUNDS = 40_000, 10_000, 3
DRAIN_BOUND = 0.5
UPDATE_BOUND = 0.4


async def main() -> None:
    """Prints the table, and the warnings."""
    rows = [await _drain(), await _update()]
    print_rows(rows, unit="items/s; ms")
    for row in rows:
        if row.ratio < row.goal:
            doing(f"warning: {row.name} at {row.ratio:.2f} of its floor, below {row.goal}")


async def _drain() -> Row:
    async with database(durable=True) as url:
        other = make_url(url).set(database="floor").render_as_string(hide_password=False)
        await create_database(make_url(url).set(database="postgres").render_as_string(hide_password=False), "floor")

        async def floor() -> float:
            return await asyncio.to_thread(floor_drain.drain, other, ITEMS)

        async def ours() -> float:
            return (await drain(url, ITEMS)).per_s

        values = await interleave(ROUNDS, {"floor": floor, "ours": ours}, warm_up=0)
    return row_of_rates(f"drain of {ITEMS:,} items", values["floor"], values["ours"], goal=DRAIN_BOUND)


async def _update() -> Row:
    async with database(durable=True) as url, service(url) as bed:
        await add_places(url, 1, 4 * ROWS)
        row = await measured(bed, "SelectedForDeepScan", ROWS, ROUNDS)
    return Row(row.name, row.floor, row.ours, row.ratio, UPDATE_BOUND)


if __name__ == "__main__":
    asyncio.run(main())
