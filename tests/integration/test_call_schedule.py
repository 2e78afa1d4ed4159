"""The schedule of calls, and the leases of slots: each API and each key has its own, and none is given to two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from shared.db.engine import Connection, Database
from shared.db.limits import LATE_S, Ask, Grant, give_back, interval_s, keep, late_s, lease, postpone, reserve, sweep
from shared.db.sessions import close_session, open_session
from shared.workflow import Rate
from tests.support.service import somebody_waits_for_a_lock

HOUR_S = 3600.0
"""Between two calls: nothing that a test does takes so long."""
pytestmark = pytest.mark.postgres_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database, in it schedules and a lease of another API and another key, which nobody may touch."""
    async with Database(database_url) as database:
        async with database.transaction() as connection:
            for api, key in (("other", "one"), ("API", "other")):
                await reserve(connection, api, [Ask(key, 1, HOUR_S)], horizon_s=HOUR_S)
        yield database


async def reserved(connection: Connection, **calls: int) -> Mapping[str, Grant]:
    """What is had within ten hours."""
    asks = [Ask(key, count, HOUR_S) for key, count in calls.items()]
    return await reserve(connection, "API", asks, horizon_s=10 * HOUR_S)


def hours(grant: Grant) -> tuple[int, int, int]:
    """Calls, and when the first of them and the next one may begin."""
    return grant.calls, round(grant.first_s / HOUR_S), round(grant.next_s / HOUR_S)


async def schedules(connection: Connection) -> Mapping[tuple[str, str], int]:
    """In how many hours the next call may begin."""
    cursor = await connection.execute(
        "SELECT api, key, round(extract(epoch FROM next_at - clock_timestamp()) / 3600)::int FROM call_schedule"
    )
    return {(api, key): next_hours for api, key, next_hours in await cursor.fetchall()}


async def test_calls_follow_one_another_within_the_horizon_and_what_is_given_back_is_free(database: Database) -> None:
    async with database.transaction() as connection:
        grants = [(await reserved(connection, one=count))["one"] for count in (5, 99, 99)]
        assert [hours(grant) for grant in grants] == [(5, 0, 5), (6, 5, 11), (0, 11, 11)]
        assert all(grant.waited_s > 0 for grant in grants)
        await give_back(connection, "API", "one", 3 * HOUR_S)
        assert await schedules(connection) == {("API", "one"): 8, ("API", "other"): 1, ("other", "one"): 1}


