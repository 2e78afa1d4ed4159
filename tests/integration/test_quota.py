"""A lane's share of the limits of all workers, claim by claim: what it may take, when, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from enrichment_worker import quota
from enrichment_worker.lane import Lane
from enrichment_worker.quota import REST_S_MIN, SLOT_S, Portion, Quota
from enrichment_worker.upstream import Upstream
from shared.db.engine import Connection, Database
from shared.db.limits import WHOLE, Ask, Grant, interval_s, late_s, lease, postpone, reserve
from shared.db.sessions import open_session
from shared.table import transition_table
from shared.workflow import Item, Limits, Rate
from tests.support.service import somebody_waits_for_a_lock
from tests.support.worker import GADGETS

HOUR_S = 3600.0
HOURLY = Rate(calls=1, per_s=HOUR_S)
"""Nothing that a test does takes so long."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


@pytest.fixture(autouse=True)
def _far_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "HORIZON_S", 10 * HOUR_S)


def lane(held: int = 0, upstream: Upstream | None = None, **limits: Rate | int) -> Lane:
    """One of gadgets, that holds some."""
    workflow = replace(GADGETS, limits=Limits(**limits))  # type: ignore[arg-type]
    one = Lane(workflow, transition_table(workflow), ahead_max=0, upstream=upstream)
    one.take([Item(key, 1, 1, {}) for key in range(held)], 1, now_s=0.0)
    return one


async def session(connection: Connection) -> int:
    return await open_session(connection, host="h", version="0", resources=["gadgets"])


async def said(connection: Connection, session: int) -> tuple[int, int]:
    """In how many hours the next call may begin, and how many slots a session has."""
    cursor = await connection.execute(
        "SELECT round(extract(epoch FROM next_at - clock_timestamp()) / 3600)::int,"
        " (SELECT slots FROM call_lease WHERE session = %s) FROM call_schedule",
        [session],
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_of_what_was_reserved_only_what_was_taken_is_kept(database: Database, taken: int) -> None:
    """There are slots for fewer than there are calls; three are with others, and two in use."""
    one = lane(held=2, rate=HOURLY, concurrency_total=7)
    async with database.transaction() as connection:
        mine, theirs = await session(connection), await session(connection)
        await lease(connection, one.workflow.api, theirs, {WHOLE: (3, 0)}, slots_max=7)
        portion = await Quota(one).reserve(connection, 5, session=mine)
        assert portion.count == 2
        assert portion.rest_s > SLOT_S, "it is the rate that has nothing near"
        assert await said(connection, mine) == (5, 4)
        await Quota(one).settle(connection, portion, taken, session=mine)
        assert await said(connection, mine) == (taken, 2 + taken)


async def test_who_finds_no_slot_asks_again_after_a_while(database: Database) -> None:
    one = lane(held=1, concurrency_total=4)
    async with database.transaction() as connection:
        mine, theirs = await session(connection), await session(connection)
        await lease(connection, one.workflow.api, theirs, {WHOLE: (2, 0)}, slots_max=4)
        for count, rest_s in ((1, 0.0), (2, SLOT_S)):
            portion = await Quota(one).reserve(connection, count, session=mine)
            assert (portion.count, portion.rest_s) == (1, rest_s)


async def test_slots_in_use_stay_though_others_have_been_given_them(database: Database) -> None:
    """As to a worker that was taken for dead, and goes on."""
    one = lane(held=2, concurrency_total=4)
    async with database.transaction() as connection:
        mine, theirs = await session(connection), await session(connection)
        await lease(connection, one.workflow.api, theirs, {WHOLE: (3, 0)}, slots_max=4)
        assert (await Quota(one).reserve(connection, 5, session=mine)).count == 0
        assert await said(connection, mine) == (0, 2)


async def test_slots_in_use_are_those_of_all_workflows_that_call_the_api(database: Database) -> None:
    one = lane(held=1, upstream=lane(held=2).upstream, concurrency_total=6)
    async with database.transaction() as connection:
        mine = await session(connection)
        portion = await Quota(one).reserve(connection, 9, session=mine)
        assert (portion.count, await said(connection, mine)) == (3, (0, 6))
        await Quota(one).settle(connection, portion, 1, session=mine)
        assert await said(connection, mine) == (0, 4)


async def test_who_has_reserved_far_ahead_rests_until_there_is_something_near(database: Database) -> None:
    one = lane(rate=HOURLY)
    async with database.transaction() as connection:
        portions = [await Quota(one).reserve(connection, count, session=1) for count in (4, 99, 99)]
    assert [(portion.count, round(portion.rest_s / HOUR_S)) for portion in portions] == [(4, 0), (6, 5), (0, 5)]
    assert portions[0].rest_s == 0.0


async def test_who_has_no_rate_rests_too_while_another_workflow_has_used_up_its_own(database: Database) -> None:
    one = lane(concurrency_total=3)
    async with database.transaction() as connection:
        await postpone(connection, one.workflow.api, WHOLE, 20 * HOUR_S)
        portion = await Quota(one).reserve(connection, 1, session=await session(connection))
    assert (portion.count, portion.rest_s) == (0, REST_S_MIN)


async def test_times_are_counted_from_when_the_schedule_was_had_not_from_when_it_was_asked_for(
    database: Database,
) -> None:
    one, clock = lane(rate=HOURLY), asyncio.get_running_loop().time

    async def ask() -> tuple[float, float]:
        async with database.transaction() as connection:
            return (await Quota(one).reserve(connection, 1, session=1)).clock_s

    await ask()  # there is a schedule
    async with database.transaction() as connection:
        await reserve(connection, one.workflow.api, [Ask(WHOLE, 1, HOUR_S)], horizon_s=HOUR_S)
        began_s = clock()
        asking = asyncio.create_task(ask())
        await somebody_waits_for_a_lock(database)
        waits_s = clock()
        while clock() - waits_s < waits_s - began_s:  # which is no less than it took to ask
            await connection.execute("SELECT")
    earliest_s, latest_s = await asking
    assert waits_s <= earliest_s <= latest_s


async def test_the_time_at_which_the_clock_was_read_is_no_later_than_the_later_of_the_two(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_s: list[float] = []

    async def known(*args: Any, **named: Any) -> Mapping[str, Grant]:
        grants = await reserve(*args, **named)
        known_s.append(asyncio.get_running_loop().time())
        return grants

    monkeypatch.setattr(quota, "reserve", known)
    async with database.transaction() as connection:
        earliest_s, latest_s = (await Quota(lane(rate=HOURLY)).reserve(connection, 1, session=1)).clock_s
    assert earliest_s <= known_s[0] <= latest_s


def test_no_call_begins_before_its_time_nor_later_than_it_may() -> None:
    """Whichever the time was at which the database's clock was read."""
    grant = Grant(WHOLE, 2, first_s=10.0, next_s=30.0, waited_s=0.0)
    step_s, late = interval_s(HOURLY), late_s(HOURLY)
    terms = Quota(lane(rate=HOURLY)).terms(Portion(2, grant=grant, clock_s=(1.0, 3.0)), 2)
    assert terms == [(13.0, 11.0 + late), (13.0 + step_s, 11.0 + step_s + late)]
