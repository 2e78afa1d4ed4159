"""What has failed: reads the requests to list it in groups and to retry it, and lists it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_

from curation.v1 import curation_pb2 as pb
from curation_service.batch_request import BatchUpdate, Matching, Selection, read_call, read_selection
from curation_service.fields import item_table
from curation_service.kinds import BIGINT
from curation_service.messages import id_text, timestamp
from curation_service.page_tokens import read_page_token, write_page_token
from curation_service.requests import read_batch_id, read_page_size, read_workflow
from curation_service.violations import Violations
from shared.db.batches import get_batch
from shared.db.engine import Database
from shared.db.failure_groups import FailureGroup, list_failure_groups
from shared.errors import FieldViolation, InvalidRequest, UnknownFailureGroup
from shared.machine import FAILED, REQUEUE
from shared.registry import Registry
from shared.workflow import Workflow

_PLACE = (BIGINT, BIGINT)


@dataclass(frozen=True, slots=True)
class GroupsQuery:
    """A page of groups of failures, the largest first."""

    workflow: Workflow
    batch: int | None
    """Only items of this batch."""
    after: tuple[int, int] | None
    """Count and id of the last one seen."""
    page_size: int


def read_retry_failed(request: pb.RetryFailedRequest, registry: Registry, *, items_max: int) -> BatchUpdate:
    """A `RetryFailed` request, checked.

    Raises:
        InvalidRequest, UnknownResource, UnknownBatch, UnknownFailureGroup
    """
    workflow, violations = read_workflow(request.resource, registry), Violations()
    kind = request.WhichOneof("selection")
    batch = read_batch_id(request.batch_id) if kind == "batch_id" else None
    group = _read_group(request.failure_group_id) if kind == "failure_group_id" else None
    selection: Selection | None
    fields = item_table(workflow).fields
    if batch is not None:
        selection = Matching(fields["batch_id"].column == batch, "batch_id")
    elif group is not None:
        selection = Matching(fields["failure_group_id"].column == group, "failure_group_id")
    else:
        selection = read_selection(request, workflow, violations, items_max=items_max)
    named = read_call(request, violations)
    violations.check()
    assert selection is not None, "or there would be a violation"
    if isinstance(selection, Matching):
        selection = Matching(and_(item_table(workflow).has_queue_status(FAILED), selection.condition), selection.field)
    return BatchUpdate(
        workflow=workflow,
        selection=selection,
        trigger=REQUEUE,
        status="",
        cancel_in_flight=False,
        batch=batch,
        failure_group=group,
        **named,
    )


def read_list_groups(request: pb.ListFailureGroupsRequest, registry: Registry) -> GroupsQuery:
    """A `ListFailureGroups` request, checked. Raises `InvalidRequest`, `UnknownResource`, `UnknownBatch`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    batch = read_batch_id(request.batch_id) if request.batch_id else None
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    after = None
    if request.page_token:
        count, group = read_page_token(request.page_token, _query(workflow, batch), _PLACE)
        after = count, group
    return GroupsQuery(workflow, batch, after, page_size)


async def list_groups(database: Database, query: GroupsQuery) -> tuple[Sequence[FailureGroup], str]:
    """A page of groups, and the token of the next one. Raises `UnknownBatch`."""
    async with database.transaction() as connection:
        if query.batch is not None:
            await get_batch(connection, query.batch, resource=query.workflow.resource)
        found = await list_failure_groups(
            connection, query.workflow, batch=query.batch, after=query.after, limit=query.page_size + 1
        )
    page = found[: query.page_size]
    if len(found) <= query.page_size:
        return page, ""
    return page, write_page_token(_query(query.workflow, query.batch), _PLACE, (page[-1].items, page[-1].id))


def group_message(group: FailureGroup) -> pb.FailureGroup:
    """A group of failures."""
    return pb.FailureGroup(
        failure_group_id=id_text(group.id),
        upstream=group.upstream,
        kind=group.kind,
        message=group.message,
        item_count=group.items,
        sample_item_id=group.sample,
        sample_error=group.sample_error,
        first_seen_time=timestamp(group.first_seen_at),
        last_seen_time=timestamp(group.last_seen_at),
    )


def _read_group(text: str) -> int:
    if not text:
        raise InvalidRequest(FieldViolation("failure_group_id", "a group of failures is required"))
    try:
        group: int = BIGINT.parse(text)
    except ValueError:
        raise UnknownFailureGroup(text) from None
    return group


def _query(workflow: Workflow, batch: int | None) -> tuple[str, ...]:
    return ("failure groups", workflow.resource, id_text(batch))
