"""A claimer that waits, by itself: nobody rings but the test. What it may not send any more, it does not send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from enrichment_worker.claimer import Claimer
from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.session import Session
from shared.db.engine import PLANNED_ONCE
from shared.probe import Probe
from tests.support.eventually import DEADLINE_S
from tests.support.held_up import HELD_UP, LOCK
from tests.support.worker import World

CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class Idle:
    """A claimer, its lane and its session."""

    world: World
    lane: Lane
    session: Session
    claimer: Claimer
    probe: Probe

    async def ring_for(self, *names: str) -> Any:
        """Queues these and rings; gives what was claimed next."""
        claimed = self.probe.expect("claimed")
        await self.world.queue(*names)
        self.lane.work.ring()
        return await claimed


@pytest.fixture
async def idle(world: World) -> AsyncIterator[Idle]:
    """It has a claim ready, and polls too seldom to matter."""
    probe, lane = Probe(), Lane(world.workflow, world.table, ahead_max=8)
    armed = probe.expect("armed")

    def pinned(name: str = "errands", options: str = "") -> Pinned:
        return Pinned(world.url, name=name, random=lambda: 1.0, timeout_s=DEADLINE_S, options=options)

    async with AsyncExitStack() as stack:
        errands = await stack.enter_async_context(pinned())
        session = Session(
            lanes=[lane],
            pinned=errands,
            pulse_pinned=pinned,
            on_lost=lambda: None,
            host="here",
            version="1",
            beat_s=0.05,
            expiry_s=DEADLINE_S,
            probe=probe,
        )
        claimer = Claimer(
            lane=lane,
            session=await stack.enter_async_context(session),
            pinned=await stack.enter_async_context(pinned(CLAIMS, PLANNED_ONCE)),
            shared_pinned=errands,
            end_doubt=lane.end_doubt,
            poll_s=2 * DEADLINE_S,
            random=lambda: 1.0,
            probe=probe,
        )
        await stack.enter_async_context(claimer)
        await armed
        yield Idle(world, lane, session, claimer, probe)


async def statuses(world: World) -> list[str]:
    return [row["lookup_status"] for row in await world.gadgets()]


async def test_each_ring_claims_at_once_where_it_has_waited_since_the_last_one(idle: Idle) -> None:
    for name in ("one", "two"):
        armed, by_ring = idle.probe.expect("armed"), idle.probe.expect("claimed by a ring")
        assert [item.data["name"] for item in await idle.ring_for(name)] == [name]
        assert by_ring.done()
        await armed


async def test_nothing_is_claimed_by_the_ring_of_its_stop(idle: Idle) -> None:
    await idle.world.queue("one")
    await idle.claimer.stop()
    assert await statuses(idle.world) == ["queued"]


async def test_nothing_is_claimed_once_this_worker_knows_that_the_api_is_down(idle: Idle) -> None:
    """The others, and the database, do not know it yet."""
    await idle.world.queue("one")
    idle.lane.upstream.is_broken = True
    idle.lane.work.ring()
    await idle.claimer.stop()
    assert await statuses(idle.world) == ["queued"]


async def test_a_new_session_claims_at_once(idle: Idle) -> None:
    lost = idle.probe.expect("session lost")
    async with idle.world.transaction() as other:
        await other.execute("UPDATE worker_session SET ended_at = now()")
    before = await lost
    await idle.probe.expect("beat")
    (item,) = await idle.ring_for("one")
    assert item.data["name"] == "one"
    assert before != idle.session.id == (await idle.world.gadgets())[0]["lookup_worker"]


async def test_who_is_in_doubt_looks_for_strays_before_a_claim(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enrichment_worker.claimer.LOOK_S", 0)
    armed = idle.probe.expect("armed")
    async with idle.world.transaction() as other:
        await other.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{CLAIMS}'"
        )
    idle.lane.work.ring()
    await armed
    looked = idle.probe.expect("looked for strays")
    assert len(await idle.ring_for("one")) == 1
    assert looked.done()


async def test_who_waits_for_items_that_were_not_claimed_claims_nothing_when_it_stops(idle: Idle) -> None:
    async with await psycopg.AsyncConnection.connect(idle.world.url, autocommit=True) as lock:
        await lock.execute(HELD_UP)
        await lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        lost = idle.probe.expect("not committed")
        await idle.ring_for("one")
        await lock.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{CLAIMS}'"
        )
        await lost
    await idle.claimer.stop()
    assert await statuses(idle.world) == ["queued"]
