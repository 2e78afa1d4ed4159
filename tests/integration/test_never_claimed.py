"""Items of a claim that was not committed, while this worker still has them.

Another one may have them by now, under the very versions that this one knows. So nothing that it writes names them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from shared.db.claim import claim
from shared.db.sessions import open_session
from shared.workflow import EnrichmentContext, Item, Values
from tests.support.eventually import DEADLINE_S
from tests.support.held_up import LOCK, HeldUp, held_up
from tests.support.worker import Gate, World


class Stubborn:
    """Its attempts do not end when they are told to for the first time, and report their progress after that."""

    def __init__(self) -> None:
        self.begun, self.may_tell = asyncio.Event(), asyncio.Event()

    async def enrich(self, item: Item, context: EnrichmentContext) -> Values | None:
        self.begun.set()
        with suppress(asyncio.CancelledError):
            await self.may_tell.wait()
        await self.may_tell.wait()
        await context.progress("late", 0.9)
        await asyncio.Event().wait()
        return None


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Stubborn:
    """The enricher of this test; much mercy is shown."""
    stubborn = Stubborn()
    monkeypatch.setattr("tests.support.worker.enrich", stubborn.enrich)
    monkeypatch.setattr("enrichment_worker.runner.MERCY_S", DEADLINE_S)
    return stubborn


@asynccontextmanager
async def never_claimed(world: World, begun: asyncio.Event) -> AsyncIterator[HeldUp]:
    """`one` runs; `two` is held under a claim that was not committed, and another worker has claimed it."""
    async with held_up(world, grace_s=0, progress_s=0.02) as held:
        await held.let_commit()
        claimed = held.worker.probe.expect("claimed")
        await world.queue("one")
        await held.worker.see(claimed)
        await held.worker.see(begun.wait())
        await world.idle(held.worker)
        begun.clear()
        await held.lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        claimed, lost = held.worker.probe.expect("claimed by a ring"), held.worker.probe.expect("not committed")
        await world.queue("two")
        await held.worker.see(claimed)
        if world.workflow.limits.concurrency > 1:
            await held.worker.see(begun.wait())
        await held.end_claims()
        await held.worker.see(lost)
        await held.let_commit()
        async with world.transaction() as connection:
            session = await open_session(connection, host="there", version="1", resources=["gadgets"])
            (item,) = (await claim(connection, world.workflow, world.table, session=session, limit=1)).items
        assert item.data["name"] == "two"
        yield held


async def test_what_has_not_begun_is_not_released(world: World) -> None:
    world.limit(concurrency=1)
    async with never_claimed(world, Gate(world).asked):
        pass
    assert [row["lookup_status"] for row in await world.gadgets()] == ["queued", "processing"]


async def test_no_progress_is_told(world: World, stubborn: Stubborn) -> None:
    async with never_claimed(world, stubborn.begun) as held:
        reported = held.worker.probe.expect("reported")
        stubborn.may_tell.set()
        assert {key for key, *_ in await held.worker.see(reported)} == {1}
    two = [row["kind"] for row in await world.rows("status_event", "position") if row["items"] == ["2"]]
    assert two == ["claim"]


async def test_nobody_asks_whether_it_is_lost(world: World, stubborn: Stubborn) -> None:
    """It may be claimed again meanwhile, by this worker, and then be taken for lost."""
    async with never_claimed(world, stubborn.begun) as held:
        async with world.transaction() as other:
            await other.execute("UPDATE gadgets SET version = version + 1")
        assert await held.found_lost() == {1}
