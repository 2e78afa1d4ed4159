"""Reads messages into typed, frozen commands; every check of a field is here or in what this calls.

A command that exists is right as far as can be said without the database.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TypeAlias

from sqlalchemy import ColumnElement

from curation.v1 import curation_pb2 as pb
from curation_service.fields import ItemTable, item_table
from curation_service.filters import compile_filter
from curation_service.kinds import UUID_KIND, kind_of
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


@dataclass(frozen=True, slots=True)
class Keys:
    """Items named one by one."""

    keys: Sequence[ItemKey]
    versions: Sequence[int | None] | None
    """Their expected versions, in the same order; None when none is expected of any."""


@dataclass(frozen=True, slots=True)
class Matching:
    """All items that match."""

    condition: ColumnElement[bool]


Selection: TypeAlias = Keys | Matching


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchUpdate:
    """A status to be set on many items."""

    workflow: Workflow
    selection: Selection
    status: str
    request_id: uuid.UUID | None
    digest: bytes
    """Of the request without its request_id: what tells a repetition from another request under the same id."""
    allow_partial: bool
    validate_only: bool
    cancel_in_flight: bool
    actor: str
    reason: str


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


def read_batch_update(request: pb.BatchUpdateStatusRequest, registry: Registry, *, items_max: int) -> BatchUpdate:
    """A `BatchUpdateStatus` request, checked.

    Raises:
        UnknownResource: no workflow has that name.
        InvalidRequest: with all that is wrong, up to a bound.
    """
    workflow, violations = read_workflow(request.resource, registry), Violations()
    statuses = workflow.curation.statuses
    if request.status not in statuses:
        problem = f"no status {request.status[:100]!r}" if request.status else "a status is required"
        violations.add("status", f"{problem}; there are {', '.join(statuses)}")
    selection = _read_selection(request, workflow, violations, items_max=items_max)
    request_id = violations.collect(partial(_read_request_id, request.request_id))
    check_text("actor", request.actor, ACTOR_LENGTH_MAX, violations)
    check_text("reason", request.reason, REASON_LENGTH_MAX, violations)
    violations.check()
    assert selection is not None, "or there would be a violation"
    return BatchUpdate(
        workflow=workflow,
        selection=selection,
        status=request.status,
        request_id=request_id,
        digest=_digest(request),
        allow_partial=request.allow_partial,
        validate_only=request.validate_only,
        cancel_in_flight=request.cancel_in_flight,
        actor=request.actor,
        reason=request.reason,
    )


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
) -> list[ItemKey]:
    """Keys from their text, none twice. `path` names the field of the n-th in a violation."""
    if len(ids) > items_max:
        violations.add(
            path(items_max), f"at most {items_max} items at once, not {len(ids)}; use a filter or several calls"
        )
        return []
    kind = kind_of(workflow.key.type)
    places: dict[ItemKey, int] = {}
    for n, text in enumerate(ids):
        try:
            if not text:
                raise ValueError("an id is required")
            if (first := places.setdefault(kind.parse(text), n)) != n:
                raise ValueError(f"the same item as {path(first)}")
        except ValueError as error:
            violations.add(path(n), str(error))
            if violations.full:
                break
    return list(places)


def _read_selection(
    request: pb.BatchUpdateStatusRequest, workflow: Workflow, violations: Violations, *, items_max: int
) -> Selection | None:
    match request.WhichOneof("selection"):
        case "ids":
            return _read_ids(request.ids.ids, None, "ids.ids[{}]", workflow, violations, items_max)
        case "items":
            entries = request.items.entries
            for n, entry in enumerate(entries):
                if entry.HasField("expected_version") and entry.expected_version < 1:
                    violations.add(f"items.entries[{n}].expected_version", "versions start at 1")
            versions = [e.expected_version if e.HasField("expected_version") else None for e in entries]
            ids = [entry.id for entry in entries]
            return _read_ids(ids, versions, "items.entries[{}].id", workflow, violations, items_max)
        case "filter" if request.filter.strip():
            condition = violations.collect(partial(compile_filter, request.filter, item_table(workflow)))
            return None if condition is None else Matching(condition)
        case "filter":
            violations.add("filter", "an empty filter would change every item; id:* says that it is meant")
        case _:
            violations.add("selection", "one of items, ids and filter is required")
    return None


def _read_ids(
    ids: Sequence[str],
    versions: Sequence[int | None] | None,
    path: str,
    workflow: Workflow,
    violations: Violations,
    items_max: int,
) -> Keys:
    if not ids:
        violations.add(path.partition("[")[0], "at least one item is required")
    keys = read_keys(ids, workflow, violations, path=path.format, items_max=items_max)
    return Keys(keys, versions if versions and any(version is not None for version in versions) else None)


def _read_request_id(text: str) -> uuid.UUID | None:
    if not text:
        return None
    try:
        parsed: uuid.UUID = UUID_KIND.parse(text)
    except ValueError as error:
        raise InvalidRequest(FieldViolation("request_id", str(error))) from None
    return parsed


def check_text(field: str, text: str, length_max: int, violations: Violations) -> None:
    """Notes what is wrong with words for the history."""
    if len(text) > length_max:
        violations.add(field, f"at most {length_max} characters, not {len(text)}")
    if "\0" in text:
        violations.add(field, "a NUL character cannot be stored")


def _digest(request: pb.BatchUpdateStatusRequest) -> bytes:
    body = pb.BatchUpdateStatusRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return sha256(body.SerializeToString(deterministic=True)).digest()
