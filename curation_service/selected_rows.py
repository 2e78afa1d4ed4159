"""The rows that a snapshot reads: those that a watcher asked for, each once.

Which items a batch queued or changed, the log says. Where it has dropped how the batch began, it lacks those of which
it says nothing since. Of these the rows that are still open name their batch, and the queue's indexes and the claims
find them. What had ended is left out: to find it by its batch would take an index over all rows of every source.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from curation_service.fields import item_table
from curation_service.watch_request import WatchRequest
from shared.db.batches import read_progress
from shared.db.engine import driver_connection
from shared.db.models import status_event
from shared.machine import PROCESSING
from shared.workflow import Workflow


async def read_pages(
    connection: AsyncConnection, watch: WatchRequest, *, size: int, lacks_batch: bool
) -> AsyncGenerator[Sequence[Row[Any]]]:
    """The rows, so many at a time.

    Args:
        connection: in a transaction of one moment, REPEATABLE READ.
        watch: what was asked for.
        size: of a page, in rows.
        lacks_batch: whether the log has dropped how the batch began that was asked for.
    """
    if lacks_batch and watch.batch is not None and await _is_open(connection, watch.batch):
        statement = with_open(watch.workflow, watch.batch).execution_options(yield_per=size)
        result = await connection.stream(statement)
        try:
            async for rows in result.partitions():
                yield rows
        finally:
            await result.close()  # leaving its own context by an error or early would not
        return
    items = item_table(watch.workflow)
    key = items.fields["id"].column
    page = select(items.source).where(_wanted(watch)).order_by(key).limit(size)
    rows = (await connection.execute(page)).all()
    while rows:
        yield rows
        if len(rows) < size:
            return
        last = rows[-1]._mapping[watch.workflow.key.name]
        rows = (await connection.execute(page.where(key > last))).all()


async def _is_open(connection: AsyncConnection, batch: int) -> bool:
    return not (await read_progress(await driver_connection(connection), batch)).done


def with_open(workflow: Workflow, batch: int) -> Select[Any]:
    """The rows of a batch that the log names, and those that are open.

    It reads all that is queued: so not by pages, each of which would do so again, but by one cursor.
    """
    items, queue = item_table(workflow), workflow.queue
    key, columns = items.fields["id"].column, items.source.c
    # What waits, as the predicates of its indexes have it: each by an index of its own.
    waits = (columns[name] >= literal_column("'-infinity'") for name in (queue.turn, queue.run_at))
    are_open = (
        select(key).where(columns[queue.batch] == batch, condition).correlate(None)
        for condition in (*waits, items.has_queue_status(PROCESSING))
    )
    return select(items.source).where(key.in_(union_all(_keys_of_batch(workflow, batch), *are_open)))


def _wanted(watch: WatchRequest) -> ColumnElement[bool]:
    workflow = watch.workflow
    key = item_table(workflow).fields["id"].column
    if watch.keys is not None:
        # As one array: as parameters of their own they may be more than a statement can have.
        return key == any_(bindparam("keys", watch.keys, type_=ARRAY(workflow.key.type)))
    if watch.condition is not None:
        return watch.condition
    if watch.batch is not None:
        return key.in_(_keys_of_batch(workflow, watch.batch))
    return true()


def _keys_of_batch(workflow: Workflow, batch: int) -> Any:
    log = status_event.c
    item = cast(func.unnest(log["items"]), workflow.key.type)
    concerned = or_(log.batch == batch, log.cause == batch, log.left_batch == batch)
    return select(item).where(concerned)
