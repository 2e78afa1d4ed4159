"""Workers as processes that are told to stop, frozen, killed and blocked: nothing is lost, doubled or done for ever."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tests.support.eventually import DEADLINE_S, eventually, eventually_async
from tests.support.worker import Reply, World, details
from tests.support.worker_site import WorkerSite

pytestmark = pytest.mark.untraced

LOST = "the worker that had it stopped answering"


class Gate:
    """An API that answers once it is let."""

    def __init__(self, world: World) -> None:
        self.open = asyncio.Event()
        self._world = world
        world.api.answer = self._answer

    async def asked(self, count: int) -> None:
        await eventually(lambda: len(self._world.api.requests) == count)

    async def _answer(self, name: str) -> Reply:
        await self.open.wait()
        return await details(name)


def told(rows: list[dict[str, Any]]) -> list[tuple[str | None, int, str | None]]:
    return [(row["lookup_status"], row["lookup_attempts"], row["lookup_error"]) for row in rows]


async def test_sigterm_lets_what_runs_end_and_gives_back_the_rest(world: World, workers: WorkerSite) -> None:
    gate = Gate(world)
    await world.queue(*(f"g{n}" for n in range(12)))
    worker = await workers.start(CURATION_GRACE_S="25")
    await gate.asked(4)
    assert [row["lookup_status"] for row in await world.gadgets()].count("processing") > 4, "or none is claimed ahead"
    worker.send(signal.SIGTERM)
    await workers.until(processing=4, queued=8)
    gate.open.set()
    assert await worker.ended() == 0
    assert told(await world.gadgets()) == [("completed", 1, None)] * 4 + [("queued", 0, None)] * 8
    assert len(world.api.requests) == 4
    (session,) = await world.rows("worker_session", "id")
    assert (session["ended_at"] is not None, session["done"], session["in_flight"]) == (True, 4, 0)


async def test_a_second_sigterm_ends_at_once_and_what_ran_is_rescued(world: World, workers: WorkerSite) -> None:
    gate = Gate(world)
    await world.queue(*(f"g{n}" for n in range(12)))
    worker = await workers.start(CURATION_GRACE_S="25")
    await gate.asked(4)
    worker.send(signal.SIGTERM)
    await workers.until(processing=4, queued=8)
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 1
    assert "INTERRUPTED" in worker.log
    assert "Traceback" not in worker.log
    assert [row["lookup_status"] for row in await world.gadgets()].count("processing") == 4, "nothing was waited for"
    gate.open.set()
    await workers.start()
    rows = await workers.until(completed=12)
    assert sorted(row["lookup_attempts"] for row in rows) == [1] * 8 + [2] * 4


async def test_as_many_attempts_as_may_run_at_once_may_each_use_a_thread(world: World, workers: WorkerSite) -> None:
    await world.queue(*(f"meets {n}" for n in range(40)))
    await workers.start(GADGETS_CONCURRENCY="40")
    rows = await workers.until(completed=40)
    assert {row["lookup_attempts"] for row in rows} == {1}


async def test_threads_that_enrichers_leave_behind_keep_no_worker_from_stopping(
    world: World, workers: WorkerSite
) -> None:
    await world.queue(*(f"lingers {n}" for n in range(40)))
    limits = {"GADGETS_CONCURRENCY": "40", "GADGETS_TIMEOUT_S": "0.1", "GADGETS_ATTEMPTS_MAX": "1"}
    worker = await workers.start(**limits)
    await workers.until(failed=40)
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    (session,) = await world.rows("worker_session", "id")
    assert session["ended_at"] is not None


async def test_a_frozen_worker_that_comes_back_late_changes_nothing_and_goes_on(
    world: World, workers: WorkerSite
) -> None:
    answers = iter(("late", "in time", "after"))
    first, gate = asyncio.Event(), asyncio.Event()

    async def answer(name: str) -> Reply:
        label = next(answers)
        if label == "late":
            first.set()
            await gate.wait()
        return Reply({"code": name, "label": label})

    world.api.answer = answer
    await world.queue("one")
    frozen = await workers.start(CURATION_EXPIRY_S="1")
    await asyncio.wait_for(first.wait(), DEADLINE_S)
    frozen.send(signal.SIGSTOP)
    gate.set()  # its answer is there, and it is not
    other = await workers.start(CURATION_EXPIRY_S="1")
    before = await workers.until(completed=1)
    await other.stop()
    frozen.send(signal.SIGCONT)

    async def counted() -> bool:
        names = ("curation_items_dropped_total", "curation_items_cancelled_total")
        return sum([await frozen.metric(name) for name in names]) == 1

    await eventually_async(counted)
    assert await world.gadgets() == before
    assert [row["label"] for row in await world.details()] == ["in time"]
    await world.queue("two")
    await workers.until(completed=2)
    assert [row["label"] for row in await world.details()] == ["in time", "after"]


async def test_an_item_that_kills_its_workers_ends_as_failed_and_takes_no_other_along(
    world: World, workers: WorkerSite
) -> None:
    names = [f"g{n}" for n in range(6)]
    await world.queue(*names[:3], "kills its worker", *names[3:])
    # What died together comes back apart, so that hardly any dies with it again, and none each time.
    apart = {"GADGETS_BACKOFF_S": "1", "GADGETS_ATTEMPTS_MAX": "4", "CURATION_POLL_S": "0.02"}
    deaths = 0
    while "failed" not in {row["lookup_status"] for row in await world.gadgets()}:
        worker = await workers.start(CURATION_EXPIRY_S="1", **apart)
        ending = asyncio.create_task(worker.ended())

        async def failed_or_dead(ending: asyncio.Task[int] = ending) -> bool:
            return ending.done() or "failed" in {row["lookup_status"] for row in await world.gadgets()}

        await eventually_async(failed_or_dead)
        deaths += ending.done()
    rows = await workers.until(completed=6, failed=1)
    (killer,) = [row for row in rows if row["lookup_status"] == "failed"]
    assert (killer["name"], killer["lookup_attempts"], killer["lookup_error"]) == ("kills its worker", 4, LOST)
    assert deaths == 4


async def test_an_enricher_that_blocks_the_event_loop_past_the_expiry_is_not_rescued(
    world: World, workers: WorkerSite
) -> None:
    await world.queue("blocks 4")
    blocked = await workers.start(CURATION_EXPIRY_S="2")
    await workers.until(processing=1)
    await workers.start(CURATION_EXPIRY_S="2")
    (row,) = await workers.until(completed=1)
    assert (row["lookup_attempts"], len(world.api.requests)) == (1, 1)
    assert "taken for dead" not in blocked.log


async def test_a_worker_that_is_blocked_for_good_ends_by_itself_and_says_where(
    world: World, workers: WorkerSite
) -> None:
    await world.queue("blocks 3600")
    blocked = await workers.start(CURATION_EXPIRY_S="1", GADGETS_TIMEOUT_S="0.5")
    assert await blocked.ended() == 70
    assert "the event loop has been blocked" in blocked.log
    assert "in misbehave" in blocked.log
    (row,) = await world.gadgets()
    assert (row["lookup_status"], row["lookup_attempts"]) == ("processing", 1)
    (session,) = await world.rows("worker_session", "id")
    assert session["ended_at"] is not None, "its item may be rescued at once"
