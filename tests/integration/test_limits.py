"""Limits that hold for all workers together, as the API sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from math import floor
from typing import Any

import pytest

from enrichment_worker import quota
from enrichment_worker.quota import LATE_S
from shared.db.limits import Ask, interval_s, lease, reserve
from shared.db.sessions import open_session
from shared.workflow import Rate
from tests.support.calls import Calls
from tests.support.worker import Reply, RunningWorker, World, details, world  # noqa: F401 - a fixture

TEN = 10


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


async def test_ten_workers_on_a_rate_make_no_more_calls_in_any_period_than_one(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    rate = Rate(calls=50)
    world.limit(rate=rate)
    await world.queue(*[f"gadget-{n}" for n in range(120)])
    async with workers(world, TEN) as running:
        rows = await all_ended(world, running)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert len(calls.times) == len(rows)
    # An attempt begins within LATE_S of its time, and its call arrives within the longest delay that was seen.
    reach_s = rate.per_s + LATE_S + calls.delay_s
    assert calls.most_within(rate.per_s) <= 1 + floor(reach_s / interval_s(rate))


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
    await world.queue(*[f"gadget-{n}" for n in range(50)])
    async with workers(world, 3) as running:
        rows = await all_ended(world, running)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert calls.most_at_once == 5


async def test_slots_of_a_worker_that_died_come_back_when_its_session_expires(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    world.limit(concurrency_total=2)
    async with world.transaction() as connection:
        dead = await open_session(connection, host="gone", version="0", resources=["gadgets"], expiry_s=3600)
        await reserve(connection, world.workflow.api, [Ask("", 2, 0.0)], horizon_s=1.0)
        assert await lease(connection, world.workflow.api, dead, {"": (9, 0)}, slots_max=2) == {"": 2}
    await world.queue("one", "two", "three")
    async with world.worker() as worker:
        await worker.see(worker.probe.expect("claimed", times=3))
        assert calls.times == []
        async with world.transaction() as connection:
            await connection.execute(
                "UPDATE worker_session SET beat_at = beat_at - interval '2 hours' WHERE id = %s", [dead]
            )
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert calls.most_at_once <= 2


async def test_items_that_wait_for_their_time_are_given_back_by_a_worker_that_stops(
    world: World,  # noqa: F811
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
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


async def test_what_was_reserved_for_more_items_than_there_are_is_free_again(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
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
                "SELECT next_at - min(at) < interval '0.41 s' FROM call_schedule, status_event"
                " WHERE kind = 'claim' GROUP BY next_at"
            )
            assert await cursor.fetchone() == (True,)
    assert len(calls.times) == 1
