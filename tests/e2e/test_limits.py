"""Worker processes that die with a share of a limit: it comes back, and meanwhile nobody has more than there is."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.support.eventually import eventually
from tests.support.worker import Reply, World, details
from tests.support.worker_site import WorkerSite

pytestmark = pytest.mark.untraced


async def test_slots_of_a_killed_worker_come_back(world: World, workers: WorkerSite) -> None:
    gate = asyncio.Event()

    async def answer(name: str) -> Reply:
        await gate.wait()
        return await details(name)

    world.api.answer = answer
    await world.queue("a", "b", "c", "d")
    limits = {"GADGETS_CONCURRENCY_TOTAL": "2", "CURATION_EXPIRY_S": "2"}
    killed = await workers.start(**limits)
    await eventually(lambda: len(world.api.requests) == 2)
    other = await workers.start(**limits)
    assert await other.metric("curation_items_held") == 0
    killed.send(signal.SIGKILL)
    await killed.child.ended()
    gate.set()
    rows = await workers.until(completed=4)
    assert sorted(row["lookup_attempts"] for row in rows) == [1, 1, 2, 2]
    assert len(world.api.requests) == 6
