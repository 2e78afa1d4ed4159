"""Builds the two requests that have choices in them, the same for both clients."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypedDict, Unpack

from curation.v1 import curation_pb2 as pb


class StatusOptions(TypedDict, total=False):
    """The choices of `set_status`: `ids` or `filter` is needed, the others may be left out."""

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
    cancel_in_flight: bool
    """Take items away from workers that have them."""
    actor: str
    """Who asks, for the history."""
    reason: str
    """Why, for the history."""


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
    ids, matching = options.get("ids", ()), options.get("filter", "")
    if bool(ids) == bool(matching):
        raise ValueError("name the items by ids or by a filter, one of the two")
    request = pb.BatchUpdateStatusRequest(
        resource=resource,
        status=status,
        request_id=options.get("request_id") or str(uuid.uuid4()),
        allow_partial=options.get("allow_partial", False),
        validate_only=options.get("validate_only", False),
        cancel_in_flight=options.get("cancel_in_flight", False),
        actor=options.get("actor", ""),
        reason=options.get("reason", ""),
    )
    if matching:
        request.filter = matching
    elif versions := options.get("expected_versions"):
        pairs = zip(ids, versions, strict=True)
        entries = (pb.ItemSelection.Entry(id=key, expected_version=version) for key, version in pairs)
        request.items.CopyFrom(pb.ItemSelection(entries=entries))
    else:
        request.ids.CopyFrom(pb.ItemIds(ids=ids))
    return request


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
