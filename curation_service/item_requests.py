"""Reads requests for items: to list, count, find or explain them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement

from curation.v1 import curation_pb2 as pb
from curation_service.fields import ItemTable, item_table
from curation_service.filters import compile_filter
from curation_service.ordering import Order, parse_order
from curation_service.page_tokens import read_page_token
from curation_service.requests import read_keys, read_page_size, read_workflow
from curation_service.violations import Violations
from shared.registry import Registry
from shared.workflow import ItemKey, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsQuery:
    """A page of items as it was asked for; checked."""

    items: ItemTable
    condition: ColumnElement[bool]
    order: Order
    start: tuple[Any, ...] | None
    """The order's values of the last item of the page before."""
    page_size: int
    scope: tuple[str, ...]
    """What its page tokens are good for."""


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


def read_list_items(request: pb.ListItemsRequest, registry: Registry) -> ItemsQuery:
    """A `ListItems` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    items = item_table(workflow)
    condition = violations.collect(partial(compile_filter, request.filter, items))
    order = violations.collect(partial(parse_order, request.order_by, items))
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    assert condition is not None and order is not None, "or there would be a violation"  # noqa: PT018 - one cause
    scope = ("items", workflow.resource, request.filter, request.order_by)
    kinds = [column.field.kind for column in order]
    return ItemsQuery(
        items=items,
        condition=condition,
        order=order,
        start=read_page_token(request.page_token, scope, kinds, nullable=True) if request.page_token else None,
        page_size=page_size,
        scope=scope,
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
