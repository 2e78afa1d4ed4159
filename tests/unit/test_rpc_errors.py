"""Every error has one code and one reason, says what it is about, and fits the trailing metadata."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from curation_service.rpc_errors import CODES, DETAILS_SIZE_MAX, MESSAGE_SIZE_MAX, TEXT_LENGTH_MAX, to_status
from shared import errors
from shared.errors import FieldViolation, InvalidRequest, ItemsRefused, Outcome

EACH: list[tuple[errors.CurationError, str, dict[str, str]]] = [
    (errors.MessageUnreadable(), "INVALID_ARGUMENT", {}),
    (errors.MessageTooLarge(size=5, size_max=4), "INVALID_ARGUMENT", {"size": "5", "sizeMax": "4"}),
    (InvalidRequest(FieldViolation("ids.ids[3]", "an id is required")), "INVALID_ARGUMENT", {}),
    (errors.UnknownResource("place", ["places"]), "NOT_FOUND", {"resource": "place"}),
    (errors.UnknownItem("places", "7"), "NOT_FOUND", {"resource": "places", "id": "7"}),
    (errors.UnknownBatch("7"), "NOT_FOUND", {"batchId": "7"}),
    (errors.UnknownFailureGroup("7"), "NOT_FOUND", {"failureGroupId": "7"}),
    (errors.RequestIdReused("6f0c1c86"), "INVALID_ARGUMENT", {"requestId": "6f0c1c86"}),
    (
        ItemsRefused(status="Scan", counts={"not_found": 1}, outcomes=[Outcome("7", "not_found", None, None, None)]),
        "FAILED_PRECONDITION",
        {"status": "Scan", "notFound": "1"},
    ),
    (errors.TableRefused("places", "not on Sundays"), "FAILED_PRECONDITION", {"resource": "places"}),
    (errors.CallTooLong(60), "DEADLINE_EXCEEDED", {}),
    (errors.TokenInvalid(), "INVALID_ARGUMENT", {}),
    (errors.TokenExpired(), "OUT_OF_RANGE", {}),
    (errors.ServerStopping(), "UNAVAILABLE", {}),
    (errors.DatabaseUnavailable("the database cannot be reached"), "UNAVAILABLE", {}),
    (errors.StatementCanceled(), "DEADLINE_EXCEEDED", {}),
]
"""One of each, and the code and the fields that it has for a program."""


def info(status: Status) -> ErrorInfo:
    found = ErrorInfo()
    assert status.details[0].Unpack(found)
    return found


def named(status: Status) -> Sequence[Any]:
    """The fields or items that it names."""
    fields, items = BadRequest(), PreconditionFailure()
    for detail in status.details:
        detail.Unpack(fields) or detail.Unpack(items)
    return [*fields.field_violations, *items.violations]


@pytest.mark.parametrize(("error", "code", "fields"), EACH, ids=lambda value: type(value).__name__)
def test_an_error_has_its_code_reason_fields_and_a_message(
    error: errors.CurationError, code: str, fields: dict[str, str]
) -> None:
    status = to_status(error, method="/m")
    assert status.code == grpc.StatusCode[code].value[0]
    assert (info(status).reason, info(status).domain) == (error.reason, "curation")
    assert dict(info(status).metadata) == fields
    assert status.message.startswith(str(error) or (error.__doc__ or "").split("\n")[0])
    # Other calls would wait, or fail, as long again.
    retried = any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
    assert retried == (type(error) is errors.DatabaseUnavailable)


def test_every_error_of_the_tree_that_a_caller_can_meet_is_mapped() -> None:
    met = [*errors.CurationError.__subclasses__(), *errors.DatabaseUnavailable.__subclasses__()]
    tree = {error for error in met if error.__module__ == errors.__name__}
    assert set(CODES) == tree - {errors.ProcessError} == {type(error) for error, _, _ in EACH}


def test_wrong_fields_are_named() -> None:
    status = to_status(InvalidRequest(FieldViolation("status", "a"), FieldViolation("actor", "b")), method="/m")
    assert [(v.field, v.description) for v in named(status)] == [("status", "a"), ("actor", "b")]


def test_refused_items_are_named_with_their_pair_and_counted() -> None:
    outcomes = [
        Outcome("1", "illegal_transition", "Archived", None, 4),
        Outcome("2", "in_flight", "Scan", "processing", 5),
        Outcome("3", "not_found", None, None, None),
    ]
    counts = {"illegal_transition": 1, "in_flight": 1, "not_found": 7}
    status = to_status(ItemsRefused(status="Selected", counts=counts, outcomes=outcomes), method="/m")
    assert [(v.type, v.subject, v.description) for v in named(status)] == [
        ("ILLEGAL_TRANSITION", "1", "from Archived (not queued, version 4) to Selected"),
        ("IN_FLIGHT", "2", "from Scan (processing, version 5) to Selected"),
        ("NOT_FOUND", "3", "there is no such item"),
    ]
    assert dict(info(status).metadata) == {
        "status": "Selected",
        "illegalTransition": "1",
        "inFlight": "1",
        "notFound": "7",
        "violationsLeftOut": "6",
    }


def test_an_item_that_cannot_be_retried_is_said_not_to_go_to_the_queue() -> None:
    outcomes = [Outcome("1", "illegal_transition", "Scan", "completed", 4)]
    status = to_status(ItemsRefused(status="", counts={"illegal_transition": 1}, outcomes=outcomes), method="/m")
    assert named(status)[0].description == "from Scan (completed, version 4) to queued"


def test_dozens_of_items_are_named_in_one_answer() -> None:
    outcomes = [Outcome(str(n), "not_found", None, None, None) for n in range(60)]
    status = to_status(ItemsRefused(status="Scan", counts={"not_found": 60}, outcomes=outcomes), method="/m")
    assert [violation.subject for violation in named(status)] == [str(n) for n in range(60)]
    assert "violationsLeftOut" not in info(status).metadata


@pytest.mark.parametrize("sign", ["x", "é", "漢", "🙂"])
def test_whatever_its_size_a_status_fits_trailing_metadata_and_says_what_is_cut(sign: str) -> None:
    text = sign * 5000
    outcomes = [Outcome(text, "illegal_transition", sign * 500, "queued", 1) for _ in range(1000)]
    for error, violations in (
        (ItemsRefused(status=text, counts={"illegal_transition": 1000}, outcomes=outcomes), 1000),
        (InvalidRequest(*(FieldViolation(text, text) for _ in range(20))), 20),
        (errors.UnknownResource(text, [text]), 0),
        (errors.UnknownItem(text, text), 0),
        (errors.UnknownBatch(text), 0),
        (errors.UnknownFailureGroup(text), 0),
    ):
        status = to_status(error, method="/m")
        assert status.ByteSize() <= DETAILS_SIZE_MAX
        assert MESSAGE_SIZE_MAX / 2 < len(quote(status.message)) <= MESSAGE_SIZE_MAX
        assert status.message.endswith("…")
        assert max(map(len, info(status).metadata.values()), default=0) <= TEXT_LENGTH_MAX
        if violations:
            assert status.ByteSize() > DETAILS_SIZE_MAX / 2, "there was room for more"
            assert int(info(status).metadata["violationsLeftOut"]) == violations - len(named(status))
            assert all(violation.description.endswith("…") for violation in named(status))


def test_an_unavailable_database_says_when_to_try_again() -> None:
    status = to_status(errors.DatabaseUnavailable("gone"), method="/m")
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


def test_an_unexpected_error_is_told_by_a_reference_and_logged_with_its_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the password is s3cret")

    try:
        fail()
    except ZeroDivisionError as error:
        status = to_status(error, method="/curation.v1.CurationService/GetItem")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert b"s3cret" not in status.SerializeToString()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    reference = info(status).metadata["reference"]
    assert reference in record.getMessage()
    assert reference in status.message
    assert "GetItem" in record.getMessage()


def test_an_error_that_ends_a_process_is_as_unexpected_to_a_caller() -> None:
    status = to_status(errors.LogRewound("behind position 7"), method="/m")
    assert (info(status).reason, "position 7" in status.message) == ("INTERNAL", False)
