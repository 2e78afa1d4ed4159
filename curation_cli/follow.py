"""Follows one batch to its end and keeps count of how its items ended."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic

from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.show import BatchBoard, print_table
from curation_client.aio import CurationClient

REASONS_SHOWN = 5


@dataclass(slots=True)
class Tally:
    """How a batch's items ended."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Events by kind: `complete`, `find_nothing`, `retry`, `fail` and so on."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why items failed."""
    seconds: float = 0.0
    """How long it took from the first look until the end."""

    def add(self, event: pb.StatusEvent) -> None:
        """Counts one event."""
        self.kinds[event.kind] += 1
        if event.kind == "fail":
            self.reasons[event.error] += 1


async def follow_batch(
    client: CurationClient, console: Console, *, title: str, resource: str, answer: pb.BatchUpdateStatusResponse
) -> Tally:
    """Shows a batch live until all of it has ended.

    Args:
        client: of the service.
        console: where to show it.
        title: what to call it there.
        resource: the batch's.
        answer: what the service answered to the call; its token makes the count complete.
    """
    tally, board, begun_at = Tally(), BatchBoard(console, title), monotonic()
    updates = client.watch(
        resource,
        batch_id=answer.batch.batch_id,
        resume_token=answer.resume_token,
        end_when_done=True,
        skip_progress=True,
    )
    with board.open():
        async with aclosing(updates):
            async for update in updates:
                match update.part:
                    case pb.StatusEvents() as events:
                        for event in events.events:
                            tally.add(event)
                    case pb.BatchProgress() as progress:
                        board.show(progress)
    tally.seconds = monotonic() - begun_at
    return tally


def print_summary(console: Console, *, title: str, queued: int, tally: Tally) -> None:
    """What became of a batch, in numbers and reasons."""
    found, nothing, failed = (tally.kinds[kind] for kind in ("complete", "find_nothing", "fail"))
    rows: list[tuple[object, ...]] = [
        ("queued", queued),
        ("completed", found + nothing),
        ("    found and saved", found),
        ("    nothing found", nothing),
        ("failed", failed),
        *((f"    {reason}", count) for reason, count in tally.reasons.most_common(REASONS_SHOWN)),
        ("tried again", tally.kinds["retry"]),
        ("seconds", f"{tally.seconds:.1f}"),
    ]
    print_table(console, title, ("what", "items"), rows)
