"""Turns errors into `google.rpc.Status`; the only place that knows both.

Whatever a caller did wrong has a code, a stable reason and the fields or items it is about. Whatever we did wrong has
INTERNAL and a reference under which the log keeps the trace. All of it travels in the trailing metadata of HTTP/2, of
which a client accepts 8 KB unless told otherwise; what is too long is cut, and says so.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from urllib.parse import quote

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from shared.errors import (
    CallTooLong,
    CurationError,
    DatabaseUnavailable,
    InvalidRequest,
    ItemsRefused,
    MessageTooLarge,
    MessageUnreadable,
    Outcome,
    RequestIdReused,
    ServerStopping,
    StatementCanceled,
    TableRefused,
    TokenExpired,
    TokenInvalid,
    UnknownBatch,
    UnknownFailureGroup,
    UnknownItem,
    UnknownResource,
)

log = logging.getLogger(__name__)

DOMAIN = "curation"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_AFTER_S = 1
VIOLATIONS_MAX = 100
DETAILS_SIZE_MAX = 4_800
"""Bytes of the whole status: 6,400 in base64, as `-bin` metadata travel."""
MESSAGE_SIZE_MAX = 600
"""Bytes of the message, percent-encoded, as it travels beside the status (and, not encoded, in it)."""
TEXT_LENGTH_MAX = 200
"""Characters of one description, field or id."""

# AIP-155 leaves the code for a reused request id open; the request is wrong whatever the state of the server, which
# is what tells INVALID_ARGUMENT from FAILED_PRECONDITION and ALREADY_EXISTS.
CODES: Mapping[type[CurationError], grpc.StatusCode] = {
    MessageUnreadable: grpc.StatusCode.INVALID_ARGUMENT,
    # RESOURCE_EXHAUSTED says that there are too many calls: another try may mend that, and clients try.
    MessageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownResource: grpc.StatusCode.NOT_FOUND,
    UnknownItem: grpc.StatusCode.NOT_FOUND,
    UnknownBatch: grpc.StatusCode.NOT_FOUND,
    UnknownFailureGroup: grpc.StatusCode.NOT_FOUND,
    RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    ItemsRefused: grpc.StatusCode.FAILED_PRECONDITION,
    TableRefused: grpc.StatusCode.FAILED_PRECONDITION,
    TokenInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    TokenExpired: grpc.StatusCode.OUT_OF_RANGE,
    CallTooLong: grpc.StatusCode.DEADLINE_EXCEEDED,
    # UNAVAILABLE would have clients try again, each time for as long.
    StatementCanceled: grpc.StatusCode.DEADLINE_EXCEEDED,
    ServerStopping: grpc.StatusCode.UNAVAILABLE,
    DatabaseUnavailable: grpc.StatusCode.UNAVAILABLE,
}


def to_status(error: Exception, *, method: str) -> Status:
    """What a caller is told about an error. One that is not the caller's is logged with its trace, and only there."""
    code = CODES.get(type(error)) if isinstance(error, CurationError) else None
    if code is None:
        return _internal(error, method=method)
    assert isinstance(error, CurationError)
    kept = VIOLATIONS_MAX
    while True:
        status = _status(error, code, violations_max=kept)
        if status.ByteSize() <= DETAILS_SIZE_MAX or kept == 0:
            return status
        kept = kept * 3 // 4


def trailing_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """Where clients look for the details of a status."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def _status(error: CurationError, code: grpc.StatusCode, *, violations_max: int) -> Status:
    violations, left_out = _violations(error, violations_max)
    metadata = _metadata(error)
    if left_out:
        metadata["violationsLeftOut"] = str(left_out)
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if violations is not None:
        details.append(violations)
    if type(error) is DatabaseUnavailable:
        details.append(RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)))
    text = str(error) or (type(error).__doc__ or "").partition("\n")[0]
    return Status(code=_number(code), message=_short_message(text), details=map(_packed, details))


def _violations(error: CurationError, most: int) -> tuple[Message | None, int]:
    """The detail that names fields or items, and how many of them it does not name."""
    if isinstance(error, InvalidRequest):
        fields = [
            BadRequest.FieldViolation(field=_short(v.field), description=_short(v.description))
            for v in error.violations[:most]
        ]
        return BadRequest(field_violations=fields), len(error.violations) - len(fields)
    if isinstance(error, ItemsRefused):
        items = [_item_violation(outcome, error.status) for outcome in error.outcomes[:most]]
        return PreconditionFailure(violations=items), sum(error.counts.values()) - len(items)
    return None, 0


def _item_violation(outcome: Outcome, status: str) -> PreconditionFailure.Violation:
    if outcome.status is None:
        description = "there is no such item"
    else:
        queue_status = "not queued" if outcome.queue_status in (None, "none") else outcome.queue_status
        description = f"from {outcome.status} ({queue_status}, version {outcome.version}) to {status or 'queued'}"
    return PreconditionFailure.Violation(
        type=outcome.reason.upper(), subject=_short(outcome.item), description=_short(description)
    )


def _metadata(error: CurationError) -> dict[str, str]:
    """The fields of an error for a program; keys as `google.rpc.ErrorInfo` wants them."""
    match error:
        case MessageTooLarge():
            return {"size": str(error.size), "sizeMax": str(error.size_max)}
        case UnknownResource() | TableRefused():
            return {"resource": _short(error.resource)}
        case UnknownItem():
            return {"resource": _short(error.resource), "id": _short(error.key)}
        case UnknownBatch():
            return {"batchId": _short(error.batch_id)}
        case UnknownFailureGroup():
            return {"failureGroupId": _short(error.group_id)}
        case RequestIdReused():
            return {"requestId": _short(error.request_id)}
        case ItemsRefused():
            return {"status": _short(error.status)} | {
                _camel(reason): str(count) for reason, count in error.counts.items()
            }
        case _:
            return {}


def _internal(error: Exception, *, method: str) -> Status:
    reference = uuid.uuid4().hex
    log.error("%s failed, reference %s", method, reference, exc_info=error)
    info = ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"reference": reference})
    return Status(
        code=_number(grpc.StatusCode.INTERNAL),
        message=f"an error of the service; the log has it under reference {reference}",
        details=[_packed(info)],
    )


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH_MAX else text[: TEXT_LENGTH_MAX - 1] + "…"


def _short_message(text: str) -> str:
    cut = text[:MESSAGE_SIZE_MAX]
    while len(quote(cut)) > MESSAGE_SIZE_MAX - len(quote("…")):
        cut = cut[: len(cut) * 9 // 10]
    return text if cut == text else cut + "…"


def _camel(word: str) -> str:
    first, *rest = word.split("_")
    return first + "".join(part.capitalize() for part in rest)
