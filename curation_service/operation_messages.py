"""What operators see, as messages: workflows, their states, workers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from curation.v1 import curation_pb2 as pb
from curation_service.messages import id_text, timestamp
from curation_service.operations import WorkerView, WorkflowView
from shared.db.workflow_states import WorkflowState
from shared.workflow import Curation, Limits, Rate

WORKER_STATES: Mapping[str, pb.WorkerState] = {
    "alive": pb.WORKER_STATE_ALIVE,
    "silent": pb.WORKER_STATE_SILENT,
    "ended": pb.WORKER_STATE_ENDED,
}


def state_message(state: WorkflowState) -> pb.WorkflowState:
    """What keeps workers from claiming, if anything does."""
    return pb.WorkflowState(
        resource=state.resource,
        paused=state.paused_at is not None,
        pause_time=timestamp(state.paused_at),
        paused_by=state.paused_by,
        pause_reason=state.pause_reason,
        draining=state.draining,
        resume_time=timestamp(state.resumed_at),
        resumed_by=state.resumed_by,
        resume_reason=state.resume_reason,
        api=state.api,
        breaker=pb.BREAKER_STATE_OPEN if state.broken_since is not None else pb.BREAKER_STATE_CLOSED,
        breaker_open_time=timestamp(state.broken_since),
        breaker_error=state.api_error,
        hold_end_time=timestamp(state.held_until),
        next_probe_time=timestamp(state.probe_at),
    )


def workflow_message(view: WorkflowView) -> pb.Workflow:
    """A workflow as it stands."""
    return pb.Workflow(
        resource=view.workflow.resource,
        statuses=_statuses(view.workflow.curation),
        limits=_limits(view.workflow.limits),
        state=state_message(view.state),
        queued_count=view.counts.ready + view.counts.delayed,
        delayed_count=view.counts.delayed,
        in_flight_count=view.counts.in_flight,
    )


def worker_message(view: WorkerView) -> pb.Worker:
    """A worker."""
    session = view.session
    return pb.Worker(
        worker_id=id_text(session.id),
        host=session.host,
        version=session.version,
        state=WORKER_STATES[session.state],
        start_time=timestamp(session.started_at),
        beat_time=timestamp(session.beat_at),
        end_time=timestamp(session.ended_at),
        in_flight_count=session.in_flight,
        done_count=session.done,
        failed_count=session.failed,
        workflows=map(state_message, view.states),
    )


def _statuses(curation: Curation) -> list[pb.WorkflowStatus]:
    return [
        pb.WorkflowStatus(
            status=status,
            next_statuses=curation.transitions[status],
            trigger=status in curation.triggers,
            initial=status == curation.initial,
        )
        for status in curation.statuses
    ]


def _limits(limits: Limits) -> pb.WorkflowLimits:
    return pb.WorkflowLimits(
        attempts_max=limits.attempts_max,
        timeout=_duration(limits.timeout_s),
        concurrency=limits.concurrency,
        concurrency_total=limits.concurrency_total,
        rate=_rate(limits.rate),
        key_concurrency=limits.key_concurrency,
        key_rate=_rate(limits.key_rate),
        breaker_failures=limits.breaker_failures,
    )


def _rate(rate: Rate | None) -> pb.Rate | None:
    return None if rate is None else pb.Rate(calls=rate.calls, period=_duration(rate.per_s))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
