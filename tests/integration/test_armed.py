"""A claim that is ready before its item is there: whoever rings sends it, where the connection is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from enrichment_worker.armed import Armed
from enrichment_worker.bell import Bell
from enrichment_worker.pinned import Pinned
from shared.db.claim import Claimed, ready_claim
from shared.db.engine import PLANNED_ONCE
from shared.errors import DatabaseUnavailable
from tests.support.eventually import DEADLINE_S
from tests.support.worker import World

STATUSES = "SELECT lookup_status FROM gadgets ORDER BY id"


class Idler:
    """What an idle claimer has: a bell, a connection, and what it got."""

    def __init__(self, world: World, pinned: Pinned) -> None:
        self.world, self.pinned, self.bell = world, pinned, Bell()
        self.claimed: list[Claimed] = []
        self.told_by: set[object] = set()
        self.may_be_sent = True

    async def wait(self, limit: int = 100) -> asyncio.Task[bool]:
        """Waits for the bell with a claim that is ready."""
        async with self.pinned.autocommit() as connection:
            ready = await ready_claim(connection, self.world.workflow, self.world.table, session=1, limit=limit)
        armed = Armed(ready, self.pinned, lambda: self.may_be_sent)
        waiting = asyncio.create_task(armed.wait(self.bell, DEADLINE_S, self._take))
        await asyncio.wait([waiting], timeout=0)
        return waiting

    def _take(self, claimed: Claimed) -> None:
        self.claimed.append(claimed)
        self.told_by.add(asyncio.current_task())

    @property
    def keys(self) -> list[object]:
        """Those of the items that it got."""
        return [item.key for claimed in self.claimed for item in claimed.items]

    async def is_usable(self) -> bool:
        """Whether nobody has the connection, and its answers are to what was asked."""
        async with asyncio.timeout(DEADLINE_S), self.pinned.autocommit() as connection:
            return await (await connection.execute("SELECT 'mine'")).fetchone() == ("mine",)


@pytest.fixture
async def idler(world: World) -> AsyncIterator[Idler]:
    """Over a connection as a worker's claims have it."""
    async with Pinned(
        world.url, name="claiming", random=lambda: 1.0, timeout_s=DEADLINE_S, options=PLANNED_ONCE
    ) as pinned:
        yield Idler(world, pinned)


async def test_it_is_sent_by_whoever_rings_before_any_task_runs(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    keys = await world.queue("one", "two")
    idler.bell.ring()
    wait_for_statuses(world, ["processing", "processing"])
    assert not waiting.done()
    assert await waiting
    assert idler.keys == keys
    assert idler.told_by == {None}, "no task has to run for what it got, either"
    assert await idler.is_usable()


async def test_what_is_beyond_its_limit_stays(world: World, idler: Idler) -> None:
    waiting = await idler.wait(limit=2)
    keys = await world.queue("one", "two", "three")
    idler.bell.ring()
    assert await waiting
    assert idler.keys == keys[:2]


async def test_it_is_sent_once_however_often_it_rings(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    for _ in range(3):
        idler.bell.ring()
    assert await waiting
    assert len(idler.claimed) == 1
    assert await idler.is_usable()


async def test_a_ring_for_what_came_after_it_was_sent_is_kept(world: World, idler: Idler) -> None:
    """The task that waits has not run between: what rings first may be a commit, what rings then a notification."""
    waiting = await idler.wait()
    keys = await world.queue("one")
    idler.bell.ring()
    wait_for_statuses(world, ["processing"])
    idler.bell.ring()
    assert await waiting
    assert idler.keys == keys
    assert await idler.bell.wait(0), "there may be more"


async def test_it_is_not_sent_once_it_may_not_be(world: World, idler: Idler) -> None:
    await world.queue("one")
    waiting = await idler.wait()
    idler.may_be_sent = False
    idler.bell.ring()
    assert not await waiting
    assert not idler.claimed
    assert await idler.is_usable()


async def test_it_is_not_sent_while_somebody_has_the_connection(world: World, idler: Idler) -> None:
    await world.queue("one")
    waiting = await idler.wait()
    async with idler.pinned.autocommit() as connection:
        idler.bell.ring()
        assert await (await connection.execute("SELECT 'mine'")).fetchone() == ("mine",)
    assert not await waiting
    assert not idler.claimed


async def test_it_is_not_sent_where_somebody_waits_for_the_connection(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    second_ran = asyncio.Event()

    async def second() -> None:
        async with idler.pinned.autocommit():
            second_ran.set()

    async with idler.pinned.autocommit():
        next_one = asyncio.create_task(second())
        await asyncio.wait([next_one], timeout=0)
    # The lock is free, and promised to the second.
    assert not second_ran.is_set()
    idler.bell.ring()
    assert not await waiting
    await next_one
    assert await idler.is_usable()


async def test_it_is_not_sent_over_a_connection_that_another_one_replaced(world: World, idler: Idler) -> None:
    await world.queue("one")
    waiting = await idler.wait()
    with pytest.raises(DatabaseUnavailable):
        async with idler.pinned.autocommit() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await idler.is_usable()
    idler.bell.ring()
    assert not await waiting


async def test_a_connection_that_was_lost_meanwhile_is_said_and_made_anew(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    async with world.transaction() as other:
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'claiming'"
        )
    idler.bell.ring()
    with pytest.raises(DatabaseUnavailable):
        await waiting
    assert await idler.is_usable()


async def test_who_is_cancelled_once_it_is_sent_leaves_no_answer_to_the_next(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    await world.queue("one")
    idler.bell.ring()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not idler.claimed
    assert await idler.is_usable()


async def test_who_is_cancelled_before_it_is_sent_keeps_the_connection(world: World, idler: Idler) -> None:
    waiting = await idler.wait()
    async with idler.pinned.autocommit() as connection:
        pass
    waiting.cancel()
    await asyncio.wait([waiting])
    idler.bell.ring()
    async with idler.pinned.autocommit() as same:
        assert same is connection


async def test_what_the_source_does_not_allow_is_raised(world: World, idler: Idler) -> None:
    async with world.transaction() as other:
        await other.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON gadgets FOR EACH ROW EXECUTE FUNCTION refuse()""")
    await world.queue("one")
    waiting = await idler.wait()
    idler.bell.ring()
    with pytest.raises(psycopg.errors.RaiseException, match="not today"):
        await waiting
    assert await idler.is_usable()


async def test_an_idle_worker_claims_so(world: World) -> None:
    async with world.worker(poll_s=60) as worker:
        await world.idle(worker)
        by_ring = worker.probe.expect("claimed by a ring")
        await world.queue("one")
        await world.ended(worker)
        assert [item.data["name"] for item in by_ring.result()] == ["one"]
    assert world.api.requests == ["one"]


def wait_for_statuses(world: World, statuses: list[str]) -> None:
    """Without a turn of the event loop."""
    until_s = time.monotonic() + DEADLINE_S
    with psycopg.connect(world.url, autocommit=True) as connection:
        while [status for (status,) in connection.execute(STATUSES)] != statuses:
            assert time.monotonic() < until_s
