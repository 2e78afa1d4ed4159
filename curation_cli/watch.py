"""`curation watch`: what happens to items, line by line, until Ctrl-C or until the batch is done."""

from __future__ import annotations

from contextlib import aclosing

from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.show import print_lines, progress_line, queue_word, state_words
from curation_client.aio import CurationClient
from curation_client.watch import Part, SnapshotStart


async def watch(client: CurationClient, console: Console, *, resource: str, batch_id: str, matching: str) -> None:
    """Prints changes as they are committed; with a batch its numbers too, until it is done."""
    updates = client.watch(
        resource, batch_id=batch_id, filter=matching, skip_snapshot=not batch_id, end_when_done=bool(batch_id)
    )
    async with aclosing(updates):
        async for update in updates:
            for line in _lines(update.part):
                print_lines(console, line)


def _lines(part: Part) -> list[str]:
    match part:
        case SnapshotStart():
            return []
        case pb.ItemsSnapshot():
            return [f"{item.id}  {item.status}, {queue_word(item.queue_status)}" for item in part.items]
        case pb.SnapshotEnd():
            return [f"-- {part.item_count} items; what follows is live"]
        case pb.BatchProgress():
            return [f"-- {progress_line(part)}"]
        case pb.WorkflowState():
            return [f"-- {part.resource}: {state_words(part) or 'running'}"]
        case pb.StatusEvents():
            return [_event_line(event) for event in part.events]


def _event_line(event: pb.StatusEvent) -> str:
    if event.kind == "progress":
        return f"{event.item_id}  {event.step} ({event.fraction:.0%})"
    before = f"{event.previous_status}, {queue_word(event.previous_queue_status)}"
    after = f"{event.status}, {queue_word(event.queue_status)}"
    return f"{event.item_id}  {event.kind}: {before} -> {after}" + (f" ({event.error})" if event.error else "")
