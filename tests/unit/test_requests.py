"""Every field of a request is checked, and all that is wrong is told at once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.batch_request import BatchUpdate, Keys, Matching, read_batch_update
from curation_service.item_requests import read_get_item, read_list_items
from curation_service.requests import read_batch_id
from curation_service.violations import VIOLATIONS_MAX
from shared.errors import InvalidRequest, UnknownBatch, UnknownResource
from shared.registry import Registry
from shared.workflow import ItemKey
from tests.support.parcels import PARCELS

REGISTRY = Registry(PARCELS)
ID, OTHER_ID = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


def update(**fields: Any) -> pb.BatchUpdateStatusRequest:
    """A request that is right, but for these fields."""
    right: dict[str, Any] = {"resource": "parcels", "status": "Scan"}
    if not fields.keys() & {"ids", "items", "filter"}:
        right["ids"] = pb.ItemIds(ids=[ID])
    return pb.BatchUpdateStatusRequest(**right | fields)


def entries(*pairs: tuple[str, int | None]) -> pb.ItemSelection:
    return pb.ItemSelection(entries=[pb.ItemSelection.Entry(id=i, expected_version=v) for i, v in pairs])


def named(command: BatchUpdate) -> tuple[list[ItemKey], Sequence[int | None] | None]:
    """Keys, and their versions."""
    assert isinstance(command.selection, Keys)
    return list(command.selection.keys), command.selection.versions


def violations(request: pb.BatchUpdateStatusRequest, *, items_max: int = 10) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        read_batch_update(request, REGISTRY, items_max=items_max)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_ids_become_keys_of_the_columns_type() -> None:
    command = read_batch_update(update(ids=pb.ItemIds(ids=[ID, OTHER_ID])), REGISTRY, items_max=10)
    assert named(command) == ([uuid.UUID(int=1), uuid.UUID(int=2)], None)


def test_expected_versions_stand_beside_their_keys() -> None:
    command = read_batch_update(update(items=entries((ID, 3), (OTHER_ID, None))), REGISTRY, items_max=10)
    assert named(command) == ([uuid.UUID(int=1), uuid.UUID(int=2)], [3, None])
    command = read_batch_update(update(items=entries((ID, None))), REGISTRY, items_max=10)
    assert named(command) == ([uuid.UUID(int=1)], None)


def test_a_filter_selects_what_matches() -> None:
    assert isinstance(read_batch_update(update(filter="size = 1"), REGISTRY, items_max=10).selection, Matching)


@pytest.mark.parametrize(
    ("request_", "field", "description"),
    [
        (update(resource=""), "resource", "a resource is required; there are parcels"),
        (update(status=""), "status", "a status is required; there are New, Selected, Scan, Archived"),
        (update(status="scan"), "status", "no status 'scan'; there are New, Selected, Scan, Archived"),
        (update(ids=pb.ItemIds()), "ids.ids", "at least one item is required"),
        (update(ids=pb.ItemIds(ids=[ID, ""])), "ids.ids[1]", "an id is required"),
        (update(ids=pb.ItemIds(ids=["x"])), "ids.ids[0]", "expected a UUID"),
        (update(ids=pb.ItemIds(ids=[ID + "\0"])), "ids.ids[0]", "expected a UUID"),
        (update(ids=pb.ItemIds(ids=[ID, OTHER_ID, ID])), "ids.ids[2]", "the same item as ids.ids[0]"),
        (update(ids=pb.ItemIds(ids=[ID] * 11)), "ids.ids[10]", "at most 10 items at once, not 11"),
        (update(items=entries()), "items.entries", "at least one item is required"),
        (update(items=entries((ID, 0))), "items.entries[0].expected_version", "versions start at 1"),
        (update(items=entries((ID, 1), ("", 1))), "items.entries[1].id", "an id is required"),
        (update(filter=" "), "filter", "an empty filter would change every item"),
        (update(filter="size ="), "filter", "at character 7: expected a value"),
        (
            pb.BatchUpdateStatusRequest(resource="parcels", status="Scan"),
            "selection",
            "one of items, ids, filter is required",
        ),
        (update(request_id="again"), "request_id", "expected a UUID"),
        (update(actor="a" * 201), "actor", "at most 200 characters, not 201"),
        (update(actor="\0"), "actor", "a NUL character cannot be stored"),
        (update(reason="r" * 1001), "reason", "at most 1000 characters, not 1001"),
        (update(reason="\0"), "reason", "a NUL character cannot be stored"),
    ],
)
def test_a_wrong_field_is_named(request_: pb.BatchUpdateStatusRequest, field: str, description: str) -> None:
    ((found, text),) = violations(request_)
    assert (found, text[: len(description)]) == (field, description)


def test_all_that_is_wrong_is_told_at_once() -> None:
    request = update(status="x", ids=pb.ItemIds(ids=["a", ID, "b"]), request_id="c", actor="d" * 300, reason="\0")
    fields = [field for field, _ in violations(request)]
    assert fields == ["status", "ids.ids[0]", "ids.ids[2]", "request_id", "actor", "reason"]


def test_no_more_is_told_than_somebody_reads() -> None:
    assert len(violations(update(ids=pb.ItemIds(ids=["x"] * 1000)), items_max=1000)) == VIOLATIONS_MAX


def test_an_unknown_resource_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownResource):
        read_batch_update(update(resource="parcel"), REGISTRY, items_max=10)


def test_the_digest_is_of_everything_but_the_request_id() -> None:
    def digest(**fields: Any) -> bytes:
        return read_batch_update(update(**{"request_id": ID, **fields}), REGISTRY, items_max=10).digest

    assert digest() == digest(request_id=OTHER_ID)
    others = [digest(actor="a"), digest(reason="a"), digest(allow_partial=True), digest(cancel_in_flight=True)]
    others += [digest(status="New"), digest(ids=pb.ItemIds(ids=[OTHER_ID])), digest(filter="size = 1")]
    assert len({digest(), *others}) == 1 + len(others)


def test_a_list_request_tells_all_that_is_wrong_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_list_items(pb.ListItemsRequest(resource="parcels", filter="x", order_by="y", page_size=-1), REGISTRY)
    assert [violation.field for violation in caught.value.violations] == ["filter", "order_by", "page_size"]


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (100_000, 1000)])
def test_a_page_has_its_size_within_bounds(asked: int, given: int) -> None:
    assert read_list_items(pb.ListItemsRequest(resource="parcels", page_size=asked), REGISTRY).page_size == given


@pytest.mark.parametrize(
    ("order_by", "description"),
    [
        ("nope", "no field 'nope'; there are "),
        ("size up", "expected a field, then desc or nothing, found 'size up'"),
        ("size,,id", "expected a field, then desc or nothing, found ''"),
        ("size, size desc", "names a field twice"),
        ("details", "details has no order"),
        ("x" * 1001, "longer than 1000 characters"),
        ("id,status,error,attempts,version,size,name,note,floor", "more than 8 fields"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order_by: str, description: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_list_items(pb.ListItemsRequest(resource="parcels", order_by=order_by), REGISTRY)
    (violation,) = caught.value.violations
    assert (violation.field, violation.description[: len(description)]) == ("order_by", description)


def test_one_item_is_asked_for_by_its_key() -> None:
    query = read_get_item(pb.GetItemRequest(resource="parcels", id=ID), REGISTRY)
    assert (query.key, query.history_size) == (uuid.UUID(int=1), 50)
    with pytest.raises(InvalidRequest) as caught:
        read_get_item(pb.GetItemRequest(resource="parcels", id="7", history_size=-1), REGISTRY)
    assert [violation.field for violation in caught.value.violations] == ["id", "history_size"]


@pytest.mark.parametrize("text", ["x", "-1", "9" * 19, "9" * 100, "٣", "1\0"])
def test_what_no_batch_can_be_called_is_an_unknown_batch(text: str) -> None:
    with pytest.raises(UnknownBatch):
        read_batch_id(text)


def test_a_batch_has_to_be_named() -> None:
    with pytest.raises(InvalidRequest):
        read_batch_id("")
    assert read_batch_id("12") == 12
