"""Lists, counts and finds items: composed reads, by SQLAlchemy Core.

A page is read by its place in the order, never by an offset, so that page 2,000 costs what page 1 does, and an item
that moves between two pages is seen at most twice and never makes another one vanish. A page of large items ends early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from curation.v1 import curation_pb2 as pb
from curation_service.fields import ItemTable, item_table
from curation_service.item_requests import ItemsQuery
from curation_service.ordering import after, order_clauses
from curation_service.page_tokens import write_page_token
from shared.db.engine import driver_connection
from shared.db.log import Entry, read_history
from shared.errors import UnknownItem
from shared.workflow import ItemKey, Workflow

PAGE_BYTES = 3 << 20
"""The most that the items of a page take, unless one alone is larger: any client takes messages of 4 MB."""


@dataclass(frozen=True, slots=True)
class Page:
    """Items, and where the next ones are."""

    items: Sequence[pb.Item]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Found:
    """An item with its history."""

    row: Mapping[str, Any]
    """By column name."""
    history: Sequence[tuple[Entry, int]]
    """Entries of the log, newest first, each with the item's place in it."""


@dataclass(frozen=True, slots=True)
class PairCount:
    """How many items are in one pair of statuses."""

    status: str
    queue_status: str | None
    count: int


async def list_items(
    connection: AsyncConnection, query: ItemsQuery, read: Callable[[Mapping[str, Any]], pb.Item]
) -> Page:
    """One page of items, which `read` makes of rows of the source table, by column name."""
    places = [column.field.column.label(f"place {n}") for n, column in enumerate(query.order)]
    found = [row._asdict() for row in await connection.execute(page_statement(query, places))]
    items = _fitting([read(row) for row in found[: query.page_size]])
    if len(items) == len(found):
        return Page(items, "")
    values = [found[len(items) - 1][place.name] for place in places]
    kinds = [column.field.kind for column in query.order]
    return Page(items, write_page_token(query.scope, kinds, values))


def page_statement(query: ItemsQuery, places: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """The rows of a page and one more, each with its places in the order.

    The places are selected besides the columns: an enum is ordered as its text, and a data column may have the name of
    a field of the item.
    """
    statement = select(query.items.source, *places).where(query.condition)
    if query.start is not None:
        statement = statement.where(after(query.order, query.start))
    return statement.order_by(*order_clauses(query.order)).limit(query.page_size + 1)


def _fitting(items: Sequence[pb.Item]) -> Sequence[pb.Item]:
    """The first of them, as many as go into a message; at least one."""
    count = sum(size <= PAGE_BYTES for size in accumulate(item.ByteSize() for item in items))
    return items[: max(count, 1)]


async def count_items(connection: AsyncConnection, items: ItemTable, condition: ColumnElement[bool]) -> list[PairCount]:
    """How many items match, by status and queue status."""
    status, queue_status = items.fields["status"].column, items.fields["queue_status"].column
    statement = (
        select(status, queue_status, func.count())
        .where(condition)
        .group_by(status, queue_status)
        .order_by(status, queue_status.nulls_first())
    )
    return [PairCount(*row) for row in await connection.execute(statement)]


async def find_item(connection: AsyncConnection, workflow: Workflow, key: ItemKey, *, history_size: int) -> Found:
    """One item with its history. Raises `UnknownItem`."""
    row = await find_row(connection, workflow, key)
    driver, last = await driver_connection(connection), row[workflow.queue.event]
    history = await read_history(driver, str(key), last=last, limit=history_size)
    return Found(row, history)


async def find_row(connection: AsyncConnection, workflow: Workflow, key: ItemKey) -> Mapping[str, Any]:
    """One item, by column name. Raises `UnknownItem`."""
    items = item_table(workflow)
    found = (await connection.execute(select(items.source).where(items.fields["id"].column == key))).one_or_none()
    if found is None:
        raise UnknownItem(workflow.resource, str(key))
    return found._asdict()
