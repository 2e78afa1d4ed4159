"""Enrichers that do not end, or let nothing else run: they hold nobody up, and cost a living worker no item."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from shared.errors import EnrichersStuck
from shared.metrics import MetricsServer
from shared.workflow import EnrichmentContext, Item, Values
from tests.support.eventually import eventually_async
from tests.support.worker import Gate, RunningWorker, World

Enrich = Callable[[Item, EnrichmentContext], Any]


class Stubborn:
    """Enrichers that do not end for items called `stuck`, until they are let."""

    def __init__(self) -> None:
        self.let, self.has_one = threading.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def in_a_thread(self, item: Item, context: EnrichmentContext) -> Values | None:
        if item.data["name"].startswith("stuck"):
            self._loop.call_soon_threadsafe(self.has_one.set)
            self.let.wait()
        return values(item)

    async def swallowing(self, item: Item, context: EnrichmentContext) -> Values | None:
        while item.data["name"].startswith("stuck") and not self.let.is_set():
            self.has_one.set()
            try:
                await asyncio.to_thread(self.let.wait)
            except asyncio.CancelledError:
                continue
        return values(item)


def values(item: Item) -> Values:
    return {"code": item.data["name"], "label": "found"}


@pytest.fixture(params=["in_a_thread", "swallowing"])
async def stubborn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stubborn:
    """The enricher of this test; little mercy is shown."""
    stubborn = Stubborn()
    monkeypatch.setattr("tests.support.worker.enrich", getattr(stubborn, request.param))
    monkeypatch.setattr("enrichment_worker.runner.MERCY_S", 0.05)
    return stubborn


async def test_a_stuck_enricher_is_timed_out_and_its_place_given_to_others(world: World, stubborn: Stubborn) -> None:
    world.limit(concurrency=2, timeout_s=0.1, attempts_max=1)
    await world.queue("stuck", *(f"g{n}" for n in range(20)))
    async with world.worker(metrics_listen="127.0.0.1:0") as worker:
        given_up = worker.probe.expect("given up")
        try:
            stuck, *others = await world.ended(worker)
            assert (await worker.see(given_up)).key == stuck["id"]
            assert await are_stuck(worker, 1)
        finally:
            stubborn.let.set()
        await eventually_async(lambda: are_stuck(worker, 0))
    assert stuck["lookup_status"] == "failed"
    assert stuck["lookup_error"] == "gadgets API did not answer in time (gave up after 1 attempts)"
    assert {row["lookup_status"] for row in others} == {"completed"}
    assert "stuck" not in {row["code"] for row in await world.details()}, "what it returned at last came too late"


async def are_stuck(worker: RunningWorker, count: int) -> bool:
    """Whether so many attempts are, by the worker's numbers."""
    (server,) = [part for part in worker.parts if isinstance(part, MetricsServer)]

    def numbers() -> bytes:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
            told: bytes = response.read()
            return told

    return f'curation_attempts_stuck{{resource="gadgets"}} {count}.0'.encode() in await asyncio.to_thread(numbers)


async def test_a_worker_with_too_many_stuck_enrichers_ends_loudly(world: World, stubborn: Stubborn) -> None:
    world.limit(concurrency=2, timeout_s=0.1)
    # Where the last two are given up one after the other, there is a place for a fifth in between.
    await world.queue("stuck 1", "stuck 2", "stuck 3", "stuck 4", "stuck 5", "not begun")
    try:
        async with world.worker() as worker:
            with pytest.raises(EnrichersStuck, match="4 enrichers of gadgets do not end"):
                await worker.died()
    finally:
        stubborn.let.set()
    *_, row = await world.gadgets()
    assert (row["lookup_status"], row["lookup_attempts"]) == ("queued", 0), "it went back"


async def test_a_worker_whose_stuck_enrichers_have_all_slots_ends_loudly(world: World, stubborn: Stubborn) -> None:
    world.limit(concurrency=8, concurrency_total=2, timeout_s=0.1)
    await world.queue("stuck 1", "stuck 2", "waiting")
    try:
        async with world.worker() as worker:
            with pytest.raises(EnrichersStuck, match="2 enrichers of gadgets do not end"):
                await worker.died()
    finally:
        stubborn.let.set()


