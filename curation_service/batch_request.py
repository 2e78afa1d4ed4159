"""Reads what is to be done to many items: which, what, on whose behalf; every such call becomes a batch."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement

from curation.v1 import curation_pb2 as pb
from curation_service.fields import item_table
from curation_service.filters import compile_filter
from curation_service.kinds import UUID_KIND
from curation_service.requests import check_origin, read_keys, read_workflow
from curation_service.violations import Violations
from shared.errors import FieldViolation, InvalidRequest
from shared.machine import curate_trigger
from shared.registry import Registry
from shared.workflow import ItemKey, Workflow

BatchRequest: TypeAlias = pb.BatchUpdateStatusRequest | pb.RetryFailedRequest
"""What becomes a batch."""
WEIGHTS: Mapping[pb.BatchPriority, float] = {
    pb.BATCH_PRIORITY_LOW: 0.1,
    pb.BATCH_PRIORITY_NORMAL: 1.0,
    pb.BATCH_PRIORITY_HIGH: 10.0,
}
"""How many items of a batch are claimed for each item of a batch of normal priority."""


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
    field: str = "filter"
    """The field of the request that says which."""


Selection: TypeAlias = Keys | Matching


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchUpdate:
    """Something to be done to many items."""

    workflow: Workflow
    selection: Selection
    trigger: str
    """What: `curate_trigger(status)`, or `requeue`."""
    status: str
    """The status to be set; empty for a retry."""
    request_id: uuid.UUID | None
    """None with `validate_only`: it names what was done, and the real call may follow under the same."""
    digest: bytes
    """A hash of a request that has a request_id, that field left out: it tells a repetition from another request."""
    allow_partial: bool
    validate_only: bool
    cancel_in_flight: bool
    actor: str
    reason: str
    weight: float = 1.0
    """How many of its items are claimed for each item of a batch of normal priority."""
    batch: int | None = None
    """Only items of this batch, which must exist."""
    failure_group: int | None = None
    """Only items of this group of failures, which must exist."""


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
    selection = read_selection(request, workflow, violations, items_max=items_max)
    named = read_call(request, violations)
    violations.check()
    assert selection is not None, "or there would be a violation"
    return BatchUpdate(
        workflow=workflow,
        selection=selection,
        trigger=curate_trigger(request.status),
        status=request.status,
        cancel_in_flight=request.cancel_in_flight,
        **named,
    )


def read_call(request: BatchRequest, violations: Violations) -> dict[str, Any]:
    """The part of a `BatchUpdate` that every such request has alike."""
    request_id = violations.collect(partial(_read_request_id, request.request_id))
    if request.validate_only:
        request_id = None
    check_origin(request.actor, request.reason, violations)
    priority = request.priority or pb.BATCH_PRIORITY_NORMAL
    if priority not in WEIGHTS:
        violations.add(
            "priority", f"no priority {priority}; there are {', '.join(map(pb.BatchPriority.Name, WEIGHTS))}"
        )
    return {
        "request_id": request_id,
        "digest": _digest(request) if request_id else b"",
        "allow_partial": request.allow_partial,
        "validate_only": request.validate_only,
        "actor": request.actor,
        "reason": request.reason,
        "weight": WEIGHTS.get(priority, 1.0),
    }


def read_selection(
    request: BatchRequest, workflow: Workflow, violations: Violations, *, items_max: int
) -> Selection | None:
    """Which items; None when that was noted as wrong."""
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
            ways = (field.name for field in request.DESCRIPTOR.oneofs_by_name["selection"].fields)
            violations.add("selection", f"one of {', '.join(ways)} is required")
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
    if not parsed.int:
        # What an unset UUID looks like in many languages: under it, strangers would get one another's answers.
        raise InvalidRequest(FieldViolation("request_id", "the nil UUID names no request; leave the field empty"))
    return parsed


def _digest(request: BatchRequest) -> bytes:
    body = deepcopy(request)
    body.ClearField("request_id")
    return sha256(body.DESCRIPTOR.full_name.encode() + body.SerializeToString(deterministic=True)).digest()
