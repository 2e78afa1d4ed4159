"""Why is this row not running? All that stands in the way of an item, as typed causes; what matters most is first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.v1 import curation_pb2 as pb
from curation_service.messages import id_text, timestamp
from shared.db.attempts import read_taken, read_underway
from shared.db.engine import Connection
from shared.db.queue import count_ahead
from shared.db.sessions import find_session
from shared.db.workflow_states import WorkflowState, read_states
from shared.machine import COMPLETED, FAILED, NOTHING_FOUND, PROCESSING, QUEUED
from shared.workflow import Workflow

AHEAD_MAX = 10_000
"""Items before it are counted up to here: further on nobody cares, and it would cost."""


async def explain(connection: Connection, workflow: Workflow, row: Mapping[str, Any]) -> list[pb.Cause]:
    """The causes for one row of the source table, by column name."""
    queue_status = row[workflow.queue.status]
    if queue_status == QUEUED:
        return await _waiting(connection, workflow, row)
    if queue_status == PROCESSING:
        return [await _running(connection, workflow, row)]
    return [_ended(workflow, row)]


def _ended(workflow: Workflow, row: Mapping[str, Any]) -> pb.Cause:
    status, queue = row[workflow.curation.column], workflow.queue
    if row[queue.status] == FAILED:
        return _failed(workflow, row, pb.CAUSE_KIND_FAILED)
    if row[queue.status] == COMPLETED:
        found_nothing = row[queue.result] == NOTHING_FOUND
        return pb.Cause(kind=pb.CAUSE_KIND_NOTHING_FOUND if found_nothing else pb.CAUSE_KIND_COMPLETED)
    is_trigger = status in workflow.curation.triggers
    return pb.Cause(kind=pb.CAUSE_KIND_NEVER_QUEUED if is_trigger else pb.CAUSE_KIND_STATUS_NO_TRIGGER)


async def _running(connection: Connection, workflow: Workflow, row: Mapping[str, Any]) -> pb.Cause:
    worker = row[workflow.queue.worker]
    session = None if worker is None else await find_session(connection, worker)
    is_alive = session is not None and session.state == "alive"
    key, version = str(row[workflow.key.name]), row[workflow.curation.version_column]
    underway = await read_underway(connection, key, version, claim=row[workflow.queue.event])
    return pb.Cause(
        kind=pb.CAUSE_KIND_RUNNING if is_alive else pb.CAUSE_KIND_WORKER_LOST,
        since_time=timestamp(underway.claimed_at),
        worker_id=id_text(worker),
        host=session.host if session is not None else "",
        step=underway.step,
        fraction=underway.fraction,
        **_attempts(workflow, row),
    )


async def _waiting(connection: Connection, workflow: Workflow, row: Mapping[str, Any]) -> list[pb.Cause]:
    (state,) = await read_states(connection, {workflow.resource: workflow.api})
    taken, limits = await read_taken(connection, workflow), workflow.limits
    now = (await (await connection.execute("SELECT clock_timestamp()")).fetchall())[0][0]
    causes = _barred(state)
    if not taken.workers:
        causes.append(pb.Cause(kind=pb.CAUSE_KIND_NO_WORKER))
    run_at = row[workflow.queue.run_at]
    if run_at is not None and run_at > now:
        # Its turn has not come, whoever is before it then.
        backing_off = _failed(workflow, row, pb.CAUSE_KIND_BACKING_OFF)
        backing_off.until_time.FromDatetime(run_at)
        return [*causes, backing_off]
    if limits.rate is not None and taken.next_call_at is not None:
        causes.append(pb.Cause(kind=pb.CAUSE_KIND_RATE_LIMITED, until_time=timestamp(taken.next_call_at)))
    if limits.concurrency_total is not None and taken.slots >= limits.concurrency_total:
        causes.append(pb.Cause(kind=pb.CAUSE_KIND_NO_FREE_SLOT, slot_count=limits.concurrency_total))
    ahead = await count_ahead(connection, workflow, row[workflow.key.name], limit=AHEAD_MAX + 1)
    causes.append(
        pb.Cause(
            kind=pb.CAUSE_KIND_BEHIND_OTHERS,
            ahead_count=min(ahead, AHEAD_MAX),
            ahead_count_exceeded=ahead > AHEAD_MAX,
        )
    )
    return causes


def _barred(state: WorkflowState) -> list[pb.Cause]:
    """What keeps workers from claiming any item of the workflow."""
    causes = []
    if state.paused_at is not None:
        causes.append(
            pb.Cause(
                kind=pb.CAUSE_KIND_DRAINING if state.draining else pb.CAUSE_KIND_PAUSED,
                since_time=timestamp(state.paused_at),
                actor=state.paused_by,
                reason=state.pause_reason,
            )
        )
    if state.broken_since is not None:
        causes.append(
            pb.Cause(
                kind=pb.CAUSE_KIND_BREAKER_OPEN,
                since_time=timestamp(state.broken_since),
                until_time=timestamp(state.probe_at),
                error=state.api_error,
            )
        )
    if state.held_until is not None:
        causes.append(pb.Cause(kind=pb.CAUSE_KIND_API_HELD, until_time=timestamp(state.held_until)))
    return causes


def _failed(workflow: Workflow, row: Mapping[str, Any], kind: pb.CauseKind) -> pb.Cause:
    queue = workflow.queue
    return pb.Cause(
        kind=kind,
        error=row[queue.error] or "",
        failure_group_id=id_text(row[queue.failure]),
        **_attempts(workflow, row),
    )


def _attempts(workflow: Workflow, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"attempt": row[workflow.queue.attempts], "attempts_max": workflow.limits.attempts_max}
