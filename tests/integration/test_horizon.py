"""The horizon of the log, with transactions that are forced to commit late."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from psycopg import AsyncConnection

from shared.db.engine import connect
from shared.db.horizon import NOTES_MAX, Horizon


async def _draw(connection: AsyncConnection[object]) -> int:
    """Draws a position as the writer does: the transaction has its id before."""
    row = await (
        await connection.execute("SELECT pg_current_xact_id()::text, nextval('status_event_position')")
    ).fetchone()
    assert isinstance(row, tuple)
    return int(row[1])


async def test_the_horizon_never_passes_an_open_transaction_even_the_youngest_one(database_url: str) -> None:
    # Nothing ended after it began: the end of a snapshot says nothing of it.
    async with (
        await connect(database_url, name="late", autocommit=False) as late,
        await connect(database_url, name="reader") as reader,
    ):
        position, horizon = await _draw(late), Horizon()
        for _ in range(3):
            assert await horizon.advance(reader) < position
        assert horizon.waiting_s > 0
        await late.commit()
        assert await horizon.advance(reader) >= position
        assert horizon.waiting_s == 0


async def test_an_older_transaction_that_commits_last_holds_back_the_newer_one(database_url: str) -> None:
    async with (
        await connect(database_url, name="older", autocommit=False) as older,
        await connect(database_url, name="newer", autocommit=False) as newer,
        await connect(database_url, name="reader") as reader,
    ):
        first, second, horizon = await _draw(older), await _draw(newer), Horizon()
        await newer.commit()
        assert await horizon.advance(reader) < first
        await older.rollback()
        assert await horizon.advance(reader) >= second


async def test_a_reader_costs_no_transaction_ids_also_while_others_write(database_url: str) -> None:
    async with await connect(database_url, name="reader") as reader, await connect(database_url, name="one") as one:
        horizon = Horizon()
        query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        before = await (await reader.execute(query)).fetchone()
        for _ in range(5):
            position = await _draw(one)
            assert await horizon.advance(reader) >= position
        after = await (await reader.execute(query)).fetchone()
    assert before is not None
    assert after == (before[0] + 5,)


async def test_readers_that_ask_at_the_same_time_do_not_wait_for_one_another(database_url: str) -> None:
    async with (
        await connect(database_url, name="writer") as writer,
        await connect(database_url, name="asking", autocommit=False) as asking,
        await connect(database_url, name="reader") as reader,
    ):
        position = await _draw(writer)
        await Horizon().advance(asking)  # its transaction is still under way
        assert await Horizon().advance(reader) >= position


def test_all_that_ended_is_passed_at_once_and_the_oldest_that_has_not_says_since_when(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.db.horizon.time", SimpleNamespace(monotonic=iter([10.0, 20.0, 30.0, 60.0]).__next__))
    horizon = Horizon()
    for position, bound in ((1, 100), (2, 200), (3, 300)):
        horizon.learn(position, bound, 99)
    assert (horizon.position, horizon.waiting_s) == (0, 50.0)
    horizon.learn(3, 400, 299)
    assert horizon.position == 2
    horizon.learn(3, 500, 300)
    assert (horizon.position, horizon.waiting_s) == (3, 0.0)


def test_notes_that_a_transaction_of_hours_holds_back_are_passed_by_fewer_steps_as_if_none_had_been_left_out() -> None:
    horizon, last = Horizon(), NOTES_MAX + 100
    for position in range(1, last + 1):
        horizon.learn(position, bound=position + 1_000, oldest=1_000)
    steps = []
    for oldest in range(1_000, last + 1_001):
        horizon.learn(last, bound=oldest, oldest=oldest)
        steps.append(horizon.position)
    assert steps == [*range(NOTES_MAX), *[NOTES_MAX - 1] * 100, last]
    assert not horizon.waiting_s
