"""The snapshot that a watch starts with, and what tells which log entries it already contains."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from curation_service.fields import item_table
from curation_service.watch_request import WatchRequest
from shared.db.engine import driver_connection
from shared.db.models import status_event
from shared.workflow import Workflow

CHUNK_SIZE = 500
"""Items sent at once."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Which transactions a snapshot sees, as `pg_current_snapshot` says it."""

    oldest: int
    """All before this one."""
    next: int
    """None from this one on."""
    under_way: frozenset[int]
    """Not these in between."""
    through: int
    """No position drawn before the snapshot is above this."""

    def __contains__(self, xid: object) -> bool:
        return isinstance(xid, int) and (xid < self.oldest or (xid < self.next and xid not in self.under_way))


async def visible(connection: AsyncConnection) -> Visible:
    """What this REPEATABLE READ transaction sees; its first statement must be this one."""
    driver = await driver_connection(connection)
    row = await (await driver.execute("SELECT pg_current_snapshot()::text")).fetchone()
    drawn = await (await driver.execute("SELECT last_value FROM status_event_position")).fetchone()
    assert row is not None
    assert drawn is not None
    oldest, next_, under_way = row[0].split(":")
    return Visible(int(oldest), int(next_), frozenset(map(int, filter(None, under_way.split(",")))), drawn[0])


async def snapshot_rows(
    connection: AsyncConnection, request: WatchRequest
) -> AsyncGenerator[list[Mapping[str, Any]], None]:
    """The items that a watcher asked for, in chunks, in order of key, by a cursor on the server."""
    items = item_table(request.workflow)
    key = items.fields["id"].column
    statement = select(items.source).where(_wanted(request)).order_by(key)
    result = await connection.stream(statement.execution_options(yield_per=CHUNK_SIZE))
    async for rows in result.partitions(CHUNK_SIZE):
        yield [row._asdict() for row in rows]


async def matching(connection: AsyncConnection, request: WatchRequest, keys: set[str]) -> frozenset[str]:
    """Those of these keys whose items match the watcher's filter now."""
    items = item_table(request.workflow)
    column = items.fields["id"].column
    python_type = request.workflow.key.type.python_type
    typed = [python_type(key) for key in keys]
    condition = true() if request.condition is None else request.condition
    found = await connection.scalars(select(column).where(column.in_(typed), condition))
    return frozenset(str(key) for key in found)


def _wanted(request: WatchRequest) -> ColumnElement[bool]:
    column = item_table(request.workflow).fields["id"].column
    if request.keys is not None:
        return column.in_(request.keys)
    if request.condition is not None:
        return request.condition
    if request.batch is not None:
        return column.in_(_keys_of_batch(request.workflow, request.batch))
    return true()


def _keys_of_batch(workflow: Workflow, batch: int) -> Any:
    log = status_event.c
    item = cast(func.unnest(log["items"]), workflow.key.type)
    return select(item).where((log.batch == batch) | (log.cause == batch), log.resource == workflow.resource)
