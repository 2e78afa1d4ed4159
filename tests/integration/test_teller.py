"""What follows a claim, beside the claimer: settled claims are forgotten, each once, and none for an outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.session import Session
from enrichment_worker.teller import Teller
from shared.db.claim import claim
from shared.db.engine import Database
from shared.waits import backoff
from shared.workflow import Item
from tests.integration.test_worker_session import lane_of, made
from tests.support.eventually import DEADLINE_S, eventually, eventually_async
from tests.support.proxy import Proxy, proxied
from tests.support.service import somebody_waits_for_a_lock
from tests.support.worker import World


def at_once() -> float:
    """The shortest pauses."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Telling:
    """A teller, its lane and its session, its connection, and what is between that and the database."""

    world: World
    lane: Lane
    session: Session
    teller: Teller
    pinned: Pinned
    proxy: Proxy

    async def claims(self, name: str) -> tuple[int, list[Item]]:
        """Claims one more as the claimer does. Returns the claim's position, and its items."""
        await self.world.queue(name)
        workflow, table = self.world.workflow, self.world.table
        async with self.world.transaction() as connection:
            claimed = await claim(connection, workflow, table, session=self.session.id, limit=1)
        self.lane.take(claimed.items, claimed.position, now_s=0.0)
        return claimed.position, list(claimed.items)

    async def forgets_all_but(self, *positions: int) -> None:
        """Waits until the database knows of these claims alone, and nothing is left to be told."""

        async def are_left() -> bool:
            return [row["position"] for row in await self.world.rows("worker_claim", "position")] == [*positions]

        await eventually_async(are_left)
        await eventually(lambda: self.lane.settled == [])


@pytest.fixture
async def telling(world: World) -> AsyncIterator[Telling]:
    """Nobody rings but the test."""
    lane = lane_of(world)
    async with AsyncExitStack() as stack:
        proxy, url = await stack.enter_async_context(proxied(world.url))
        pinned = Pinned(url, name="errands", random=at_once, timeout_s=DEADLINE_S)
        await stack.enter_async_context(pinned)
        session = await stack.enter_async_context(await stack.enter_async_context(made(world.url, lane)))
        teller = await stack.enter_async_context(Teller(lane=lane, session=session, pinned=pinned))
        yield Telling(world, lane, session, teller, pinned, proxy)


async def test_a_claim_of_which_nothing_is_in_hand_is_forgotten_with_the_next(telling: Telling) -> None:
    first, items = await telling.claims("one")
    telling.lane.settle(items, now_s=0.0)
    second, _ = await telling.claims("two")
    assert first != second
    await telling.forgets_all_but(second)


async def test_what_is_settled_while_watchers_are_told_is_forgotten_the_next_time(telling: Telling) -> None:
    _, items = await telling.claims("one")
    telling.lane.settle(items, now_s=0.0)
    async with Database(telling.world.url) as database, telling.world.transaction() as other:
        await other.execute("SELECT FROM worker_claim FOR UPDATE")
        telling.lane.claimed.ring()
        await somebody_waits_for_a_lock(database)
        _, items = await telling.claims("two")
        telling.lane.settle(items, now_s=0.0)
    await telling.forgets_all_but()


async def test_what_found_no_database_is_told_again_until_there_is_one(telling: Telling) -> None:
    _, items = await telling.claims("one")
    telling.lane.settle(items, now_s=0.0)
    telling.proxy.refuse()
    second, _ = await telling.claims("two")
    # Of the two claims none rings a third time.
    await eventually(lambda: telling.pinned.backoff_s >= backoff(3, at_once))
    await telling.proxy.accept()
    await telling.forgets_all_but(second)


async def test_who_has_nothing_to_tell_stops_when_asked(telling: Telling, caplog: pytest.LogCaptureFixture) -> None:
    await telling.teller.stop()
    assert "did not stop" not in caplog.text
