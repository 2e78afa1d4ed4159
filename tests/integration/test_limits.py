"""Limits that hold for all workers together, as the API sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import floor, inf
from typing import Any

import psycopg
import pytest

from enrichment_worker import quota
from enrichment_worker.pacer import Pacer
from shared.db.limits import Ask, interval_s, late_s, lease, reserve, sweep
from shared.db.sessions import close_session, open_session
from shared.workflow import Rate
from tests.support.calls import Calls
from tests.support.worker import WIDGETS, Reply, RunningWorker, World, details, world  # noqa: F401 - a fixture

TEN = 10
SLACK_S = 0.2
"""So long a busy machine may take to begin an attempt whose time has come."""


@pytest.fixture
def calls(world: World) -> Calls:  # noqa: F811
    """What the API sees of gadgets that say when their attempts began."""
    world.workflow = replace(world.workflow, enricher="tests.support.calls:enrich_timed")
    seen = Calls()
    world.api.answer = seen.answer
    return seen


@asynccontextmanager
async def workers(world: World, count: int, **settings: Any) -> AsyncIterator[list[RunningWorker]]:  # noqa: F811
    """So many workers; leaving drains them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(world.worker(**settings)) for _ in range(count)]


async def all_ended(world: World, running: list[RunningWorker]) -> list[dict[str, Any]]:  # noqa: F811
    """Waits until no gadget is queued or processing, whichever worker has it."""
    while True:
        flushed = [worker.probe.expect("flushed") for worker in running]
        rows = await world.gadgets()
        if all(row["lookup_status"] in ("completed", "failed") for row in rows):
            return rows
        await asyncio.wait(flushed, return_when=asyncio.FIRST_COMPLETED)


async def gadgets_when(
    world: World,  # noqa: F811
    worker: RunningWorker,
    holds: Callable[[list[dict[str, Any]]], bool],
) -> list[dict[str, Any]]:
    """Waits until this holds of the gadgets."""
    while not holds(rows := await world.gadgets()):
        await worker.see(worker.probe.expect("looked at the switch"))
    return rows


def assert_within(rate: Rate, calls: Calls) -> None:
    """In no period there are more than the rate says, and what falls into the time by which calls may be late."""
    late = rate.per_s + late_s(rate)
    assert calls.most_begun(rate.per_s) <= 1 + floor((late + SLACK_S) / interval_s(rate))
    assert calls.most_arrived(rate.per_s) <= 1 + floor((late + SLACK_S + calls.delay_s) / interval_s(rate))


def processing(rows: list[dict[str, Any]]) -> bool:
    return any(row["lookup_status"] == "processing" for row in rows)


