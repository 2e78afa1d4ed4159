"""Workers that die, stop, or lose their database: no item is lost, none is saved twice, and the dead end loudly."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.db.claim import claim
from shared.db.embedded import EmbeddedPostgres
from shared.db.finish import Result, finish
from shared.db.log import append_progress
from shared.db.migrate import migrate
from shared.db.sessions import close_session, open_session, rescue
from shared.registry import Registry
from shared.workflow import Item
from tests.support.worker import WIDGETS, Api, Gate, Reply, World, create_tables, details


async def silent_worker(world: World, limit: int) -> list[Item]:
    """Claims as a worker that never beats again."""
    async with world.transaction() as connection:
        session = await open_session(connection, host="gone", version="0", resources=["gadgets"], expiry_s=0.5)
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


@pytest.mark.parametrize("claims", [[5], [1] * 5])
async def test_all_that_dead_workers_had_is_rescued_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, claims: list[int]
) -> None:
    monkeypatch.setattr("shared.db.sessions.RESCUE_SIZE_MAX", 2)
    monkeypatch.setattr("shared.db.sessions.RESCUE_CLAIMS_MAX", 2)
    await world.queue("one", "two", "three", "four", "five")
    for size in claims:
        assert len(await silent_worker(world, size)) == size
    async with world.transaction() as connection:
        await connection.execute("UPDATE worker_session SET ended_at = clock_timestamp()")
    async with world.worker(expiry_s=3600) as worker:
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}


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
        # Silent for longer than the server has been up, and for longer than it said it may.
        await connection.execute(
            """UPDATE worker_session SET beat_at = beat_at - interval '10 years',
               expiry_s = extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) + 3600"""
        )
        assert await rescue(connection, world.workflow, world.table) == 0
    (row,) = await world.gadgets()
    assert (row["lookup_status"], row["version"]) == ("processing", item.version)


async def test_each_worker_is_taken_for_dead_by_its_own_expiry(world: World) -> None:
    async with world.transaction() as connection:
        for host, expiry_s in (("patient", 3600.0), ("hasty", 0.0)):
            await open_session(connection, host=host, version="1", resources=["gadgets"], expiry_s=expiry_s)
        await rescue(connection, world.workflow, world.table)
    ended = {row["host"]: row["ended_at"] is not None for row in await world.rows("worker_session", "id")}
    assert ended == {"patient": False, "hasty": True}


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


async def claimed_by_one_and_then_another(world: World) -> tuple[Item, Item]:
    """One item, as a worker claimed it that is dead by now, and as another did that has it."""
    world.limit(backoff_s=0)  # what is rescued need not wait
    await world.queue("one")
    (late,) = await silent_worker(world, 1)
    async with world.transaction() as connection:
        await connection.execute("UPDATE worker_session SET ended_at = now()")
        assert await rescue(connection, world.workflow, world.table) == 1
    (held,) = await silent_worker(world, 1)
    return late, held


async def test_a_late_report_is_left_out_while_another_worker_has_the_item(world: World) -> None:
    late, held = await claimed_by_one_and_then_another(world)
    async with world.transaction() as connection:
        reports = [(item.key, item.version, step, 0.5) for item, step in ((late, "late"), (held, "held"))]
        await append_progress(connection, world.workflow, reports)
    told = [event["steps"] for event in await world.rows("status_event", "position") if event["kind"] == "progress"]
    assert told == [["held"]]


async def test_a_late_result_is_dropped_while_another_worker_has_the_item(world: World) -> None:
    late, held = await claimed_by_one_and_then_another(world)
    for item, label, saved in ((late, "late", 0), (held, "held", 1)):
        async with world.transaction() as connection:
            result = Result(item, "complete", values={"code": "one", "label": label})
            finished = await finish(connection, world.workflow, world.table, [result])
        assert (finished.saved, finished.dropped) == (saved, 1 - saved)
    assert [row["label"] for row in await world.details()] == ["held"]


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
            await connection.execute("UPDATE worker_session SET expiry_s = 0")
            assert await rescue(connection, world.workflow, world.table) == 1
        await worker.see(lost)
        assert (await worker.see(cancelled)).attempt == 1
        (row,) = await world.ended(worker)
        sessions = await world.rows("worker_session", "id")
    assert (row["lookup_status"], row["lookup_attempts"], len(world.api.requests)) == ("completed", 2, 2)
    assert [session["ended_at"] is None for session in sessions] == [False, True]


async def test_what_a_worker_taken_for_dead_is_at_ends_with_its_session(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("enrichment_worker.patrol.about", lambda *_: 3600.0)  # not by a poll
    gate = Gate(world)
    async with world.worker(beat_s=0.05, expiry_s=60) as worker:
        await worker.see(worker.listening)
        await world.queue("one")
        await worker.see(gate.asked.wait())
        cancelled = worker.probe.expect("cancelled")
        async with world.transaction() as connection:
            await connection.execute("UPDATE worker_session SET expiry_s = 0")
            assert await rescue(connection, world.workflow, world.table) == 1
        await worker.see(cancelled)
    assert "did not stop" not in caplog.text, "the next poll is an hour away"


async def test_draining_completes_what_is_in_flight_and_releases_the_rest(world: World) -> None:
    gate = Gate(world, calls=2)
    world.limit(concurrency=2)
    await world.queue("a", "b", "c", "d")
    async with world.worker() as worker:
        await worker.see(gate.asked.wait())
        draining = worker.probe.expect("draining")
        leaving = asyncio.create_task(opened(draining, gate))
    await leaving
    rows = await world.gadgets()
    ended = sorted((row["lookup_status"], row["lookup_attempts"]) for row in rows)
    assert ended == [("completed", 1), ("completed", 1), ("queued", 0), ("queued", 0)]


async def test_of_several_resources_none_begins_anything_while_another_drains(world: World) -> None:
    gate = Gate(world, calls=2)
    world.limit(concurrency=1)
    world.others = [replace(WIDGETS, limits=world.workflow.limits)]
    for resource in ("gadgets", "widgets"):
        await world.queue(f"{resource} 1", f"{resource} 2", resource=resource)
    async with world.worker(grace_s=25) as worker:
        await worker.see(gate.asked.wait())
        leaving = asyncio.create_task(opened(worker.probe.expect("draining", times=2), gate))
    await leaving
    ended = [(row["lookup_status"], row["lookup_attempts"]) for row in await world.items()]
    assert ended == [("completed", 1), ("queued", 0)] * 2


async def opened(mark: asyncio.Future[Any], gate: Gate) -> None:
    await mark
    gate.open.set()


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