async def test_a_stuck_enricher_does_not_keep_a_worker_from_stopping(world: World, stubborn: Stubborn) -> None:
    world.limit(concurrency=2)
    await world.queue("stuck")
    try:
        async with world.worker(grace_s=0) as worker:
            await worker.see(stubborn.has_one.wait())
        (row,) = await world.gadgets()
    finally:
        stubborn.let.set()
    assert (row["lookup_status"], row["lookup_attempts"], row["lookup_error"]) == ("queued", 0, None)


async def interrupt(item: Item, context: EnrichmentContext) -> Values:
    """Cancels the task that it runs in."""
    cancel_own_task()
    await asyncio.sleep(0)  # noqa: TID251 - that is raised here
    return values(item)


async def swallow(item: Item, context: EnrichmentContext) -> Values:
    """As time limits did before tasks counted their cancellations: takes what it asked for, and leaves it counted."""
    with suppress(asyncio.CancelledError):
        await interrupt(item, context)
    return values(item)


async def interrupt_later(item: Item, context: EnrichmentContext) -> Values:
    """What it asks for would be raised in what comes after it."""
    cancel_own_task()
    return values(item)


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(
    ("enrich", "status"), [(interrupt, "failed"), (swallow, "completed"), (interrupt_later, "completed")]
)
async def test_an_enricher_that_cancels_its_own_task_ends_neither_its_place_nor_the_worker(
    world: World, monkeypatch: pytest.MonkeyPatch, enrich: Enrich, status: str
) -> None:
    monkeypatch.setattr("tests.support.worker.enrich", enrich)
    world.limit(concurrency=1)
    await world.queue("g1", "g2")
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {status}


async def test_a_cancellation_that_an_enricher_left_behind_ends_no_place_that_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def enrich(item: Item, context: EnrichmentContext) -> Values:
        tasks.extend(filter(None, [asyncio.current_task()]))
        return values(item)

    monkeypatch.setattr("tests.support.worker.enrich", enrich)
    monkeypatch.setattr("enrichment_worker.runner.MERCY_S", 0.05)
    world.limit(concurrency=1)
    async with world.worker() as worker:
        for name in ("g1", "g2"):
            await world.queue(name)
            await world.ended(worker)
            tasks[-1].cancel()
    assert tasks[0] is tasks[1], "it is still the same place"


def blocking(world: World, beats: int) -> Callable[[Item, EnrichmentContext], Coroutine[Any, Any, Values]]:
    """An enricher that blocks the event loop until its worker has beaten so often meanwhile."""

    async def enrich(item: Item, context: EnrichmentContext) -> Values:
        with psycopg.connect(world.url, autocommit=True) as connection:
            seen: set[object] = set()
            while len(seen) < beats:
                row = connection.execute("SELECT beat_at FROM worker_session WHERE ended_at IS NULL").fetchone()
                assert row is not None, "it was taken for dead"
                seen.add(row[0])
        return values(item)

    return enrich


async def test_an_enricher_that_blocks_the_event_loop_does_not_stop_the_beats(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.worker.enrich", blocking(world, beats=4))
    await world.queue("blocking")
    async with world.worker(beat_s=0.05) as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 1)


async def test_a_worker_whose_pulse_dies_ends_loudly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("enrichment_worker.pulse.beat", fail)
    async with world.worker(beat_s=0.05) as worker:
        with pytest.raises(ZeroDivisionError):
            await worker.died()


async def test_a_long_enrichment_on_a_living_worker_is_never_rescued(world: World) -> None:
    gate = Gate(world)
    await world.queue("long")
    async with world.worker(beat_s=0.05, expiry_s=1) as worker:
        await worker.see(gate.asked.wait())
        async with world.worker(beat_s=0.05, expiry_s=1) as other:
            # It looks at least every half of the expiry, and so twice behind it.
            await other.see(other.probe.expect("rescued", times=5))
        gate.open.set()
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"], world.api.requests) == ("completed", 1, ["long"])