async def test_ten_workers_on_a_rate_make_no_more_calls_in_any_period_than_one(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    rate = Rate(calls=20)  # few enough for a busy machine to exceed, were it let
    world.limit(rate=rate)
    async with workers(world, TEN) as running:
        await world.queue(*[f"gadget-{n}" for n in range(50)])
        rows = await all_ended(world, running)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert len(calls.times) == len(rows)
    assert_within(rate, calls)


async def test_all_workers_together_run_no_more_at_once_than_the_limit_and_as_many(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    full = asyncio.Barrier(5)

    async def answer(name: str) -> Reply:
        await full.wait()  # or four at once would never be answered
        return await details(name)

    calls.then = answer
    world.limit(concurrency_total=5)
    async with workers(world, 3) as running:
        await world.queue(*[f"gadget-{n}" for n in range(50)])
        rows = await all_ended(world, running)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert calls.most_at_once == 5


async def session_with_slots(
    world: World,  # noqa: F811
    key: str,
    *,
    wanted: int,
    used: int = 0,
) -> tuple[int, int]:
    """A worker's session that asked for slots of a key that has two; and how many it got."""
    async with world.transaction() as connection:
        session = await open_session(connection, host="h", version="0", resources=["gadgets"], expiry_s=3600)
        await reserve(connection, world.workflow.api, [Ask(key, wanted, 0.0)], horizon_s=1.0)
        leased = await lease(connection, world.workflow.api, session, {key: (wanted, used)}, slots_max=2)
    return session, leased[key]


async def test_slots_in_use_stay_whoever_was_given_them_meanwhile(world: World) -> None:  # noqa: F811
    leased = [await session_with_slots(world, "", wanted=w, used=used) for w, used in ((2, 0), (2, 1), (1, 0))]
    assert [slots for _, slots in leased] == [2, 1, 0]


async def test_leases_of_nothing_and_of_the_dead_are_swept_and_schedules_long_due(world: World) -> None:  # noqa: F811
    dead, _, living = [(await session_with_slots(world, "", wanted=wanted))[0] for wanted in (1, 0, 1)]
    async with world.transaction() as connection:
        await close_session(connection, dead)
        await connection.execute("INSERT INTO call_schedule VALUES ('old', '', now() - interval '1 hour')")
        await sweep(connection)
        cursor = await connection.execute("SELECT session FROM call_lease UNION ALL SELECT 0 FROM call_schedule")
        assert await cursor.fetchall() == [(living,), (0,)]


@pytest.mark.parametrize(
    ("limit", "key", "asked"), [("concurrency_total", "", "claimed"), ("key_concurrency", "host", "asked for keys")]
)
async def test_slots_of_a_worker_that_died_come_back_when_its_session_expires(
    world: World,  # noqa: F811
    keyed: Calls,
    limit: str,
    key: str,
    asked: str,
) -> None:
    world.limit(**{limit: 2})
    dead, slots = await session_with_slots(world, key, wanted=9)
    assert slots == 2
    await world.queue("host-1", "host-2", "host-3")
    async with world.worker(expiry_s=3600) as worker:  # so nobody ends the session
        await worker.see(worker.probe.expect(asked, times=3))
        assert keyed.times == []
        async with world.transaction() as connection:
            await connection.execute("UPDATE worker_session SET expiry_s = 0 WHERE id = %s", [dead])
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert keyed.most_at_once <= 2


async def test_nothing_is_claimed_that_could_not_begin_soon(world: World, calls: Calls) -> None:  # noqa: F811
    world.limit(rate=Rate(calls=1, per_s=600))
    await world.queue("now", "later", "last")
    async with world.worker() as worker:
        rows = await gadgets_when(world, worker, lambda rows: rows[0]["lookup_status"] == "completed")
        await worker.see(worker.probe.expect("looked at the switch", times=5))
        assert (await world.gadgets())[1:] == rows[1:]
    assert [(row["lookup_status"], row["version"]) for row in rows[1:]] == [("queued", 1)] * 2


async def test_items_that_wait_for_their_time_are_given_back_by_a_worker_that_stops(
    world: World,  # noqa: F811
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(quota, "HORIZON_S", 3600.0)
    world.limit(rate=Rate(calls=1, per_s=600))
    await world.queue("now", "later", "last")
    async with world.worker() as worker:
        await worker.see(worker.probe.expect("flushed"))
        assert [row["lookup_status"] for row in await world.gadgets()] == ["completed", "processing", "processing"]
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in await world.gadgets()] == [
        ("completed", 1),
        ("queued", 0),
        ("queued", 0),
    ]
    assert [name for name, _, _ in calls.times] == ["now"]
    assert "did not stop" not in caplog.text, "the next time is an hour away"


async def test_an_item_whose_time_has_passed_is_given_back_without_losing_an_attempt(
    world: World,  # noqa: F811
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quota, "late_s", lambda rate: -60.0)  # each time is over before it comes
    world.limit(rate=Rate(calls=1000), attempts_max=1)
    await world.queue("late")
    async with world.worker() as worker:
        await worker.see(worker.probe.expect("flushed", times=2))
        (pacer,) = [part for part in worker.parts if isinstance(part, Pacer)]
        assert pacer.lapsed >= 2
    (row,) = await world.gadgets()
    assert (row["lookup_status"], row["lookup_attempts"], row["lookup_error"]) == ("queued", 0, None)
    assert calls.times == []


async def test_what_was_reserved_for_more_items_than_there_are_is_free_again(
    world: World,  # noqa: F811
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quota, "late_s", lambda rate: inf)  # a machine may be slow: another time would be reserved
    world.limit(rate=Rate(calls=1, per_s=0.4), concurrency_total=8)
    await world.queue("one")
    async with world.worker() as worker:
        await world.ended(worker)
        await worker.see(worker.probe.expect("claimed", times=2))
        async with world.transaction() as connection:
            cursor = await connection.execute("SELECT sum(slots) FROM call_lease")
            assert await cursor.fetchone() == (0,)
            # The one call that was made is all that the schedule knows of.
            cursor = await connection.execute(
                "SELECT next_at < greatest(clock_timestamp(), min(at) + interval '0.41 s')"
                " FROM call_schedule, status_event WHERE kind = 'claim' GROUP BY next_at"
            )
            assert await cursor.fetchone() == (True,)
    assert len(calls.times) == 1


@pytest.fixture
def keyed(world: World, calls: Calls) -> Calls:  # noqa: F811
    """What the API sees of gadgets that use a key each: what comes before the dash in their names."""
    world.workflow = replace(world.workflow, enricher="tests.support.calls:enrich_by_key")
    return calls


async def test_a_key_is_used_as_often_as_allowed_by_all_workers_and_others_do_not_wait_for_it(
    world: World,  # noqa: F811
    keyed: Calls,
) -> None:
    rate = Rate(calls=10)
    world.limit(key_rate=rate, concurrency=4)
    async with workers(world, 3) as running:
        await world.queue(*[f"busy-{n}" for n in range(15)], *[f"other{n}-x" for n in range(20)])
        rows = await all_ended(world, running)
    assert {(row["lookup_status"], row["lookup_attempts"]) for row in rows} == {("completed", 1)}
    busy = replace(keyed, times=[call for call in keyed.times if call[0].startswith("busy")])
    assert len(busy.times) == 15
    assert_within(rate, busy)
    before_last = [name for name, _, _ in keyed.times[: keyed.times.index(busy.times[-1])]]
    assert {f"other{n}-x" for n in range(20)} <= set(before_last)


async def test_of_one_key_no_more_are_used_at_once_than_allowed_by_all_workers(
    world: World,  # noqa: F811
    keyed: Calls,
) -> None:
    pair = asyncio.Barrier(2)

    async def answer(name: str) -> Reply:
        await pair.wait()
        return await details(name)

    keyed.then = answer
    world.limit(key_concurrency=2)
    async with workers(world, 3) as running:
        await world.queue(*[f"host-{n}" for n in range(12)])
        rows = await all_ended(world, running)
    assert {(row["lookup_status"], row["lookup_attempts"]) for row in rows} == {("completed", 1)}
    assert keyed.most_at_once == 2


async def test_a_slot_of_a_key_that_may_not_be_called_yet_is_given_back(world: World, keyed: Calls) -> None:  # noqa: F811
    world.limit(key_rate=Rate(calls=1, per_s=1000), key_concurrency=1)
    async with world.worker() as worker:
        for name in ("host-1", "host-2"):
            flushed = worker.probe.expect("flushed")
            await world.queue(name)
            await worker.see(flushed)
            await nobody_has_a_slot(world, worker)
    assert [row["lookup_status"] for row in await world.gadgets()] == ["completed", "queued"]


async def test_a_slot_is_given_back_once_the_database_is_there_again(
    world: World,  # noqa: F811
    keyed: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = asyncio.Event()

    async def lose(*told: Any) -> None:
        monkeypatch.undo()
        lost.set()
        raise psycopg.OperationalError("the connection is lost")

    world.limit(key_concurrency=1)
    async with world.worker() as worker:
        monkeypatch.setattr("enrichment_worker.keys.keep", lose)
        await world.queue("host-1")
        await worker.see(lost.wait())
        await nobody_has_a_slot(world, worker)


async def nobody_has_a_slot(world: World, worker: RunningWorker) -> None:  # noqa: F811
    """Waits until it is so."""
    while True:
        asked = worker.probe.expect("asked for keys")
        if not any(row["slots"] for row in await world.rows("call_lease", "key")):
            return
        await worker.see(asked)


@pytest.mark.parametrize("theirs", [1, 3, None])
async def test_workflows_that_share_an_api_share_its_keys_and_the_strictest_limit_holds(
    world: World,  # noqa: F811
    keyed: Calls,
    theirs: int | None,
) -> None:
    one, two, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(name: str) -> Reply:
        (two if one.is_set() else one).set()
        await let_go.wait()
        return await details(name)

    keyed.then = answer
    world.limit(key_concurrency=1)
    limits = replace(world.workflow.limits, key_concurrency=theirs)
    world.others = [replace(WIDGETS, enricher=world.workflow.enricher, limits=limits)]
    await world.queue("host-1")
    async with world.worker() as worker:
        await worker.see(one.wait())
        # Of those that wait for the key only the widget asks again.
        asked = worker.probe.expect("asked for keys", times=3)
        await world.queue("host-2", resource="widgets")
        both = asyncio.ensure_future(two.wait())
        await worker.see(asyncio.wait([asyncio.ensure_future(asked), both], return_when=asyncio.FIRST_COMPLETED))
        both.cancel()
        let_go.set()
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed"] * 2
    assert keyed.most_at_once == 1


async def test_who_would_wait_too_long_for_a_key_comes_back_later_and_loses_no_attempt(
    world: World,  # noqa: F811
    keyed: Calls,
) -> None:
    world.limit(key_rate=Rate(calls=1, per_s=600))
    await world.queue("host-1", "host-2", "host-3", "free-1")
    async with world.worker() as worker:
        rows = await gadgets_when(
            world,
            worker,
            lambda rows: sum(row["lookup_run_at"] is not None for row in rows) == 2 and not processing(rows),
        )
    waiting = [row for row in rows if row["lookup_status"] == "queued"]
    assert [row["lookup_attempts"] for row in waiting] == [0, 0]
    assert {row["lookup_error"] for row in waiting} == {"gadgets API is called as often as it may be"}
    assert len({row["lookup_run_at"] for row in waiting}) == 2
    assert sorted(name.partition("-")[0] for name, _, _ in keyed.times) == ["free", "host"]


async def test_a_retry_after_of_a_key_holds_that_key_for_all_workers_and_no_other(
    world: World,  # noqa: F811
    keyed: Calls,
) -> None:
    async def answer(name: str) -> Reply:
        if name == "host-1":
            return Reply(status=429, headers={"Retry-After": "3600"})
        return await details(name)

    keyed.then = answer
    world.limit(key_concurrency=1)
    await world.queue("host-1")
    async with workers(world, 2) as running:
        soon = datetime.now(UTC) + timedelta(minutes=1)
        while max((row["next_at"] for row in await world.rows("call_schedule", "key")), default=soon) <= soon:
            await running[0].see(running[0].probe.expect("looked at the switch"))
        await world.queue(*[f"host-{n}" for n in range(2, 6)], *[f"other-{n}" for n in range(2)])
        rows = await gadgets_when(
            world,
            running[0],
            lambda rows: sum(row["lookup_error"] is not None for row in rows) == 5 and not processing(rows),
        )
    assert [row["lookup_attempts"] for row in rows] == [1, 0, 0, 0, 0, 1, 1]
    assert [row["lookup_status"] for row in rows] == ["queued"] * 5 + ["completed"] * 2
    assert await world.rows("api_state", "api") == []


async def test_a_plain_function_uses_a_key_too(world: World, calls: Calls) -> None:  # noqa: F811
    world.workflow = replace(world.workflow, enricher="tests.support.calls:enrich_plainly_by_key")
    world.limit(key_concurrency=1)
    await world.queue(*[f"host-{n}" for n in range(5)])
    async with world.worker() as worker:
        rows = await world.ended(worker)
        await nobody_has_a_slot(world, worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
