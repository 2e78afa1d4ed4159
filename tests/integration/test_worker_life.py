"""Workers that die, stop, or lose their database: no item is lost, none is saved twice, and the dead end loudly."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.rescuer import Rescuer
from shared.db.claim import claim
from shared.db.embedded import EmbeddedPostgres
from shared.db.finish import Result, finish
from shared.db.migrate import migrate
from shared.db.sessions import close_session, open_session, rescue
from shared.probe import Probe
from shared.registry import Registry
from shared.workflow import Item
from tests.support.worker import Api, Gate, Reply, World, create_tables, details


async def silent_worker(world: World, limit: int) -> list[Item]:
    """Claims as a worker that never beats again."""
    async with world.transaction() as connection:
        session = await open_session(connection, host="gone", version="0", resources=["gadgets"])
        return list((await claim(connection, world.workflow, world.table, session=session, limit=limit)).items)


async def cut_connections(world: World) -> None:
    """What a restart of PostgreSQL does to connections."""
    async with world.transaction() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'curation worker%'"
        )


async def test_items_of_a_worker_that_fell_silent_are_rescued_and_completed(world: World) -> None:
    await world.queue("one", "two")
    assert len(await silent_worker(world, 2)) == 2
    async with world.worker(beat_s=0.1, expiry_s=0.5) as worker:
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]


async def test_a_session_that_is_over_claims_nothing(world: World) -> None:
    await world.queue("one")
    async with world.transaction() as connection:
        session = await open_session(connection, host="late", version="0", resources=["gadgets"])
        await close_session(connection, session)
        claimed = await claim(connection, world.workflow, world.table, session=session, limit=1)
    assert claimed.items == []


async def test_nobody_is_taken_for_dead_who_could_not_beat_because_the_server_was_away(world: World) -> None:
    await world.queue("long")
    (item,) = await silent_worker(world, 1)
    async with world.transaction() as connection:
        up = await (await connection.execute("SELECT clock_timestamp() - pg_postmaster_start_time()")).fetchone()
        await connection.execute("UPDATE worker_session SET beat_at = beat_at - interval '2 hours'")
    if up is None or up[0] > timedelta(minutes=50):
        pytest.skip("a server that was started less than an hour ago is needed")
    # The worker has been silent for longer than the expiry, but the server was away for some of that.
    probe, lane = Probe(), Lane(world.workflow, world.table, ahead_max=1)
    waiting = probe.expect("waiting for beats")
    async with (
        Pinned(world.url, name="rescuing", random=lambda: 1.0, timeout_s=20) as pinned,
        Rescuer(lanes=[lane], pinned=pinned, expiry_s=3600, random=lambda: 1.0, probe=probe),
    ):
        await waiting
    (row,) = await world.gadgets()
    assert (row["lookup_status"], row["version"]) == ("processing", item.version)


async def test_a_late_result_of_a_rescued_item_is_dropped(world: World) -> None:
    await world.queue("one")
    (late,) = await silent_worker(world, 1)
    async with world.worker(beat_s=0.1, expiry_s=0.5) as worker:
        before = await world.ended(worker)
    async with world.transaction() as connection:
        result = Result(late, "complete", values={"code": "one", "label": "late"})
        finished = await finish(connection, world.workflow, world.table, [result])
    assert (finished.saved, finished.dropped) == (0, 1)
    assert await world.gadgets() == before
    assert [row["label"] for row in await world.details()] == ["found"]


async def test_a_worker_taken_for_dead_drops_what_it_had_and_begins_a_new_session(world: World) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def answer(name: str) -> Reply:
        if len(world.api.requests) == 1:
            asked.set()
            await gate.wait()
        return await details(name)

    world.api.answer = answer
    await world.queue("one")
    async with world.worker(beat_s=0.05, expiry_s=60) as worker:
        await worker.see(asked.wait())
        cancelled, lost = worker.probe.expect("cancelled"), worker.probe.expect("session lost")
        async with world.transaction() as connection:
            # What another worker does to one that was silent for too long.
            await connection.execute("UPDATE worker_session SET beat_at = beat_at - interval '1 day'")
            assert await rescue(connection, world.workflow, world.table, expiry_s=60) == 1
        await worker.see(lost)
        assert (await worker.see(cancelled)).attempt == 1
        (row,) = await world.ended(worker)
        sessions = await world.rows("worker_session", "id")
    assert (row["lookup_status"], row["lookup_attempts"], len(world.api.requests)) == ("completed", 2, 2)
    assert [session["ended_at"] is None for session in sessions] == [False, True]


async def test_draining_completes_what_is_in_flight_and_releases_the_rest(world: World) -> None:
    both, gate = asyncio.Barrier(3), asyncio.Event()

    async def answer(name: str) -> Reply:
        await both.wait()
        await gate.wait()
        return await details(name)

    world.api.answer = answer
    world.limit(concurrency=2)
    await world.queue("a", "b", "c", "d")
    async with world.worker() as worker:
        await worker.see(both.wait())
        draining = worker.probe.expect("draining")
        leaving = asyncio.create_task(opened(draining, gate))
    await leaving
    rows = await world.gadgets()
    ended = sorted((row["lookup_status"], row["lookup_attempts"]) for row in rows)
    assert ended == [("completed", 1), ("completed", 1), ("queued", 0), ("queued", 0)]


async def opened(mark: asyncio.Future[Any], gate: asyncio.Event) -> None:
    await mark
    gate.set()


async def test_what_does_not_end_within_the_grace_is_released_without_losing_an_attempt(world: World) -> None:
    answering = asyncio.Event()

    async def answer(name: str) -> Reply:
        answering.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.api.answer = answer
    await world.queue("stuck")
    async with world.worker(grace_s=0) as worker:
        await worker.see(answering.wait())
    (row,) = await world.gadgets()
    assert (row["lookup_status"], row["lookup_attempts"], row["lookup_error"]) == ("queued", 0, None)


async def test_a_worker_survives_the_loss_of_all_its_connections(world: World) -> None:
    gate = Gate(world)
    await world.queue("before")
    async with world.worker() as worker:
        await worker.see(gate.asked.wait())
        listening = worker.probe.expect("listening")
        await cut_connections(world)
        gate.open.set()
        await world.queue("after")
        rows = await world.ended(worker)
        await worker.see(listening)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]


async def test_a_worker_survives_a_restart_of_postgresql(tmp_path: Path) -> None:
    gate, answering, api = asyncio.Event(), asyncio.Event(), Api()

    async def answer(name: str) -> Reply:
        answering.set()
        await gate.wait()
        return await details(name)

    api.answer = answer
    server, again = EmbeddedPostgres(tmp_path / "pg"), EmbeddedPostgres(tmp_path / "pg")
    async with AsyncExitStack() as first, AsyncExitStack() as second, api.serve() as api_url:
        await first.enter_async_context(server)
        await asyncio.to_thread(migrate, server.url, Registry())
        create_tables(server.url)
        world = World(server.url, api, api_url)
        await world.queue("before")
        async with world.worker() as worker:
            await worker.see(answering.wait())
            waiting = worker.probe.expect("waiting for the database", times=2)
            await first.aclose()
            gate.set()  # the result has nowhere to go
            await worker.see(waiting)
            await second.enter_async_context(again)
            await world.queue("after")
            rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]


async def test_items_whose_claim_was_committed_unheard_are_released_and_done(world: World) -> None:
    await world.queue("unheard")
    async with world.worker(poll_s=60) as worker:
        await world.ended(worker)
        async with world.transaction() as connection:
            # What the database holds after such a claim: an item of the worker's session that it does not know.
            await connection.execute(
                "UPDATE gadgets SET lookup_status = 'processing', lookup_result = NULL, version = version + 1,"
                " lookup_worker = (SELECT max(id) FROM worker_session)"
            )
        await cut_connections(world)
        await world.queue("next")
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]


async def test_progress_is_written_while_an_item_is_in_flight(world: World) -> None:
    gate = asyncio.Event()

    async def answer(name: str) -> Reply:
        await gate.wait()
        return await details(name)

    world.api.answer = answer
    await world.queue("slow")
    async with world.worker(progress_s=0.05) as worker:
        reported = worker.probe.expect("reported")
        await worker.see(reported)
        gate.set()
        await world.ended(worker)
    (report,) = reported.result()
    assert report[2:] == ("asking", 0.5)


async def test_a_stopped_worker_has_closed_its_session(world: World) -> None:
    async with world.worker():
        (session,) = await world.rows("worker_session", "id")
        assert session["ended_at"] is None
        assert session["resources"] == ["gadgets"]
    (session,) = await world.rows("worker_session", "id")
    assert session["ended_at"] is not None
