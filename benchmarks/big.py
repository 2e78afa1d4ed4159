"""Large tables and logs in minutes: rows first and their indexes after them, by a connection for each core."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from benchmarks.bed import PLACES, PLACES_IN_ORDER
from shared.db.partitions import DAY_SIZE, EPOCH, create_partition

PORTION = 500_000
"""Rows of a statement."""
OF_A_DAY = 10_000_000
"""Entries of a partition of the log."""
INDEXES = """
SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', indrelid::regclass, conname),
       format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', indrelid::regclass, conname, pg_get_constraintdef(c.oid))
       || coalesce(format(' WITH (%%s)', array_to_string(reloptions, ', ')), '')
FROM pg_constraint c JOIN pg_index ON indexrelid = conindid JOIN pg_class i ON i.oid = indexrelid
WHERE indrelid = %(table)s::regclass AND contype IN ('p', 'u')
UNION ALL
SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid)
FROM pg_index
WHERE indrelid = %(table)s::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
"""How each index of a table is dropped, and made again."""
ENTRIES = f"""
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, from_queue, to_queue, batch, worker,
                          items, versions, attempts)
SELECT last_value + n - (%s::bigint - n) / {OF_A_DAY} * {DAY_SIZE}, 1, 'places', 'claim', 'SelectedForDeepScan',
       'SelectedForDeepScan', 'queued', 'processing', n / 1000, 1, ARRAY[md5(n::text)::uuid::text], ARRAY[3], ARRAY[1]
FROM status_event_position, generate_series(%s::int, %s::int) n
"""  # noqa: S608 - our own numbers
"""Of one item each: as many as there can be."""
FILLED = "SELECT setval('status_event_position', last_value + %s), last_value FROM status_event_position"


async def add_many_places(url: str, count: int, *, in_order: bool = False) -> None:
    """The places of the numbers up to `count`, to a table without any; their keys `in_order` of the numbers."""
    async with _connection(url) as connection:
        async with _without_indexes(connection, "places_staging"):
            await _by_portions(url, PLACES_IN_ORDER if in_order else PLACES, count)
        await _settle(connection, "places_staging")


@dataclass(frozen=True, slots=True)
class ManyEntries:
    """Entries of so many days, the newest behind what the log had."""

    start: int
    """The position that those of today follow."""
    count: int

    def position(self, number: int) -> int:
        """That of an entry; they are counted from 1."""
        return self.start + number - (self.count - number) // OF_A_DAY * DAY_SIZE


async def add_many_entries(url: str, count: int) -> ManyEntries:
    """Entries behind those of the log, and of the days before today where they are more than a day's."""
    await asyncio.to_thread(_create_days, url, (count - 1) // OF_A_DAY)
    async with _connection(url) as connection:
        await _by_portions(url, ENTRIES, count, count)
        row = await (await connection.execute(FILLED, [count])).fetchone()
        assert row is not None
        await _settle(connection, "status_event")
        return ManyEntries(int(row[1]), count)


def _create_days(url: str, days: int) -> None:
    today = (datetime.now(UTC).date() - EPOCH).days
    with psycopg.connect(url) as connection:
        for day in range(today - days, today):
            create_partition(connection, day)
        # The log says how far back it reaches, and is not read before that.
        connection.execute("UPDATE event_log SET pruned_through = %s", [(today - days) * DAY_SIZE - 1])


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[str | int, ...]]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET maintenance_work_mem = '1GB'")
        yield connection


@asynccontextmanager
async def _without_indexes(
    connection: psycopg.AsyncConnection[tuple[str | int, ...]], table: str
) -> AsyncIterator[None]:
    indexes = await (await connection.execute(INDEXES, {"table": table})).fetchall()
    for drop, _ in indexes:
        await connection.execute(str(drop).encode())
    yield
    for _, make in indexes:
        await connection.execute(str(make).encode())


async def _by_portions(url: str, statement: str, count: int, *parameters: int) -> None:
    firsts = iter(range(1, count + 1, PORTION))

    async def some() -> None:
        async with _connection(url) as connection:
            for first in firsts:
                last = min(first + PORTION - 1, count)
                await connection.execute(statement.encode(), (*parameters, first, last))

    await asyncio.gather(*(some() for _ in range(os.cpu_count() or 1)))


async def _settle(connection: psycopg.AsyncConnection[tuple[str | int, ...]], table: str) -> None:
    """Nothing of the filling is left to be done while something is measured."""
    await connection.execute(f"VACUUM (ANALYZE) {table}".encode())
    await connection.execute("CHECKPOINT")
