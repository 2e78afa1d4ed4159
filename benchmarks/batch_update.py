"""`BatchUpdateStatus` over gRPC beside the bare UPDATE by array of ids, on the same table in the same run.

`python -m benchmarks.batch_update [--rows 10000 ...] [--rounds 5]`: the call locks and judges the rows, changes them,
appends to the log, notifies and answers; the floor only changes the same columns, and commits. Both change rows that
neither has changed since the last vacuum. The goal is at least 0.6.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import psycopg

from benchmarks.bed import RESOURCE, Bed, add_places, database, place_ids, service, stub
from benchmarks.compare import Row, interleave, print_rows, row_of_seconds
from curation.v1 import curation_pb2 as pb

GOAL = 0.6
QUEUED = """UPDATE places_staging
SET status = 'SelectedForDeepScan', version = version + 1, deep_scan_status = 'queued', deep_scan_error = NULL,
    deep_scan_failure = NULL, deep_scan_result = NULL, deep_scan_attempts = 0, deep_scan_turn = 0,
    deep_scan_run_at = NULL, deep_scan_worker = NULL, deep_scan_batch = 1
WHERE id = ANY(%s::uuid[])"""
SELECTED = "UPDATE places_staging SET status = 'Selected', version = version + 1 WHERE id = ANY(%s::uuid[])"
RESET = """UPDATE places_staging SET status = 'New', deep_scan_status = NULL, deep_scan_turn = NULL,
    deep_scan_batch = NULL WHERE status <> 'New'"""
FLOORS = {"SelectedForDeepScan": QUEUED, "Selected": SELECTED}
"""The bare UPDATE that does to the rows what setting this status does."""


async def main(sizes: Sequence[int], rounds: int) -> None:
    """Prints a row for each size and status."""
    async with database(durable=True) as url, service(url) as bed:
        await add_places(url, 1, max(100_000, 2 * max(sizes)))
        rows = [await measured(bed, status, size, rounds) for size in sizes for status in FLOORS]
    print_rows(rows, unit="ms")


async def measured(bed: Bed, status: str, size: int, rounds: int) -> Row:
    """The two by turns, over two sets of rows that they exchange."""
    sets = [place_ids(1, size), place_ids(size + 1, 2 * size)]
    async with (
        bed.channel() as channel,
        await psycopg.AsyncConnection.connect(bed.url, autocommit=True) as connection,
    ):

        async def floor() -> float:
            sets.reverse()
            began = time.perf_counter()
            cursor = await connection.execute(FLOORS[status], ["{" + ",".join(sets[0]) + "}"])
            seconds = time.perf_counter() - began
            assert cursor.rowcount == size
            return seconds

        async def ours() -> float:
            request = pb.BatchUpdateStatusRequest(resource=RESOURCE, ids=pb.ItemIds(ids=sets[1]), status=status)
            began = time.perf_counter()
            answer = await stub(channel).BatchUpdateStatus(request)
            seconds = time.perf_counter() - began
            assert answer.batch.changed_count == size
            await connection.execute(RESET)
            await connection.execute("VACUUM ANALYZE places_staging")
            return seconds

        values = await interleave(rounds, {"floor": floor, "ours": ours})
    return row_of_seconds(f"{size:,} rows to {status}", values["floor"], values["ours"], goal=GOAL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.rows, options.rounds))