async def test_what_nobody_used_in_time_is_gone(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO call_schedule VALUES ('API', 'one', now() - interval '9 hours')")
        grants = await reserved(connection, one=99)
        assert (grants["one"].first_s, hours(grants["one"])) == (0.0, (11, 0, 11)), "no more than at any other time"
        assert (await schedules(connection))["API", "one"] == 11


@pytest.mark.parametrize("interval_s", [0.0, HOUR_S])
async def test_a_key_that_may_not_be_called_soon_gives_no_call_and_stays_so(
    database: Database, interval_s: float
) -> None:
    async with database.transaction() as connection:
        await postpone(connection, "API", "one", 20 * HOUR_S)
        for _ in range(2):
            grants = await reserve(connection, "API", [Ask("one", 3, interval_s)], horizon_s=10 * HOUR_S)
            assert hours(grants["one"]) == (0, 20, 20)


async def test_a_key_that_is_new_costs_others_that_are_asked_for_with_it_nothing(database: Database) -> None:
    async with database.transaction() as connection:
        grants = await reserved(connection, new=1, other=2)
        assert {key: hours(grant) for key, grant in grants.items()} == {"new": (1, 0, 1), "other": (2, 1, 3)}
        assert await schedules(connection) == {("API", "new"): 1, ("API", "other"): 3, ("other", "one"): 1}


@pytest.mark.parametrize("key", ["new", "other"])
async def test_of_two_who_ask_at_once_the_second_gets_what_comes_after(database: Database, key: str) -> None:
    async def ask() -> Grant:
        async with database.transaction() as connection:
            return (await reserved(connection, **{key: 2}))[key]

    async with database.transaction() as connection:
        first = (await reserved(connection, **{key: 2}))[key]
        asking = asyncio.create_task(ask())
        await somebody_waits_for_a_lock(database)
    assert round((await asking).first_s / HOUR_S) == round(first.next_s / HOUR_S)


async def test_slots_are_leased_and_given_back_by_api_key_and_session(database: Database) -> None:
    async def slots() -> Mapping[tuple[str, str, int], int]:
        cursor = await connection.execute("SELECT api, key, session, slots FROM call_lease")
        return {(api, key, session): count for api, key, session, count in await cursor.fetchall()}

    async with database.transaction() as connection:
        mine, theirs = [
            await open_session(connection, host="h", version="0", resources=[], expiry_s=HOUR_S) for _ in range(2)
        ]
        for api, session, key, wanted in (
            ("other", theirs, "one", 4),
            ("other", mine, "one", 5),
            ("API", theirs, "one", 2),
            ("API", theirs, "two", 4),
            ("API", mine, "one", 9),
            ("API", mine, "two", 2),
        ):
            await lease(connection, api, session, {key: (wanted, 0)}, slots_max=9)
        # What it has itself leaves it as much as before.
        assert await lease(connection, "API", mine, {"one": (9, 0), "two": (3, 0)}, slots_max=9) == {"one": 7, "two": 3}
        await keep(connection, "API", mine, {"one": 1})
        kept = {("API", "one", theirs): 2, ("API", "two", theirs): 4}
        kept |= {("other", "one", theirs): 4, ("other", "one", mine): 5}
        assert await slots() == kept | {("API", "one", mine): 1, ("API", "two", mine): 3}
        await keep(connection, "API", mine, {"one": 0})
        await sweep(connection)
        assert await slots() == kept | {("API", "two", mine): 3}


async def test_slots_of_a_session_that_has_ended_are_free_at_once(database: Database) -> None:
    async with database.transaction() as connection:
        mine, theirs = [
            await open_session(connection, host="h", version="0", resources=[], expiry_s=HOUR_S) for _ in range(2)
        ]
        asked = {"one": (9, 0)}
        assert await lease(connection, "API", theirs, asked, slots_max=9) == {"one": 9}
        assert await lease(connection, "API", mine, asked, slots_max=9) == {"one": 0}
        await close_session(connection, theirs)
        assert await lease(connection, "API", mine, asked, slots_max=9) == {"one": 9}


async def test_a_schedule_is_swept_a_minute_after_its_next_call_was_due_and_no_other(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO call_schedule VALUES ('API', 'one', now() - interval '1 hour'), ('API', 'soon', now())"
        )
        await sweep(connection)
        assert set(await schedules(connection)) == {("API", "soon"), ("API", "other"), ("other", "one")}


async def test_a_sweep_waits_for_nobody_who_reserves(database: Database) -> None:
    async with database.transaction() as connection:
        mine = await open_session(connection, host="h", version="0", resources=[], expiry_s=HOUR_S)
        await connection.execute("INSERT INTO call_schedule VALUES ('API', 'one', now() - interval '1 hour')")
        await connection.execute(
            "INSERT INTO call_lease (api, key, session, slots) VALUES ('API', 'one', %s, 0)", [mine]
        )
    async with database.transaction() as connection, database.transaction() as sweeping:
        await reserved(connection, one=1)
        await lease(connection, "API", mine, {"one": (1, 0)}, slots_max=1)
        await sweeping.execute("SET LOCAL lock_timeout = 1")
        await sweep(sweeping)


@pytest.mark.parametrize("rate", [Rate(calls=1, per_s=10), Rate(calls=600, per_s=60)])
def test_who_begins_as_late_as_he_may_is_not_one_too_many_in_a_period(rate: Rate) -> None:
    assert rate.calls * interval_s(rate) - late_s(rate) == pytest.approx(rate.per_s)


def test_in_a_short_period_too_a_worker_may_be_a_little_late() -> None:
    assert late_s(Rate(calls=100)) == LATE_S
