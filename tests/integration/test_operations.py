"""What operators do over the wire: look at workflows and workers, pause, resume. An error changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from curation.v1 import curation_pb2 as pb
from shared.db import workflow_states
from shared.db.claim import claim
from shared.db.engine import Database
from shared.db.sessions import open_session
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, add_parcels, refused, somebody_waits_for_a_lock
from tests.support.worker import Gate, World, world  # noqa: F401 - a fixture

TABLE = transition_table(PARCELS)
QUEUED = {"status": "Scan", "scan_status": "queued", "scan_turn": 1.0}


async def take(database: Database, limit: int = 10) -> int:
    """How many items a worker gets."""
    async with database.transaction() as connection:
        return len((await claim(connection, PARCELS, TABLE, session=1, limit=limit)).items)


async def execute(database: Database, statement: str) -> list[Any]:
    """What the statement returns, if it returns rows."""
    async with database.transaction() as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


def pause(actor: str = "ann", reason: str = "too dear") -> pb.PauseWorkflowRequest:
    return pb.PauseWorkflowRequest(resource="parcels", actor=actor, reason=reason)


def resume(actor: str = "bob", reason: str = "paid") -> pb.ResumeWorkflowRequest:
    return pb.ResumeWorkflowRequest(resource="parcels", actor=actor, reason=reason)


async def test_while_a_workflow_is_paused_nobody_claims(service: RunningService) -> None:
    await add_parcels(service.database, QUEUED, QUEUED)
    paused = await service.stub.PauseWorkflow(pause())
    assert paused.changed
    assert paused.state.paused
    assert (paused.state.paused_by, paused.state.pause_reason) == ("ann", "too dear")
    assert paused.state.HasField("pause_time")
    assert await take(service.database) == 0
    resumed = await service.stub.ResumeWorkflow(resume())
    assert resumed.changed
    assert not resumed.state.paused
    assert (resumed.state.resumed_by, resumed.state.resume_reason) == ("bob", "paid")
    assert not resumed.state.HasField("pause_time")
    assert await take(service.database) == 2


async def test_pausing_twice_and_resuming_twice_change_nothing(service: RunningService) -> None:
    assert not (await service.stub.ResumeWorkflow(resume())).changed
    first = await service.stub.PauseWorkflow(pause())
    again = await service.stub.PauseWorkflow(pause(actor="eve", reason="late"))
    assert not again.changed
    assert again.state == first.state
    assert (await service.stub.ResumeWorkflow(resume())).changed
    assert not (await service.stub.ResumeWorkflow(resume(actor="eve"))).changed
    kinds = await execute(service.database, "SELECT kind, resource FROM status_event")
    assert kinds == [("workflow", "parcels")] * 2


async def test_a_pause_waits_for_the_claim_under_way_and_holds_for_the_next(service: RunningService) -> None:
    await add_parcels(service.database, QUEUED, QUEUED)
    async with service.database.transaction() as connection:
        assert len((await claim(connection, PARCELS, TABLE, session=1, limit=1)).items) == 1
        pausing = asyncio.ensure_future(service.stub.PauseWorkflow(pause()))
        await somebody_waits_for_a_lock(service.database, relation="workflow_state")
        claiming = asyncio.create_task(take(service.database))
        assert not pausing.done()
    assert (await pausing).changed
    assert await claiming == 0
    assert await take(service.database) == 0


async def test_a_claim_that_hangs_does_not_keep_an_operator_from_pausing(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_states, "CLAIMS_S_MAX", 0.05)
    await add_parcels(service.database, QUEUED, QUEUED)
    async with service.database.transaction() as connection:
        await claim(connection, PARCELS, TABLE, session=1, limit=1)
        assert (await service.stub.PauseWorkflow(pause())).changed
        assert await take(service.database) == 0


async def test_a_workflow_says_what_a_grid_and_an_operator_need(service: RunningService) -> None:
    await add_parcels(service.database, QUEUED, *[{**QUEUED, "scan_turn": 2.0}] * 2, {})
    assert await take(service.database, 1) == 1
    await execute(service.database, "UPDATE parcels SET scan_turn = NULL, scan_run_at = now() WHERE name = 'parcel 2'")
    await execute(
        service.database,
        "INSERT INTO api_state (api, held_until, broken_since, error) VALUES"
        " ('parcels API', now() + interval '1 hour', now(), 'it answered 503')",
    )
    workflow = (await service.stub.GetWorkflow(pb.GetWorkflowRequest(resource="parcels"))).workflow
    assert [(s.status, list(s.next_statuses), s.trigger, s.initial) for s in workflow.statuses] == [
        ("New", ["Selected", "Scan", "Archived"], False, True),
        ("Selected", ["New", "Scan", "Archived"], False, False),
        ("Scan", ["Selected", "Archived"], True, False),
        ("Archived", ["New"], False, False),
    ]
    assert (workflow.queued_count, workflow.delayed_count, workflow.in_flight_count) == (2, 1, 1)
    limits = workflow.limits
    assert (limits.attempts_max, limits.timeout.seconds, limits.concurrency, limits.breaker_failures) == (3, 30, 50, 20)
    assert [limits.HasField(name) for name in ("concurrency_total", "rate", "key_concurrency", "key_rate")] == [
        False
    ] * 4
    state = workflow.state
    assert (state.api, state.breaker, state.breaker_error) == ("parcels API", pb.BREAKER_STATE_OPEN, "it answered 503")
    assert state.HasField("hold_end_time")
    assert state.HasField("breaker_open_time")
    await execute(service.database, "UPDATE api_state SET held_until = now() - interval '1 s', broken_since = NULL")
    (listed,) = (await service.stub.ListWorkflows(pb.ListWorkflowsRequest())).workflows
    assert (listed.state.breaker, listed.state.breaker_error) == (pb.BREAKER_STATE_CLOSED, "")
    assert not listed.state.HasField("hold_end_time")


async def test_workers_are_alive_silent_or_ended_by_the_clock_of_the_database(service: RunningService) -> None:
    async with service.database.transaction() as connection:
        alive, silent, ended, old = [
            await open_session(connection, host=host, version="1", resources=["parcels", "places"], expiry_s=10)
            for host in ("a", "b", "c", "d")
        ]
    await execute(service.database, f"UPDATE worker_session SET expiry_s = 0 WHERE id IN ({silent}, {ended})")
    await execute(service.database, f"UPDATE worker_session SET ended_at = now() WHERE id = {ended}")
    await execute(service.database, f"UPDATE worker_session SET ended_at = now() - interval '2 days' WHERE id = {old}")
    await service.stub.PauseWorkflow(pause())
    workers = (await service.stub.ListWorkers(pb.ListWorkersRequest())).workers
    assert [(w.worker_id, w.host, w.state) for w in workers] == [
        (str(silent), "b", pb.WORKER_STATE_SILENT),
        (str(alive), "a", pb.WORKER_STATE_ALIVE),
    ]
    assert [(state.resource, state.paused, state.api) for state in workers[0].workflows] == [
        ("parcels", True, "parcels API"),
        ("places", False, ""),
    ]
    everybody = (await service.stub.ListWorkers(pb.ListWorkersRequest(with_ended=True))).workers
    assert [worker.host for worker in everybody] == ["c", "b", "a"]
    assert (everybody[0].state, everybody[0].HasField("end_time")) == (pb.WORKER_STATE_ENDED, True)
    async with service.database.transaction() as connection:
        await open_session(connection, host="e", version="1", resources=["places"])
    assert await execute(service.database, "SELECT host FROM worker_session ORDER BY id") == [
        (host,) for host in ("a", "b", "c", "e")
    ]
    served = (await service.stub.ListWorkers(pb.ListWorkersRequest(resource="parcels", with_ended=True))).workers
    assert [worker.host for worker in served] == ["c", "b", "a"]


async def test_workers_come_in_pages(service: RunningService) -> None:
    async with service.database.transaction() as connection:
        for host in "abcde":
            await open_session(connection, host=host, version="1", resources=["parcels"])
    seen: list[str] = []
    token = ""
    while token or not seen:
        page = await service.stub.ListWorkers(pb.ListWorkersRequest(page_size=2, page_token=token))
        seen += [worker.host for worker in page.workers]
        token = page.next_page_token
    assert seen == list("edcba")


async def test_a_worker_lists_itself_with_its_numbers(service: RunningService, world: World) -> None:  # noqa: F811
    gate = Gate(world)
    await world.queue("lamp", "radio")
    async with world.worker(beat_s=0.02) as worker:
        await worker.see(gate.asked.wait())
        await worker.see(worker.probe.expect("beat", times=2))
        (working,) = (await service.stub.ListWorkers(pb.ListWorkersRequest())).workers
        assert (working.done_count, working.in_flight_count) == (0, 2)
        gate.open.set()
        await world.ended(worker)
        await worker.see(worker.probe.expect("beat"))
        (running,) = (await service.stub.ListWorkers(pb.ListWorkersRequest())).workers
    assert running.state == pb.WORKER_STATE_ALIVE
    assert running.host
    assert running.version
    (ended,) = (await service.stub.ListWorkers(pb.ListWorkersRequest(with_ended=True))).workers
    assert (ended.state, ended.worker_id) == (pb.WORKER_STATE_ENDED, running.worker_id)
    assert (ended.done_count, ended.failed_count, ended.in_flight_count) == (2, 0, 0)


async def test_a_worker_goes_on_when_its_workflow_is_resumed(service: RunningService, world: World) -> None:  # noqa: F811
    await execute(service.database, "INSERT INTO workflow_state (resource, paused_at) VALUES ('gadgets', now())")
    async with world.worker(poll_s=30) as worker:
        await worker.see(worker.listening)
        await world.queue("lamp")
        async with service.database.transaction() as connection:
            await workflow_states.resume(connection, "gadgets", by="", reason="")
        (lamp,) = await world.ended(worker)
    assert (lamp["lookup_status"], lamp["lookup_attempts"]) == ("completed", 1)


CALLS: list[tuple[str, Callable[[Any], Awaitable[Any]]]] = [
    ("UNKNOWN_RESOURCE", lambda stub: stub.PauseWorkflow(pb.PauseWorkflowRequest(resource="nope"))),
    ("UNKNOWN_RESOURCE", lambda stub: stub.ResumeWorkflow(pb.ResumeWorkflowRequest(resource="nope"))),
    ("UNKNOWN_RESOURCE", lambda stub: stub.GetWorkflow(pb.GetWorkflowRequest(resource="nope"))),
    ("UNKNOWN_RESOURCE", lambda stub: stub.ListWorkers(pb.ListWorkersRequest(resource="nope"))),
    ("INVALID_REQUEST", lambda stub: stub.PauseWorkflow(pb.PauseWorkflowRequest())),
    ("INVALID_REQUEST", lambda stub: stub.PauseWorkflow(pause(actor="a" * 201))),
    ("INVALID_REQUEST", lambda stub: stub.ResumeWorkflow(resume(reason="r" * 1001))),
    ("INVALID_REQUEST", lambda stub: stub.ListWorkers(pb.ListWorkersRequest(page_size=-1))),
    ("INVALID_REQUEST", lambda stub: stub.ListWorkers(pb.ListWorkersRequest(page_token="x"))),
    ("INVALID_REQUEST", lambda stub: stub.ListWorkflows(pb.ListWorkflowsRequest(page_token="x"))),
]


async def test_no_error_changes_anything(service: RunningService) -> None:
    await service.stub.PauseWorkflow(pause())
    looking = "SELECT (SELECT jsonb_agg(w) FROM workflow_state w), (SELECT count(*) FROM status_event)"
    before = await execute(service.database, looking)
    for reason, call in CALLS:
        refusal = await refused(call(service.stub))
        code = grpc.StatusCode.NOT_FOUND if reason == "UNKNOWN_RESOURCE" else grpc.StatusCode.INVALID_ARGUMENT
        assert (refusal.code, refusal.reason) == (code, reason)
    assert await execute(service.database, looking) == before
