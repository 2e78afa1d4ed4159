"""Builds the requests that have choices in them, the same for both clients."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypedDict, Unpack

from curation.v1 import curation_pb2 as pb


class BatchOptions(TypedDict, total=False):
    """The choices of every call that becomes a batch."""

    ids: Sequence[str]
    """Which items, by key."""
    filter: str
    """Which items, by AIP-160 filter."""
    expected_versions: Sequence[int]
    """One for each of `ids`: an item changes only if this is its version."""
    request_id: str
    """A UUID that names the call; a new one when left out, so that a repeated attempt changes nothing twice."""
    allow_partial: bool
    """Leave out items that cannot change, instead of refusing all."""
    validate_only: bool
    """Say what would happen, and change nothing."""
    actor: str
    """Who asks, for the history."""
    reason: str
    """Why, for the history."""
    priority: pb.BatchPriority
    """What share of the queue the items get."""


class StatusOptions(BatchOptions, total=False):
    """The choices of `set_status`: `ids` or `filter` is needed, the others may be left out."""

    cancel_in_flight: bool
    """Take items away from workers that have them."""


class RetryOptions(BatchOptions, total=False):
    """The choices of `retry_failed`: one of `ids`, `filter`, `batch_id` and `failure_group_id` is needed."""

    batch_id: str
    """Which items: what failed of those that this batch queued last."""
    failure_group_id: str
    """Which items: those of this group of failures."""


class WatchOptions(TypedDict, total=False):
    """The choices of `watch`: `ids`, `batch_id` or `filter`, or all of the resource."""

    ids: Sequence[str]
    """Watch these items."""
    batch_id: str
    """Watch the items of this batch."""
    filter: str
    """Watch the items that match this AIP-160 filter."""
    resume_token: str
    """Go on from here, without a snapshot."""
    skip_snapshot: bool
    """Start at now, without a snapshot."""
    end_when_done: bool
    """With a batch: end when it is done."""
    skip_progress: bool
    """Leave out the progress reports of items."""


def status_request(resource: str, status: str, **options: Unpack[StatusOptions]) -> pb.BatchUpdateStatusRequest:
    """A request for one status on many items.

    Raises:
        ValueError: both `ids` and `filter`, neither, or versions that do not match `ids`.
    """
    request = pb.BatchUpdateStatusRequest(
        resource=resource, status=status, cancel_in_flight=options.get("cancel_in_flight", False)
    )
    ids, matching = options.get("ids", ()), options.get("filter", "")
    if bool(ids) == bool(matching):
        raise ValueError("name the items by ids or by a filter, one of the two")
    _fill(request, ids, matching, options)
    return request


def retry_request(resource: str, **options: Unpack[RetryOptions]) -> pb.RetryFailedRequest:
    """A request to queue failed items again.

    Raises:
        ValueError: not one of `ids`, `filter`, `batch_id` and `failure_group_id`, or versions that do not match `ids`.
    """
    request = pb.RetryFailedRequest(resource=resource)
    ids, matching = options.get("ids", ()), options.get("filter", "")
    batch_id, group_id = options.get("batch_id", ""), options.get("failure_group_id", "")
    if sum(map(bool, (ids, matching, batch_id, group_id))) != 1:
        raise ValueError("name the items by ids, a filter, a batch or a group of failures, one of the four")
    _fill(request, ids, matching, options)
    if batch_id:
        request.batch_id = batch_id
    elif group_id:
        request.failure_group_id = group_id
    return request


def _fill(
    request: pb.BatchUpdateStatusRequest | pb.RetryFailedRequest,
    ids: Sequence[str],
    matching: str,
    options: BatchOptions,
) -> None:
    """What both have alike."""
    request.request_id = options.get("request_id") or str(uuid.uuid4())
    request.allow_partial = options.get("allow_partial", False)
    request.validate_only = options.get("validate_only", False)
    request.actor = options.get("actor", "")
    request.reason = options.get("reason", "")
    request.priority = options.get("priority", pb.BATCH_PRIORITY_UNSPECIFIED)
    if matching:
        request.filter = matching
    elif versions := options.get("expected_versions"):
        pairs = zip(ids, versions, strict=True)
        entries = (pb.ItemSelection.Entry(id=key, expected_version=version) for key, version in pairs)
        request.items.CopyFrom(pb.ItemSelection(entries=entries))
    elif ids:
        request.ids.CopyFrom(pb.ItemIds(ids=ids))


def watch_request(resource: str, **options: Unpack[WatchOptions]) -> pb.WatchStatusRequest:
    """A request for a stream.

    Raises:
        ValueError: more than one of `ids`, `batch_id` and `filter`.
    """
    if sum(bool(options.get(name)) for name in ("ids", "batch_id", "filter")) > 1:
        raise ValueError("watch ids, a batch or a filter, one of the three")
    request = pb.WatchStatusRequest(
        resource=resource,
        resume_token=options.get("resume_token", ""),
        skip_snapshot=options.get("skip_snapshot", False),
        end_when_done=options.get("end_when_done", False),
        skip_progress=options.get("skip_progress", False),
    )
    if ids := options.get("ids"):
        request.ids.CopyFrom(pb.ItemIds(ids=ids))
    elif batch_id := options.get("batch_id"):
        request.batch_id = batch_id
    elif matching := options.get("filter"):
        request.filter = matching
    return request
