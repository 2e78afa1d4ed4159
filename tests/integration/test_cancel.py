"""Items that users take away from a worker: the enricher is told, nothing of its result is saved, and it is counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from curation.v1 import curation_pb2 as pb
from shared.metrics import MetricsServer
from shared.workflow import EnrichmentContext, Item, Values
from tests.support.eventually import DEADLINE_S
from tests.support.service import RunningService, running_service
from tests.support.worker import GADGETS, WIDGETS, Gate, Reply, RunningWorker, World, details, world  # noqa: F401 - a fixture

DEAF = {"poll_s": 0.02, "listen_url": "postgresql://127.0.0.1:1/nowhere"}
TOLD = {"poll_s": 60}


@pytest.fixture
async def service(world: World) -> AsyncIterator[RunningService]:  # noqa: F811
    """A service for the gadgets; one of them runs at once."""
    world.limit(concurrency=1)
    async with running_service(world.url, workflow=GADGETS) as running:
        yield running


async def take_away(service: RunningService, *keys: int, status: str = "New") -> None:
    ids = pb.ItemIds(ids=[str(key) for key in keys])
    request = pb.BatchUpdateStatusRequest(resource="gadgets", ids=ids, status=status, cancel_in_flight=True)
    assert (await service.stub.BatchUpdateStatus(request)).batch.changed_count == len(keys)


async def metric(worker: RunningWorker, name: str) -> float:
    (server,) = [part for part in worker.parts if isinstance(part, MetricsServer)]
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{server.port}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith(f'{name}{{resource="gadgets"}}')]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("settings", [TOLD, DEAF], ids=["told", "polling"])
async def test_an_enricher_is_told_and_its_result_is_dropped_and_counted(
    service: RunningService,
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
) -> None:
    caplog.set_level(logging.INFO, "enrichment_worker")
    began, told = asyncio.Event(), asyncio.Event()

    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        if item.data["name"] == "unwanted":
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.set()
                # One that knows better, and returns a result all the same.
        return {"code": item.data["name"], "label": "late"}

    monkeypatch.setattr("tests.support.worker.enrich", enrich)
    (key,) = await world.queue("unwanted")
    async with world.worker(metrics_listen="127.0.0.1:0", **settings) as worker:
        if settings is TOLD:
            await worker.see(worker.listening)
        await worker.see(began.wait())
        cancelled = worker.probe.expect("cancelled")
        await take_away(service, key)
        await worker.see(told.wait())
        await worker.see(cancelled)
        await world.queue("next")  # its place is free again
        rows = await world.ended(worker)
        assert await metric(worker, "curation_items_cancelled_total") == 1
        assert await metric(worker, "curation_items_held") == 0
    assert [(row["status"], row["lookup_status"]) for row in rows] == [("New", None), ("Wanted", "completed")]
    assert [row["code"] for row in await world.details()] == ["next"]
    assert "gadgets: lost 1 items that were running" in caplog.text


async def test_a_plain_function_is_told_by_a_flag(
    service: RunningService,
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, told, never = threading.Event(), threading.Event(), threading.Event()

    def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        began.set()
        while not context.cancelled:
            never.wait(0.005)
        told.set()
        return {"code": item.data["name"], "label": "late"}

    monkeypatch.setattr("tests.support.worker.enrich", enrich)
    (key,) = await world.queue("unwanted")
    async with world.worker(**TOLD) as worker:
        await worker.see(worker.listening)
        await worker.see(asyncio.to_thread(began.wait, DEADLINE_S))
        cancelled = worker.probe.expect("cancelled")
        await take_away(service, key)
        await worker.see(cancelled)
        assert told.is_set()
    assert await world.details() == []


async def test_what_was_claimed_ahead_and_is_taken_away_never_begins(
    service: RunningService,
    world: World,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "enrichment_worker")
    gate = Gate(world)
    _, second = await world.queue("first", "second")
    async with world.worker(**DEAF) as worker:
        await worker.see(gate.asked.wait())
        (_, claimed) = await world.gadgets()
        assert claimed["lookup_status"] == "processing", "or nothing is claimed ahead"
        looked = worker.probe.expect("lost")
        await take_away(service, second)
        await worker.see(looked)
        cancelled = worker.probe.expect("cancelled")
        gate.open.set()
        assert (await worker.see(cancelled)).key == second
        await world.ended(worker)
    assert world.api.requests == ["first"]
    assert "items that were running" not in caplog.text


async def test_each_workflow_loses_its_own_items(world: World) -> None:  # noqa: F811
    world.others = [WIDGETS]
    gate = Gate(world)
    (key,) = await world.queue("unwanted", resource="widgets")
    async with world.worker(**DEAF) as worker:
        await worker.see(gate.asked.wait())
        cancelled = worker.probe.expect("cancelled")
        async with world.transaction() as connection:
            await connection.execute("UPDATE widgets SET lookup_status = NULL, version = version + 1")
        assert (await worker.see(cancelled)).key == key


async def test_what_is_taken_away_and_queued_again_is_done_once_more(
    service: RunningService,
    world: World,  # noqa: F811
) -> None:
    asked = asyncio.Event()

    async def answer(name: str) -> Reply:
        if len(world.api.requests) == 1:
            asked.set()
            await asyncio.Event().wait()
        return await details(name)

    world.api.answer = answer
    (key,) = await world.queue("again")
    async with world.worker(**TOLD) as worker:
        await worker.see(worker.listening)
        await worker.see(asked.wait())
        await take_away(service, key, status="Wanted")
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 1)
    assert world.api.requests == ["again", "again"]
