"""Reading the log in parts, telling whether it is the one that was read, and reports of progress in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text

from shared.db.claim import claim
from shared.db.engine import Database
from shared.db.log import append_progress, check_contains, newest_mark, newest_position, read_log
from shared.errors import LogRewound
from tests.support.log import TABLE, go_back, prune, update
from tests.support.parcels import PARCELS
from tests.support.service import add_parcels, parcel_database

pytestmark = pytest.mark.postgres_versions
ALL = 2**62


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With three parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, *[{}] * 3)
        yield database


async def places(database: Database, *, after: int, limit: int) -> list[tuple[int, int]]:
    """Position and part of what a reader is given."""
    async with database.transaction() as connection:
        return [
            (entry.position, entry.part) for entry in await read_log(connection, after=after, through=ALL, limit=limit)
        ]


async def test_a_reader_is_given_whole_transactions_however_few_entries_it_asks_for(database: Database) -> None:
    first = await update(database, "Selected", 1)
    both = await update(database, "Archived", 1, 2)
    assert await places(database, after=0, limit=1) == [(first, 1)]
    assert await places(database, after=first, limit=1) == [(both, 1), (both, 2)]


async def test_a_reader_is_given_whole_transactions_however_large_they_are_and_no_more_than_fits(
    database: Database,
) -> None:
    first = await update(database, "Selected", 1)
    async with database.core() as connection:
        await connection.execute(text(LARGE))
        last = first + 1
    assert await places(database, after=0, limit=9) == [(first, 1)]
    assert await places(database, after=first, limit=9) == [(last, 1), (last, 2)]


async def test_an_entry_that_is_older_than_the_log_is_not_missed_and_another_in_its_place_is_not_it(
    database: Database,
) -> None:
    last = await update(database, "Selected", 1)
    async with database.transaction() as connection:
        mark = await newest_mark(connection, through=last)
        assert mark is not None
        await check_contains(connection, mark)
    await go_back(database, last - 1)
    assert await update(database, "Selected", 2) == last
    async with database.transaction() as connection:
        with pytest.raises(LogRewound):
            await check_contains(connection, mark)
    await prune(database, last)
    async with database.transaction() as connection:
        await check_contains(connection, mark)


async def test_reports_of_several_batches_are_one_transaction(database: Database) -> None:
    for number in (1, 2):
        await update(database, "Scan", number)
    async with database.transaction() as connection:
        items = (await claim(connection, PARCELS, TABLE, session=1, limit=2)).items
        after = await newest_position(connection)
        await append_progress(connection, PARCELS, [(item.key, item.version, "asking", 0.5) for item in items])
        told = await read_log(connection, after=after, through=ALL, limit=9)
    assert sorted(entry.items[0] for entry in told) == [str(UUID(int=n)) for n in (1, 2)]
    assert [entry.part for entry in told] == [1, 2]


async def test_a_report_of_what_somebody_holds_is_left_out_and_waits_for_nobody(database: Database) -> None:
    await update(database, "Scan", 1, 2)
    async with database.transaction() as connection:
        items = (await claim(connection, PARCELS, TABLE, session=1, limit=2)).items
        after = await newest_position(connection)
    async with database.transaction() as other:
        await other.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", [UUID(int=1)])
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            await append_progress(connection, PARCELS, [(item.key, item.version, "asking", 0.5) for item in items])
            told = await read_log(connection, after=after, through=ALL, limit=9)
    assert [entry.items for entry in told] == [[str(UUID(int=2))]]


LARGE = """
WITH one AS MATERIALIZED (SELECT nextval('status_event_position') AS position WHERE pg_current_xact_id() IS NOT NULL)
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)
SELECT one.position, part, 'parcels', 'curate', 'New', 'Selected', i.items, i.ones, i.ones
FROM one, generate_series(1, 2) part,
     (SELECT array_agg(gen_random_uuid()::text) AS items, array_agg(1) AS ones FROM generate_series(1, 3000)) i
"""
"""A transaction of two entries: either is smaller than what is read at once, and both together are larger."""
