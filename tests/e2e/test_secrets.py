"""A key is told nowhere: a worker whose enricher puts it wherever it can, and everything that is told of it."""

from __future__ import annotations

import json

import pytest

from tests.support.eventually import eventually_async
from tests.support.worker import Reply, World
from tests.support.worker_site import WorkerSite

pytestmark = pytest.mark.untraced

KEY = "sk-5ecr3t/a+b=c"
TRACE = "5ecr3t"
"""In every form of the key."""
WAYS = ("by-url", "by-header", "by-address", "in-a-message", "for-good", "for-now", "in-a-value")
TOLD = (
    "gadgets",
    "gadget_details",
    "status_event",
    "failure_group",
    "api_state",
    "worker_session",
    "status_batch",
    "batch_outcome",
)


async def test_a_key_is_in_no_error_event_log_or_number(world: World, workers: WorkerSite) -> None:
    async def has_progress() -> bool:
        return any(event["kind"] == "progress" for event in await world.rows("status_event", "position"))

    async def answer(name: str) -> Reply:
        await eventually_async(has_progress)
        return Reply({"key": KEY}, {"refused": 403, "down": 503}[name])

    world.api.answer = answer
    await world.queue(*(f"tells {way}" for way in WAYS))
    worker = await workers.start(GADGETS_API_KEY=KEY, CURATION_LOG_LEVEL="DEBUG", CURATION_PROGRESS_S="0.01")
    rows = await workers.until(failed=len(WAYS))
    numbers = await worker.metrics()
    await worker.stop()
    errors = {row["name"].removeprefix("tells "): row["lookup_error"] for row in rows}
    assert "the API does not know ***" in errors["for-good"]
    assert "the API is busy, says ***" in errors["for-now"]
    assert "ValueError: *** was not accepted" in errors["in-a-message"]
    assert '"***"' in errors["in-a-value"]
    log = worker.log
    assert "asking with ***" in log, "the log has what the enricher logs"
    tables = {name: json.dumps(await world.rows(name, "ctid"), default=str) for name in TOLD}
    assert "asking with ***" in tables["status_event"], "the events have its steps"
    leaks = [name for name, text in {**tables, "the log": log, "the numbers": numbers}.items() if TRACE in text]
    assert leaks == []
