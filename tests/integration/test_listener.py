"""A worker's listener by itself: each is told of what concerns it, and of what was said while it was deaf."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import psycopg
import pytest

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Lane
from enrichment_worker.listener import Listener
from shared.db.curate import TAKEN_CHANNEL
from shared.db.workflow_states import STATE_CHANNEL
from shared.db.writer import CHANNEL
from shared.probe import Probe
from shared.table import transition_table
from shared.waits import backoff
from tests.support.eventually import DEADLINE_S
from tests.support.proxy import proxied
from tests.support.worker import GADGETS, WIDGETS, World

CONCERNS = [
    (CHANNEL, "gadgets", "gadgets"),
    (CHANNEL, "widgets", "widgets"),
    *((STATE_CHANNEL, resource, "state") for resource in ("gadgets", "widgets")),
    *((TAKEN_CHANNEL, resource, "taken") for resource in ("gadgets", "widgets")),
]
"""Who is rung for what is said where."""


@asynccontextmanager
async def listening(url: str, on_state: Callable[[], None] = lambda: None) -> AsyncIterator[Mapping[str, Bell]]:
    """A listener that hears, and the bells that it rings."""
    lanes = [Lane(workflow, transition_table(workflow), ahead_max=8) for workflow in (GADGETS, WIDGETS)]
    state, taken, probe = Bell(), Bell(), Probe()

    def ring_state() -> None:
        on_state()
        state.ring()

    hears = probe.expect("listening")
    async with (
        asyncio.timeout(DEADLINE_S),
        Listener(lanes=lanes, on_state=ring_state, on_taken=taken.ring, url=url, random=lambda: 1.0, probe=probe),
    ):
        await hears
        yield {**{lane.workflow.resource: lane.work for lane in lanes}, "state": state, "taken": taken}


async def rung(bells: Mapping[str, Bell]) -> list[str]:
    """Which were, since they were looked at last."""
    return [name for name, bell in bells.items() if await bell.wait(0)]


async def test_each_is_told_of_what_concerns_it_and_of_nothing_else(world: World) -> None:
    async with listening(world.url) as bells, world.transaction() as other:
        await rung(bells)
        for channel, resource, name in CONCERNS:
            for payload in ("parcels", resource):  # of the first one another worker is told
                await other.execute("SELECT pg_notify(%s, %s)", [channel, payload])
                await other.commit()
            assert await bells[name].wait(DEADLINE_S)
            assert await rung(bells) == []


async def test_all_are_told_once_it_hears_and_once_it_hears_again(world: World) -> None:
    async with listening(world.url) as bells, world.transaction() as other:
        assert await rung(bells) == [*bells]
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%listening'"
        )
        for bell in bells.values():
            assert await bell.wait(DEADLINE_S)


async def test_what_is_said_once_all_are_told_is_heard(world: World) -> None:
    def say() -> None:
        with psycopg.connect(world.url, autocommit=True) as other:
            other.execute("SELECT pg_notify(%s, 'gadgets')", [TAKEN_CHANNEL])

    async with listening(world.url, on_state=say) as bells:
        for _ in range(2):
            assert await bells["taken"].wait(DEADLINE_S)


async def test_it_waits_longer_each_time_that_it_does_not_get_to_hear(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits_s: asyncio.Queue[float] = asyncio.Queue()
    go = asyncio.Semaphore(0)

    async def pause(_: Listener, seconds: float) -> None:
        waits_s.put_nowait(seconds)
        await go.acquire()

    monkeypatch.setattr(Listener, "pause", pause)
    async with proxied(world.url) as (proxy, url), listening(url) as bells:
        for _ in range(2):
            await rung(bells)
            proxy.refuse()
            for failures in range(3):
                assert await waits_s.get() == backoff(failures, lambda: 1.0)
                if failures == 2:
                    await proxy.accept()
                go.release()
            assert await bells["gadgets"].wait(DEADLINE_S)
    assert re.search("deaf for now, polling goes on: OperationalError: .*Connection refused", caplog.text)
