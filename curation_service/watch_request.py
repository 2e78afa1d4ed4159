"""Reads a `WatchStatus` request: which items, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy import ColumnElement

from curation.v1 import curation_pb2 as pb
from curation_service.fields import item_table
from curation_service.filters import compile_filter
from curation_service.requests import read_batch_id, read_keys, read_workflow
from curation_service.violations import Violations
from shared.db.log import STATE, Entry
from shared.db.token import decode_token
from shared.registry import Registry
from shared.workflow import ItemKey, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What a watcher asked for; checked."""

    workflow: Workflow
    keys: tuple[ItemKey, ...] | None
    """Only these items."""
    items: frozenset[str] | None
    """Their keys as the log has them."""
    batch: int | None
    """Only items that this batch queued or changed."""
    condition: ColumnElement[bool] | None
    """Only items that match."""
    filter: str
    """The condition as it was written."""
    event_condition: ColumnElement[bool] | None
    """The condition on items with the statuses that an event gives them: they may have others by now."""
    after: int | None
    """The position of the resume token; None without one."""
    skip_snapshot: bool
    end_when_done: bool
    skip_progress: bool

    def concerns(self, entry: Entry) -> bool:
        """Whether an entry may be of interest, for itself or an item of it; a filter is asked of the database later."""
        if entry.resource != self.workflow.resource or (self.skip_progress and entry.kind == "progress"):
            return False
        return self.batch is None or entry.kind == STATE or self.batch in entry.batches


def read_watch(request: pb.WatchStatusRequest, registry: Registry, *, log: UUID, items_max: int) -> WatchRequest:
    """The request, checked against the log of this database.

    Raises:
        InvalidRequest, UnknownResource, UnknownBatch, TokenInvalid
    """
    workflow, violations = read_workflow(request.resource, registry), Violations()
    kind = request.WhichOneof("selection")
    keys, condition, event_condition, batch = None, None, None, None
    if kind == "ids":
        if not request.ids.ids:
            violations.add("ids.ids", "at least one item is required")
        keys = tuple(read_keys(request.ids.ids, workflow, violations, path="ids.ids[{}]".format, items_max=items_max))
    elif kind == "filter" and request.filter.strip():
        compiled = partial(compile_filter, request.filter, item_table(workflow))
        condition = violations.collect(compiled)
        event_condition = compiled(by_index=False) if condition is not None else None
    elif kind == "batch_id":
        batch = read_batch_id(request.batch_id)
    if request.end_when_done and batch is None:
        violations.add("end_when_done", "only a batch is ever done: set batch_id")
    violations.check()
    return WatchRequest(
        workflow=workflow,
        keys=keys,
        items=None if keys is None else frozenset(map(str, keys)),
        batch=batch,
        condition=condition,
        filter=request.filter.strip(),
        event_condition=event_condition,
        after=decode_token(request.resume_token, log) if request.resume_token else None,
        skip_snapshot=request.skip_snapshot,
        end_when_done=request.end_when_done,
        skip_progress=request.skip_progress,
    )
