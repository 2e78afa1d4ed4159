"""The one reader of the log: in order, complete, whoever commits late and whatever happens to its connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.database_tail import DatabaseTail
from shared.db.engine import Database
from shared.db.partitions import DAY_SIZE
from shared.errors import DatabaseUnavailable, LogRewound, TokenExpired
from tests.support.eventually import eventually
from tests.support.log import arrive, curate_in, cut, open_transaction, prune, read_all, update, versions
from tests.support.proxy import proxied
from tests.support.service import WAIT_S, add_parcels, parcel_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With five parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, *[{}] * 5)
        yield database


@asynccontextmanager
async def tailing(database: Database, **options: Any) -> AsyncIterator[DatabaseTail]:
    async with DatabaseTail(url=database.url, direct_url=database.url, **options) as tail:
        yield tail


async def test_what_is_committed_arrives_in_order(database: Database) -> None:
    async with tailing(database, poll_s=60) as tail:
        start = tail.position
        last = [await update(database, status, 1) for status in ("Selected", "Scan", "Archived")][-1]
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3), (1, 4)]
        assert not (await tail.read(tail.position)).entries


async def test_a_tail_starts_at_now(database: Database) -> None:
    last = await update(database, "Selected", 1)
    async with tailing(database) as tail:
        assert tail.position >= last
        assert versions(await read_all(tail, last - 1)) == [(1, 2)]


async def test_a_position_that_commits_late_is_delivered_in_its_place(database: Database) -> None:
    async with tailing(database) as tail, open_transaction(database) as late:
        start = tail.position
        first = await curate_in(late, "Selected", 1)
        second = await update(database, "Selected", 2)
        assert first < second
        await eventually(lambda: tail.lag_s > 0)
        assert not await read_all(tail, start)
        await late.commit()
        await arrive(tail, second)
        assert versions(await read_all(tail, start)) == [(1, 2), (2, 2)]
        assert not tail.lag_s


async def test_a_position_that_is_rolled_back_holds_nobody_back(database: Database) -> None:
    async with tailing(database) as tail, open_transaction(database) as late:
        start = tail.position
        await curate_in(late, "Selected", 1)
        second = await update(database, "Selected", 2)
        await late.rollback()
        await arrive(tail, second)
        assert versions(await read_all(tail, start)) == [(2, 2)]


async def test_a_position_that_was_rolled_back_and_drawn_again_after_a_crash_is_delivered(
    database: Database,
) -> None:
    async with tailing(database, poll_s=0.02) as tail, open_transaction(database) as late:
        start = tail.position
        first = await update(database, "Selected", 1)
        drawn = await curate_in(late, "Selected", 2)
        await late.rollback()
        await eventually(lambda: tail._looked >= drawn)
        assert tail.position == first
        # What PostgreSQL has after a crash: it writes down what a sequence has given with the next commit.
        async with database.core() as connection:
            await connection.execute(text(f"SELECT setval('status_event_position', {first})"))
        await cut(database, "curation tail")
        assert await update(database, "Selected", 3) == drawn
        await arrive(tail, drawn)
        assert versions(await read_all(tail, start)) == [(1, 2), (3, 2)]


async def ends_without(database: Database, tail: DatabaseTail, position: int) -> None:
    """The tail ends once the log has lost this position, and says which it is."""
    async with database.core() as connection:
        await connection.execute(text(f"DELETE FROM status_event WHERE position = {position}"))
    await cut(database, "curation tail")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ExceptionGroup) as caught:
            await tail.ended()
    assert caught.group_contains(LogRewound, match=str(position))


async def test_a_log_that_has_lost_what_was_read_from_it_ends_the_process(database: Database) -> None:
    async with tailing(database) as tail:
        last = await update(database, "Selected", 1)
        await arrive(tail, last)
        await ends_without(database, tail, last)


async def test_so_does_one_that_has_lost_what_it_had_when_the_tail_began(database: Database) -> None:
    last = await update(database, "Selected", 1)
    async with tailing(database) as tail:
        assert tail.position == last
        await ends_without(database, tail, last)


async def test_a_transaction_that_is_forgotten_is_ended_and_holds_back_nobody(database: Database) -> None:
    async with tailing(database) as tail, Database(database.url, idle_in_transaction_s=0.1) as careless:
        start = tail.position

        async def forget() -> None:
            async with careless.transaction() as forgotten:
                await curate_in(forgotten, "Selected", 1)
                await arrive(tail, await update(database, "Selected", 2))

        with pytest.raises(DatabaseUnavailable):
            await forget()
        assert versions(await read_all(tail, start)) == [(2, 2)]


async def test_a_transaction_under_way_at_the_start_is_not_missed(database: Database) -> None:
    async with open_transaction(database) as late:
        first = await curate_in(late, "Selected", 1)
        second = await update(database, "Selected", 2)
        tail = DatabaseTail(url=database.url, direct_url=database.url)
        starting = asyncio.create_task(tail.__aenter__())
        await late.commit()
        await starting
        await arrive(tail, second)
        assert versions(await read_all(tail, first - 1)) == [(1, 2), (2, 2)]
        await tail.stop()


async def test_why_the_log_cannot_be_read_is_said(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    tail = DatabaseTail(url=database.url, direct_url="postgresql://somebody:s3cret@127.0.0.1:1/curation")
    starting = asyncio.create_task(tail.__aenter__())
    await eventually(lambda: "cannot be read" in caplog.text)
    await tail.stop()
    await asyncio.wait({starting})
    assert "Connection refused" in caplog.text
    assert "s3cret" not in caplog.text


async def test_many_writers_at_once_lose_no_version(database: Database) -> None:
    async def write(number: int) -> int:
        return [await update(database, ("Selected", "New")[turn % 2], number) for turn in range(30)][-1]

    async with tailing(database) as tail:
        start = tail.position
        await arrive(tail, max(await asyncio.gather(*map(write, range(1, 6)))))
        seen = versions(await read_all(tail, start))
    for number in range(1, 6):
        assert [version for item, version in seen if item == number] == list(range(2, 32))


async def test_who_is_behind_the_memory_reads_the_table(database: Database) -> None:
    async with tailing(database, items_max=20) as tail:
        start = tail.position
        for turn in range(4):
            last = await update(database, ("Selected", "New")[turn % 2], 1, 2)
        await arrive(tail, last)
        entries = await read_all(tail, start)
        assert [entry.versions for entry in entries] == [[2, 2], [3, 3], [4, 4], [5, 5]]
        assert (await tail.read(last - 1)).entries == entries[-1:]


async def test_who_is_behind_the_memory_does_not_meet_a_connection_that_was_cut_while_nobody_used_it(
    database: Database,
) -> None:
    async with tailing(database, items_max=0) as tail:
        start = tail.position
        await arrive(tail, await update(database, "Selected", 1))
        for _ in range(2):
            assert versions([*(await tail.read(start)).entries]) == [(1, 2)]
            await cut(database, "curation tail, behind")


async def test_what_is_more_than_a_reading_is_read_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.db.database_tail.READ_SIZE", 2)
    monkeypatch.setattr("shared.db.tail.READ_SIZE", 2)
    async with tailing(database, poll_s=60) as tail, open_transaction(database) as writing:
        last = [await curate_in(writing, "Selected", number) for number in range(1, 6)][-1]
        await writing.commit()  # one notification for all
        await arrive(tail, last)


async def test_where_nothing_happens_for_days_a_token_does_not_grow_old(database: Database) -> None:
    async with tailing(database, poll_s=0.02) as tail:
        next_day = tail.position - tail.position % DAY_SIZE + DAY_SIZE
        async with database.core() as connection:
            await connection.execute(text(f"SELECT setval('status_event_position', {next_day + 7})"))
        await arrive(tail, next_day)
        assert tail.position == next_day, "what was drawn there may have been rolled back, and is drawn again"


async def test_many_who_are_behind_the_memory_need_few_connections(database: Database) -> None:
    async with tailing(database, items_max=0) as tail:
        start = tail.position
        await arrive(tail, await update(database, "Selected", 1, 2))
        readings = await asyncio.gather(*(tail.read(start) for _ in range(300)))  # the server takes 200
    assert {len(reading.entries) for reading in readings} == {1}


async def test_a_part_of_the_table_that_is_gone_is_never_skipped(database: Database) -> None:
    async with tailing(database, items_max=0) as tail:
        start = tail.position
        first = await update(database, "Selected", 1)
        await arrive(tail, await update(database, "Selected", 2))
        await prune(database, first)
        with pytest.raises(TokenExpired):
            await tail.read(start)
        assert versions(await read_all(tail, first)) == [(2, 2)]


async def test_a_cut_connection_costs_no_event(database: Database) -> None:
    async with tailing(database, poll_s=0.05) as tail:
        start = tail.position
        await arrive(tail, await update(database, "Selected", 1))
        await cut(database, "curation tail")
        await arrive(tail, await update(database, "Archived", 1))
        await arrive(tail, await update(database, "New", 1))
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize("is_behind", [False, True], ids=["following", "behind"])
async def test_a_connection_that_hangs_without_a_word_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_behind: bool
) -> None:
    monkeypatch.setattr(f"shared.db.{'tail' if is_behind else 'database_tail'}.ANSWER_S", 0.2)
    async with proxied(database.url) as (proxy, url):
        direct = database.url if is_behind else url
        async with DatabaseTail(url=url, direct_url=direct, poll_s=0.05, items_max=0 if is_behind else 1000) as tail:
            start = tail.position
            await arrive(tail, await update(database, "Selected", 1))
            assert versions(await read_all(tail, start)) == [(1, 2)]
            proxy.freeze()
            await arrive(tail, await update(database, "Archived", 1))
            if is_behind:
                with pytest.raises(DatabaseUnavailable):
                    await tail.read(start)
            assert versions(await read_all(tail, start)) == [(1, 2), (1, 3)]
    assert ("the log cannot be read now: no answer in time" in caplog.text) != is_behind


async def test_a_long_wait_is_warned_of_now_and_then_and_not_at_every_look(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with tailing(database, stall_s=0.05) as tail, open_transaction(database) as late:
        await curate_in(late, "Selected", 1)
        last = await update(database, "Selected", 2)
        await eventually(lambda: tail.lag_s > 1)
        await late.commit()
        await arrive(tail, last)
    warnings = [record for record in caplog.records if "held the stream back" in record.getMessage()]
    assert warnings
    for n, warning in enumerate(warnings):
        assert isinstance(warning.args, tuple)
        (waited_s,) = warning.args
        assert isinstance(waited_s, float)
        assert waited_s > 0.05 * 2**n
