"""What a statement costs, sent in one way or another: the way that was chosen first, then those that were not.

`python -m benchmarks.statements [--rounds 30]`: upserts of results, reads of items, and entries of the log, by turns in
one run. Each says how long it took, and what the process and PostgreSQL worked for a row.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from benchmarks.bed import cpu_s, database
from benchmarks.report import table
from shared.db.arrays import DOUBLES, TEXTS, UUIDS
from shared.db.engine import connect
from shared.db.prepared import Prepared

SIZES = (100, 1_000, 10_000)
"""Rows of an upsert."""
READ = 1_000
EVENTS = 100_000
ASLEEP_S = 0.1
found = sa.Table(
    "found",
    sa.MetaData(),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("city", sa.Text),
    sa.Column("latitude", sa.Float),
    sa.Column("longitude", sa.Float),
)
UPSERT = """INSERT INTO found SELECT * FROM {rows} ON CONFLICT (id) DO UPDATE
SET name = excluded.name, city = excluded.city, latitude = excluded.latitude, longitude = excluded.longitude"""
BY_ARRAYS = UPSERT.format(rows="unnest(%s::uuid[], %s::text[], %s::text[], %s::float8[], %s::float8[])")
FROM_COPY = UPSERT.format(rows="copied")
COPIED = "CREATE TEMP TABLE copied (LIKE found) ON COMMIT DELETE ROWS"
TYPES = ("uuid", "text", "text", "float8", "float8")
ENTRIES = """CREATE TABLE as_rows (position bigint, ordinal int, resource text, kind text, to_status text, batch bigint,
                                   item text, version bigint, PRIMARY KEY (position, ordinal));
             CREATE TABLE changed AS SELECT md5(n::text)::uuid AS key, 2::bigint AS version
             FROM generate_series(1, {events}) n;
             CREATE TABLE as_arrays (position bigint, part int, resource text, kind text, to_status text, batch bigint,
                                     items text[], versions bigint[], PRIMARY KEY (position, part))"""
A_ROW_EACH = """INSERT INTO as_rows
SELECT %s, row_number() OVER (), 'places', 'curate', 'Selected', 1, key::text, version FROM changed"""
ARRAYS = """INSERT INTO as_arrays
SELECT %s, 1, 'places', 'curate', 'Selected', 1, array_agg(key::text), array_agg(version) FROM changed"""
Row = tuple[UUID, str, str, float, float]
Way = Callable[[], object]


class Ways:
    """The ways of one piece of work, over one connection of the driver and one of SQLAlchemy."""

    def __init__(self, connection: psycopg.Connection[Any], core: sa.Connection) -> None:
        self._connection, self._core = connection, core
        driver: Any = core.connection.driver_connection
        self._pids = (connection.info.backend_pid, driver.info.backend_pid)

    def compare(self, ways: Mapping[str, Way], rows: int, rounds: int) -> Iterator[tuple[str, ...]]:
        """A line for each way: its name, milliseconds, and microseconds a row of the process and of PostgreSQL."""
        took: dict[str, list[float]] = {name: [] for name in ways}
        process_s, backend_s = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for number in range(-2, rounds):
            for name, way in ways.items():
                worked_s, began_process_s, began_s = self._worked_s(), time.process_time(), time.perf_counter()
                way()
                if number >= 0:
                    took[name].append(time.perf_counter() - began_s)
                    process_s[name] += time.process_time() - began_process_s
                    backend_s[name] += self._worked_s() - worked_s
        for name, seconds in took.items():
            each = [f"{spent[name] / rounds / rows * 1e6:,.1f}" for spent in (process_s, backend_s)]
            yield name, f"{rows:,}", f"{median(seconds) * 1e3:.2f}", *each

    def upserts(self, size: int) -> dict[str, Way]:
        """Results of so many items into their target."""

        def by_arrays() -> None:
            ids, names, cities, *floats = zip(*_results(size), strict=True)
            texts = (TEXTS.array(names), TEXTS.array(cities))
            self._connection.execute(BY_ARRAYS, [UUIDS.array(ids), *texts, *map(DOUBLES.array, floats)])

        def by_lists() -> None:
            self._connection.execute(BY_ARRAYS, [list(values) for values in zip(*_results(size), strict=True)])

        def by_copy() -> None:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                with cursor.copy("COPY copied FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(TYPES)
                    for row in _results(size):
                        copy.write_row(row)
                cursor.execute(FROM_COPY)

        def by_core() -> None:
            statement = insert(found)
            new = {name: statement.excluded[name] for name in ("name", "city", "latitude", "longitude")}
            rows = [dict(zip(found.columns.keys(), row, strict=True)) for row in _results(size)]
            self._core.execute(statement.on_conflict_do_update(index_elements=["id"], set_=new), rows)

        return {
            "upsert, `unnest` of arrays that are encoded by type": by_arrays,
            "upsert, `unnest` of lists, as the driver sends them": by_lists,
            "upsert, COPY into a temporary table": by_copy,
            "upsert, SQLAlchemy Core": by_core,
        }

    def reads(self) -> dict[str, Way]:
        """Many rows in one statement."""

        def by_core() -> None:
            assert len(self._core.execute(sa.select(found).limit(READ)).all()) == READ

        def by_driver() -> None:
            assert len(self._connection.execute("SELECT * FROM found LIMIT %s", [READ]).fetchall()) == READ

        return {"read, the driver": by_driver, "read, SQLAlchemy Core": by_core}

    def looks(self) -> dict[str, Way]:
        """One row by its key: what a statement costs by itself."""
        row = self._connection.execute("SELECT id FROM found LIMIT 1").fetchone()
        assert row is not None
        (key,) = row
        text = "SELECT * FROM found WHERE id = %s"

        def prepared() -> None:
            self._connection.execute(text, [key], prepare=True)

        def unprepared() -> None:
            self._connection.execute(text, [key], prepare=False)

        def by_core() -> None:
            self._core.execute(sa.select(found).where(found.c.id == key)).all()

        return {
            "row by key, prepared": prepared,
            "row by key, not prepared": unprepared,
            "row by key, SQLAlchemy Core, prepared": by_core,
        }

    def entries(self) -> dict[str, Way]:
        """What a batch says in the log."""
        positions = iter(range(1_000_000))

        def arrays() -> None:
            self._connection.execute(ARRAYS, [next(positions)])

        def a_row_each() -> None:
            self._connection.execute(A_ROW_EACH, [next(positions)])

        return {"log, arrays": arrays, "log, a row for each event": a_row_each}

    def _worked_s(self) -> float:
        return sum(map(cpu_s, self._pids))


async def main(rounds: int) -> None:
    """Prints the tables."""
    async with database(durable=True) as url:
        await asyncio.to_thread(_compare, url, rounds)
        await _compare_asleep(url, rounds)


async def _compare_asleep(url: str, rounds: int) -> None:
    """One row, asked for by a process that has slept."""
    statement = Prepared.of(b"SELECT * FROM found ORDER BY id LIMIT %(limit)s")
    took: dict[str, list[float]] = {}
    async with await connect(url, name="benchmark") as connection, await connect(url, name="benchmark") as other:

        async def through_libpq() -> None:
            await statement.run(connection, {"limit": 1})

        async def by_cursor() -> None:
            cursor = await other.execute("SELECT * FROM found ORDER BY id LIMIT %s", [1], prepare=True)
            await cursor.fetchall()

        for _ in range(4 * rounds):
            for name, way in (("through libpq", through_libpq), ("a cursor", by_cursor)):
                await asyncio.sleep(ASLEEP_S)
                began_s = time.perf_counter()
                await way()
                took.setdefault(name, []).append((time.perf_counter() - began_s) * 1e3)
    table(("after 0.1 s of sleep, one row", "ms"), ((name, f"{median(times):.2f}") for name, times in took.items()))


def _compare(url: str, rounds: int) -> None:
    with _ways(url) as ways:
        lines = [
            line for size in SIZES for line in ways.compare(ways.upserts(size), size, rounds * max(1, READ // size))
        ]
        lines += ways.compare(ways.reads(), READ, rounds)
        lines += ways.compare(ways.looks(), 1, 50 * rounds)
        lines += ways.compare(ways.entries(), EVENTS, max(3, rounds // 5))
    table(("", "rows", "ms", "the process, us a row", "PostgreSQL, us a row"), lines)


@contextmanager
def _ways(url: str) -> Iterator[Ways]:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with psycopg.connect(url, autocommit=True) as connection, engine.connect() as core:
        found.create(core)
        connection.execute(COPIED)
        connection.execute(ENTRIES.format(events=EVENTS).encode())
        yield Ways(connection, core)
    engine.dispose()


def _results(size: int) -> list[Row]:
    return [(uuid4(), f"name {n}", f"city {n}", n * 0.1, n * 0.2) for n in range(size)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(main(parser.parse_args().rounds))
