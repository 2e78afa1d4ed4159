"""What the log costs: to read it however long it is, and to write it beside the change that it tells of.

`python -m benchmarks.watch_log [--events 10000000]`: one who is behind reads the first 10,000 events of a log of
10,000 and of one of so many, by turns, and the whole of the long one; then a batch of 10,000 rows is changed with the
log and without. Goals: an event costs the same in both, and the log adds less than a third to the batch.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
from sqlalchemy import text

from benchmarks.bed import database
from benchmarks.compare import Measure, interleave
from benchmarks.report import at_most, table
from shared.db import curate as curation
from shared.db import writer
from shared.db.curate import CurateCall, NewBatch
from shared.db.database_tail import DatabaseTail
from shared.db.engine import Database
from shared.machine import curate_trigger
from shared.registry import load_registry
from shared.table import transition_table

SMALL = 10_000
ITEMS = 100
"""Of an entry."""
ROUNDS = 20


async def main(events: int) -> None:
    """Prints both."""
    costs = await _reading(events)
    async with database() as url:
        with_log_s, without_s = await _writing(url)
    table(("an event of", "us"), ((name, f"{each_us:.2f}") for name, each_us in costs.items()))
    table(
        (f"a batch of {SMALL:,}", "ms"),
        (("with the log", f"{with_log_s * 1e3:.0f}"), ("without", f"{without_s * 1e3:.0f}")),
    )
    small, large, *_ = costs.values()
    at_most("the first of the long log beside the short one's", large / small, 1.2, " times")
    at_most("a batch with the log beside without", with_log_s / without_s, 1.33, " times")


async def _reading(events: int) -> dict[str, float]:
    """Microseconds of an event, by what is read; by turns from the short log and from the long one."""
    async with database() as short, database() as long:
        starts = [await _filled(short, SMALL), await _filled(long, events)]
        async with (
            DatabaseTail(url=short, direct_url=short, items_max=0) as of_short,
            DatabaseTail(url=long, direct_url=long, items_max=0) as of_long,
        ):
            first: dict[str, Measure] = {
                f"the first {SMALL:,} of a log of {size:,}": partial(_read, tail, start, SMALL)
                for size, tail, start in zip((SMALL, events), (of_short, of_long), starts, strict=True)
            }
            costs = {name: statistics.median(taken) for name, taken in (await interleave(ROUNDS, first)).items()}
            costs[f"all {events:,}"] = await _read(of_long, starts[1], events)
    return costs


async def _filled(url: str, events: int) -> int:
    """Fills a log with so many; gives the position in front of them."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute("SELECT last_value FROM status_event_position")).fetchone()
        assert row is not None
        await connection.execute(
            """INSERT INTO status_event (position, part, resource, kind, from_status, to_status,
                                         items, versions, attempts)
               SELECT nextval('status_event_position'), 1, 'places', 'curate', 'New', 'Selected',
                      (SELECT array_agg(md5(e::text || i)::uuid::text) FROM generate_series(1, %(items)s) i),
                      array_fill(2, ARRAY[%(items)s]), array_fill(0, ARRAY[%(items)s])
               FROM generate_series(1, %(entries)s) e""",
            {"items": ITEMS, "entries": events // ITEMS},
        )
        return int(row[0])


async def _read(tail: DatabaseTail, position: int, events: int) -> float:
    """Microseconds of an event."""
    began, seen = time.perf_counter(), 0
    while seen < events:
        reading = await tail.read(position)
        seen, position = seen + sum(len(entry.items) for entry in reading.entries), reading.position
    return (time.perf_counter() - began) / seen * 1e6


async def _writing(url: str) -> tuple[float, float]:
    """Seconds of a batch with the log, and without."""
    workflow = load_registry()["places"]
    table = transition_table(workflow)
    keys = [UUID(int=number) for number in range(1, SMALL + 1)]
    async with Database(url) as pool:
        async with pool.core() as connection:
            await connection.run_sync(workflow.source.metadata.create_all)
            rows = [
                dict.fromkeys(("external_id", "code", "name", "city", "region", "country", "time_zone"), str(key))
                | {"id": key, "latitude": 0, "longitude": 0}
                for key in keys
            ]
            await connection.execute(workflow.source.insert(), rows)

        async def batch(status: str) -> float:
            began = time.perf_counter()
            async with pool.transaction() as connection:
                call = CurateCall(trigger=curate_trigger(status), keys=keys, batch=NewBatch(status=status))
                curated = await curation.curate(connection, workflow, table, call)
            assert curated.changed == SMALL
            return time.perf_counter() - began

        with_log, without = [], []
        for number in range(4 * ROUNDS):
            status = ("Selected", "New")[number % 2]
            # By turns of two, so that both ways are measured in each direction.
            if number % 4 < 2:
                with_log.append(await batch(status))
            else:
                with _no_log():
                    without.append(await batch(status))
        async with pool.core() as connection:
            entries = await connection.scalar(text("SELECT count(*) FROM status_event"))
        assert entries == len(with_log), "the log was written where it should not be, or not where it should"
    return statistics.median(with_log), statistics.median(without)


@contextmanager
def _no_log() -> Iterator[None]:
    """Statements that are composed meanwhile append nothing; none that was composed before is used."""
    curation.batch_statement.cache_clear()
    try:
        with mock.patch.object(curation, "compose", _without_log(writer.compose)):
            yield
    finally:
        curation.batch_statement.cache_clear()


def _without_log(compose: Callable[..., bytes]) -> Callable[..., bytes]:
    """The same statement, but what it would append is never asked for."""

    def composed(*arguments: Any) -> bytes:
        statement, count = re.subn(rb"INSERT INTO status_event \([^)]*\)\s+SELECT", b"SELECT", compose(*arguments))
        assert count == 1
        return statement

    return composed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    asyncio.run(main(parser.parse_args().events))
