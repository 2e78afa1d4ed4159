"""`curation workflows`, `workers`, `pause`, `drain` and `resume`: what an operator does, from a shell."""

from __future__ import annotations

from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.show import moment, print_lines, print_table, shown, state_words, word
from curation_client.aio import CurationClient

ACTOR = "command line"
PAGE_SIZE = 1_000


async def print_workflows(client: CurationClient, console: Console) -> None:
    """Prints every workflow."""
    page = await client.list_workflows(pb.ListWorkflowsRequest(page_size=PAGE_SIZE))
    rows = (
        (w.resource, w.queued_count, w.delayed_count, w.in_flight_count, state_words(w.state) or "running")
        for w in page.workflows
    )
    print_table(console, "workflows", ("resource", "queued", "of them delayed", "in flight", "state"), rows)


async def print_workers(client: CurationClient, console: Console, *, resource: str, with_ended: bool) -> None:
    """Prints workers, newest first."""
    request = pb.ListWorkersRequest(resource=resource, with_ended=with_ended, page_size=PAGE_SIZE)
    workers = (await client.list_workers(request)).workers
    columns = ("worker", "runs", "state", "in flight", "done", "failed", "serves")
    print_table(console, "workers", columns, map(_worker_row, workers), with_ids=True)


async def change_state(client: CurationClient, console: Console, *, command: str, resource: str, reason: str) -> None:
    """Pauses, drains or resumes a workflow, and prints what it is now."""
    if command == "drain":
        drained = await client.drain_workflow(resource, actor=ACTOR, reason=reason)
        _print_state(console, drained.state, changed=drained.changed)
        print_lines(console, f"  {drained.in_flight_count} items are still with workers")
        return
    call = client.pause_workflow if command == "pause" else client.resume_workflow
    answer = await call(resource, actor=ACTOR, reason=reason)
    _print_state(console, answer.state, changed=answer.changed)


def _print_state(console: Console, state: pb.WorkflowState, *, changed: bool) -> None:
    before = "" if changed else " (as it was before)"
    print_lines(console, f"{state.resource}: {state_words(state) or 'running'}{before}")


def _worker_row(worker: pb.Worker) -> tuple[object, ...]:
    last = f"ended {moment(worker.end_time)}" if worker.HasField("end_time") else f"beat {moment(worker.beat_time)}"
    return (
        worker.worker_id,
        shown(f"{worker.version} at {worker.host}", f"since {moment(worker.start_time)}"),
        shown(word(pb.WorkerState.Name(worker.state), "WORKER_STATE_"), last),
        worker.in_flight_count,
        worker.done_count,
        worker.failed_count,
        shown(*map(_served, worker.workflows)),
    )


def _served(state: pb.WorkflowState) -> str:
    words = state_words(state)
    return f"{state.resource} ({words})" if words else state.resource
