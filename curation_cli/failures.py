"""`curation failures`, `retry` and `why`: what went wrong, and what is in the way."""

from __future__ import annotations

from typing import Unpack

from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.curate import print_batch
from curation_cli.show import moment, print_lines, print_table, queue_word, shown, word
from curation_client.aio import CurationClient
from curation_client.requests import RetryOptions


async def print_failures(client: CurationClient, console: Console, *, resource: str, batch_id: str, count: int) -> None:
    """Prints the largest groups of failures."""
    request = pb.ListFailureGroupsRequest(resource=resource, batch_id=batch_id, page_size=count)
    page = await client.list_failure_groups(request)
    rows = (
        (
            group.failure_group_id,
            group.item_count,
            shown(f"{group.upstream}, {group.kind}: {group.message}", f"e.g. {group.sample_item_id}"),
            moment(group.last_seen_time),
        )
        for group in page.groups
    )
    columns = ("group", "items", "what", "last seen")
    print_table(console, "failures", columns, rows, with_ids=True)


async def retry(client: CurationClient, console: Console, resource: str, **options: Unpack[RetryOptions]) -> None:
    """Queues failed items again, and prints what it did."""
    print_batch(console, await client.retry_failed(resource, **options))


async def print_why(client: CurationClient, console: Console, *, resource: str, key: str) -> None:
    """Prints what stands in the way of an item, or where it is."""
    answer = await client.explain_item(resource, key)
    item = answer.item
    print_lines(console, f"{item.id}  {item.status}, {queue_word(item.queue_status)}")
    for cause in answer.causes:
        print_lines(console, f"  {cause_words(cause)}")


def cause_words(cause: pb.Cause) -> str:
    """A cause in a line: its kind, and its facts."""
    facts = []
    if cause.host or cause.worker_id:
        facts.append(f"worker {cause.worker_id} at {cause.host or 'an unknown host'}")
    if cause.HasField("since_time"):
        facts.append(f"since {moment(cause.since_time)}")
    if cause.HasField("until_time"):
        facts.append(f"until {moment(cause.until_time)}")
    if cause.step:
        facts.append(f"{cause.step} ({cause.fraction:.0%})")
    if cause.attempts_max:
        facts.append(f"attempt {cause.attempt} of {cause.attempts_max}")
    if cause.kind == pb.CAUSE_KIND_BEHIND_OTHERS:
        facts.append(f"{'more than ' if cause.ahead_count_exceeded else ''}{cause.ahead_count} before it")
    if cause.slot_count:
        facts.append(f"{cause.slot_count} at once at most")
    facts += filter(None, (cause.actor and f"by {cause.actor}", cause.reason, cause.error))
    return f"{word(pb.CauseKind.Name(cause.kind), 'CAUSE_KIND_')}: {', '.join(facts)}".rstrip(": ")
