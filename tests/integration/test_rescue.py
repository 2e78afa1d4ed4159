"""The rescue of what dead workers had: it is bounded, waits for nobody, and takes nothing that is not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.rescuer import Rescuer
from shared.db.claim import claim
from shared.db.finish import Result, finish
from shared.db.sessions import close_session, open_session, rescue
from shared.probe import Probe
from shared.workflow import Item
from tests.support.eventually import DEADLINE_S, eventually
from tests.support.proxy import proxied
from tests.support.worker import World


async def claimed(world: World, limit: int, *, expiry_s: float = 3600) -> tuple[int, list[Item]]:
    """The number of a session, and what it claimed."""
    async with world.transaction() as connection:
        session = await open_session(connection, host="h", version="0", resources=["gadgets"], expiry_s=expiry_s)
        taken = await claim(connection, world.workflow, world.table, session=session, limit=limit)
        return session, list(taken.items)


async def rescued(world: World) -> int:
    async with world.transaction() as connection:
        return await rescue(connection, world.workflow, world.table)


async def close(world: World, session: int) -> None:
    async with world.transaction() as connection:
        await close_session(connection, session)


async def test_one_statement_rescues_so_many_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.db.sessions.RESCUE_SIZE_MAX", 2)
    await world.queue("one", "two", "three")
    session, _ = await claimed(world, 3)
    await close(world, session)
    assert [await rescued(world) for _ in range(3)] == [2, 1, 0]


async def test_neither_the_living_nor_other_workflows_keep_it_from_those_that_are_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.sessions.RESCUE_CLAIMS_MAX", 1)
    await world.queue("one", "two")
    await claimed(world, 1)
    session, _ = await claimed(world, 1)
    await close(world, session)
    async with world.transaction() as connection:
        await connection.execute(
            "INSERT INTO worker_claim (position, resource, session, items) VALUES (0, 'others', %s, '{1}')", [session]
        )
    assert await rescued(world) == 1
    assert [row["lookup_status"] for row in await world.gadgets()] == ["processing", "queued"]


async def test_what_somebody_holds_is_left_for_the_next_time(world: World) -> None:
    await world.queue("one", "two")
    session, _ = await claimed(world, 2)
    await close(world, session)
    beating, _ = await claimed(world, 0, expiry_s=0)
    async with world.transaction() as other:
        await other.execute("SELECT FROM gadgets WHERE name = 'one' FOR UPDATE")
        await other.execute("SELECT FROM worker_session WHERE id = %s FOR UPDATE", [beating])
        async with world.transaction() as connection:
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            assert await rescue(connection, world.workflow, world.table) == 1
    assert await rescued(world) == 1
    assert None not in {row["ended_at"] for row in await world.rows("worker_session", "id")}


async def test_when_a_session_ended_stays_as_it_was(world: World) -> None:
    session, _ = await claimed(world, 0, expiry_s=0)
    await close(world, session)
    (before,) = await world.rows("worker_session", "id")
    await rescued(world)
    assert await world.rows("worker_session", "id") == [before]


async def test_an_item_that_a_session_claimed_twice_is_rescued_once_from_it(world: World) -> None:
    await world.queue("one")
    session, (item,) = await claimed(world, 1)
    async with world.transaction() as connection:
        await finish(connection, world.workflow, world.table, [Result(item, "release")])
        await claim(connection, world.workflow, world.table, session=session, limit=1)
    await close(world, session)
    assert await rescued(world) == 1
    last = (await world.rows("status_event", "position"))[-1]
    assert (last["kind"], last["items"], last["worker"]) == ("rescue", [str(item.key)], session)


async def test_what_was_lost_together_comes_back_within_its_bounds_and_not_together(world: World) -> None:
    world.limit(attempts_max=5000, backoff_s=1_000, backoff_max_s=50_000)
    await world.queue(*(f"g{n}" for n in range(60)))
    session, _ = await claimed(world, 60)
    async with world.transaction() as connection:
        await connection.execute("UPDATE gadgets SET lookup_attempts = 4000 WHERE id > 30")
    await close(world, session)
    assert await rescued(world) == 60
    async with world.transaction() as connection:
        cursor = await connection.execute(
            "SELECT id > 30, extract(epoch FROM lookup_run_at - now())::float8 FROM gadgets ORDER BY 1"
        )
        delays = await cursor.fetchall()
    for is_old, longest_s in ((False, 1_000), (True, 50_000)):
        of_these = [delay_s for old, delay_s in delays if old == is_old]
        # One of thirty at least is in each third, or nearly never.
        assert min(of_these) < longest_s / 3 < longest_s * 2 / 3 < max(of_these) <= longest_s + 60
    assert await world.rows("failure_group", "id") == []


async def test_whose_attempts_are_used_up_is_seen_among_the_failures_when_it_was_last_lost(world: World) -> None:
    world.limit(attempts_max=1)
    await world.queue("one", "two")
    seen = []
    for _ in range(2):
        session, _ = await claimed(world, 1)
        await close(world, session)
        assert await rescued(world) == 1
        (group,) = await world.rows("failure_group", "id")
        seen.append((group["first_seen_at"], group["last_seen_at"]))
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] < seen[1][1]


@asynccontextmanager
async def rescuer(world: World, url: str, probe: Probe) -> AsyncIterator[Pinned]:
    """One that looks once an hour; and the connection that it shares with others."""
    lane = Lane(world.workflow, world.table, ahead_max=0)
    async with (
        Pinned(url, name="a test", random=lambda: 0.0, timeout_s=DEADLINE_S) as pinned,
        Rescuer(lanes=[lane], pinned=pinned, expiry_s=4 * 3600, random=lambda: 0.0, probe=probe),
    ):
        yield pinned


async def test_who_finds_no_database_rescues_nothing_before_all_had_time_to_beat(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.queue("one")
    await claimed(world, 1, expiry_s=0)
    async with proxied(world.url) as (proxy, url):
        proxy.refuse()
        async with rescuer(world, url, Probe()) as pinned:
            await eventually(lambda: "no database" in caplog.text)
            await proxy.accept()
            for _ in range(5):  # so often it could have looked
                async with pinned.transaction() as connection:
                    await connection.execute("SELECT")
    assert [row["lookup_status"] for row in await world.gadgets()] == ["processing"]
    assert await rescued(world) == 1


async def test_who_is_told_to_stop_leaves_the_rest_to_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.db.sessions.RESCUE_SIZE_MAX", 1)
    await world.queue(*(f"g{n}" for n in range(9)))
    session, _ = await claimed(world, 9)
    await close(world, session)
    probe = Probe()
    seen = probe.expect("rescued")
    async with rescuer(world, world.url, probe):
        await seen
    assert {row["lookup_status"] for row in await world.gadgets()} == {"queued", "processing"}
