"""`curation set` and `curation list`: what a curator does in a grid, from a shell."""

from __future__ import annotations

from contextlib import aclosing
from typing import Unpack

from google.protobuf.json_format import MessageToDict
from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.show import print_lines, print_table, queue_word, word
from curation_client.aio import CurationClient
from curation_client.requests import StatusOptions

COLUMNS_SHOWN = 4
"""How many of an item's own columns are shown."""
PAGE_SIZE = 1_000


async def set_status(
    client: CurationClient, console: Console, resource: str, status: str, **options: Unpack[StatusOptions]
) -> None:
    """Sets a status and prints what it did."""
    print_batch(console, await client.set_status(resource, status, **options))


def print_batch(console: Console, answer: pb.BatchUpdateStatusResponse | pb.RetryFailedResponse) -> None:
    """Prints what a call did, or would do."""
    batch = answer.batch
    name = f"batch {batch.batch_id}" if batch.batch_id else "nothing is changed; it would be"
    counts = f"{batch.requested_count} items, {batch.changed_count} changed, {batch.queued_count} queued"
    print_lines(console, f"{name}: {counts}")
    for count in answer.outcome_counts:
        reason = word(pb.OutcomeReason.Name(count.reason), "OUTCOME_REASON_")
        print_lines(console, f"  {count.count} left as they were: {reason}")


async def list_items(client: CurationClient, console: Console, *, resource: str, matching: str, count: int) -> None:
    """Prints items, a line each so that other commands can take them, and the counts of all that match."""
    for item in await first_items(client, pb.ListItemsRequest(resource=resource, filter=matching), count):
        print_lines(console, _item_line(item))
    counts = (await client.count_items(resource, matching)).counts
    rows = ((c.status, queue_word(c.queue_status), c.count) for c in counts)
    print_table(console, "all that match", ("status", "queue", "items"), rows)


async def first_items(client: CurationClient, request: pb.ListItemsRequest, count: int) -> list[pb.Item]:
    """So many of the items that the request matches, from as many pages as they take."""
    items: list[pb.Item] = []
    request.page_size = min(count, PAGE_SIZE)
    if count > 0:
        async with aclosing(client.items(request)) as found:
            async for item in found:
                items.append(item)
                if len(items) == count:
                    break
    return items


def _item_line(item: pb.Item) -> str:
    data = MessageToDict(item.data)
    # The columns of a message have no order: a name tells a curator most, the others come by the alphabet.
    names = sorted((name for name in data if data[name] is not None), key=lambda name: (name != "name", name))
    shown = ", ".join(str(data[name]) for name in names[:COLUMNS_SHOWN])
    line = f"{item.id}  {item.status}, {queue_word(item.queue_status)}  {shown}"
    return f"{line}  ({item.error})" if item.error else line
