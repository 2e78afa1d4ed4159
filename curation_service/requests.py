"""Reads messages into typed, frozen commands; every check of a field is here or in what this calls.

A command that exists is right as far as can be said without the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import ColumnElement

from curation.v1 import curation_pb2 as pb
from curation_service.fields import ItemTable, item_table
from curation_service.filters import compile_filter
from curation_service.kinds import kind_of
from curation_service.listing import ItemsQuery
from curation_service.ordering import parse_order
from curation_service.page_tokens import read_page_token
from curation_service.violations import Violations
from shared.errors import FieldViolation, InvalidRequest, UnknownBatch
from shared.registry import Registry
from shared.workflow import ItemKey, Workflow

ACTOR_LENGTH_MAX = 200
REASON_LENGTH_MAX = 1_000
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000
BATCH_ID_MAX = (1 << 63) - 1
ID_LENGTH_MAX = 1_000
"""Characters of an id: each may come back in the answer, a thousand of them in one message."""


SMALL_BYTES = 4_096
"""A request of some hundred ids is read at once: a thread takes longer to ask."""
Command = TypeVar("Command")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountQuery:
    """Which items to count."""

    items: ItemTable
    condition: ColumnElement[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemQuery:
    """One item, and how much of its history."""

    workflow: Workflow
    key: ItemKey
    history_size: int


async def read_aside(read: Callable[[], Command], request: Message) -> Command:
    """In a thread where the request is large: 100,000 ids take a quarter of a second, in which no stream would move."""
    return await asyncio.to_thread(read) if request.ByteSize() > SMALL_BYTES else read()


def read_list_items(request: pb.ListItemsRequest, registry: Registry) -> ItemsQuery:
    """A `ListItems` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    items = item_table(workflow)
    condition = violations.collect(partial(compile_filter, request.filter, items))
    order = violations.collect(partial(parse_order, request.order_by, items))
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    assert condition is not None and order is not None, "or there would be a violation"  # noqa: PT018 - one cause
    query = ("items", workflow.resource, request.filter, request.order_by)
    kinds = [column.field.kind for column in order]
    return ItemsQuery(
        items=items,
        condition=condition,
        order=order,
        start=read_page_token(request.page_token, query, kinds) if request.page_token else None,
        page_size=page_size,
        query=query,
    )


def read_count_items(request: pb.CountItemsRequest, registry: Registry) -> CountQuery:
    """A `CountItems` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    items = item_table(read_workflow(request.resource, registry))
    return CountQuery(items=items, condition=compile_filter(request.filter, items))


def read_get_item(request: pb.GetItemRequest, registry: Registry) -> ItemQuery:
    """A `GetItem` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    keys = read_keys([request.id], workflow, violations, path="id".format, items_max=1)
    size = read_page_size(request.history_size, violations, field="history_size")
    violations.check()
    return ItemQuery(workflow=workflow, key=keys[0], history_size=size)


def read_explain_item(request: pb.ExplainItemRequest, registry: Registry) -> ItemQuery:
    """An `ExplainItem` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    keys = read_keys([request.id], workflow, violations, path="id".format, items_max=1)
    violations.check()
    return ItemQuery(workflow=workflow, key=keys[0], history_size=0)


def read_workflow(resource: str, registry: Registry) -> Workflow:
    """The workflow of a request. Raises `InvalidRequest` for none, `UnknownResource` for an unknown one."""
    if not resource:
        known = ", ".join(sorted(registry))
        raise InvalidRequest(FieldViolation("resource", f"a resource is required; there are {known}"))
    return registry[resource]


def read_batch_id(text: str) -> int:
    """A batch's id. Raises `InvalidRequest` for none, `UnknownBatch` for one that no batch can have."""
    if not text:
        raise InvalidRequest(FieldViolation("batch_id", "a batch is required"))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= BATCH_ID_MAX):
        raise UnknownBatch(text)
    return int(text)


def read_page_size(
    asked: int,
    violations: Violations,
    *,
    field: str = "page_size",
    default: int = PAGE_SIZE_DEFAULT,
    most: int = PAGE_SIZE_MAX,
) -> int:
    """How many to send: what was asked for, within bounds (AIP-158: more than the most is no mistake)."""
    if asked < 0:
        violations.add(field, "must not be negative")
    return min(asked or default, most)


def read_keys(
    ids: Sequence[str], workflow: Workflow, violations: Violations, *, path: Callable[[int], str], items_max: int
) -> Sequence[ItemKey]:
    """Keys from their text, none twice. `path` names the field of the n-th in a violation."""
    if len(ids) > items_max:
        violations.add(
            path(items_max), f"at most {items_max} items at once, not {len(ids)}; use a filter or several calls"
        )
        return []
    kind = kind_of(workflow.key.type)
    if (keys := kind.parse_all(ids := list(ids))) is not None:
        return keys
    places: dict[ItemKey, int] = {}
    for n, text in enumerate(ids):
        try:
            if not text:
                raise ValueError("an id is required")
            if len(text) > ID_LENGTH_MAX:
                raise ValueError(f"an id has at most {ID_LENGTH_MAX} characters, not {len(text)}")
            if (first := places.setdefault(kind.parse(text), n)) != n:
                raise ValueError(f"the same item as {path(first)}")
        except ValueError as error:
            violations.add(path(n), str(error))
            if violations.full:
                break
    return list(places)


def check_text(field: str, text: str, length_max: int, violations: Violations) -> None:
    """Notes what is wrong with words for the history."""
    if len(text) > length_max:
        violations.add(field, f"at most {length_max} characters, not {len(text)}")
    if "\0" in text:
        violations.add(field, "a NUL character cannot be stored")
