"""Whatever a caller puts into whichever field of whichever call: an answer, or an error with details."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from curation.v1 import curation_pb2 as pb
from tests.support.service import RunningService, add_parcels, refusal

pytestmark = pytest.mark.untraced

ROUNDS = 60
FIELD_SHARE = 0.55
"""So many of a message's fields are set."""
MESSAGES_READ = 3
"""Of a stream."""
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.OUT_OF_RANGE,
}
TEXTS = (
    *("", " ", "x", "parcels", "New", "Scan", "\x00", "\n", "\u202e", "漢" * 50, "x" * 5_000, '"' * 200),
    *("-1", "0", "1", "9" * 30, "NaN", "1e400", "0x10", "00000000-0000-0000-0000-000000000001", "2026-11-25T00:00:00Z"),
    *('status = "New"', "status=", "((((", "AND", "id:*", "a.b.c = 1", "NOT " * 50 + "id:*", "(" * 150 + "id:*"),
    *("version = 99999999999999999999", "queue_status = failed", "name desc", "%", "'; DROP TABLE parcels; --"),
)
VALUES: Mapping[int, tuple[object, ...]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_INT32: (0, 1, -1, 5, 1_001, 2**31 - 1, -(2**31)),
    FieldDescriptor.TYPE_INT64: (0, 1, -1, 2**63 - 1, -(2**63)),
    FieldDescriptor.TYPE_ENUM: (0, 1, 2, 77, -1),
    FieldDescriptor.TYPE_DOUBLE: (0.0, -1.0, float("nan"), float("inf")),
}
"""Values by the type of the field."""


def any_message(kind: Descriptor, dice: random.Random) -> Message:
    """A message whose resource is there most times, and of whose fields some are set, to anything."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.name == "resource" and dice.random() < 0.8:
            setattr(message, field.name, "parcels")
        elif dice.random() < FIELD_SHARE:
            _set(message, field, dice)
    return message


def _set(message: Message, field: FieldDescriptor, dice: random.Random) -> None:
    values = [_value(field, dice) for _ in range(dice.choice((1, 1, 2, 5)) if field.is_repeated else 1)]
    if field.is_repeated:
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(values[0])
    else:
        setattr(message, field.name, values[0])


def _value(field: FieldDescriptor, dice: random.Random) -> Any:
    return any_message(field.message_type, dice) if field.message_type else dice.choice(VALUES[field.type])


async def _answered(stub: Callable[[Message], Any], request: Message, *, streams: bool) -> None:
    call = stub(request)
    if not streams:
        await call
        return
    for _ in range(MESSAGES_READ):
        if await call.read() is grpc.aio.EOF:
            return
    call.cancel()


METHODS = list(pb.DESCRIPTOR.services_by_name["CurationService"].methods)


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
async def test_any_request_is_answered_or_refused_with_details(service: RunningService, method: Any) -> None:
    await add_parcels(service.database, {}, {"status": "Scan", "scan_status": "failed", "scan_error": "x"}, {})
    dice, errors = random.Random(method.name), list[grpc.aio.AioRpcError]()
    for _ in range(ROUNDS):
        request = any_message(method.input_type, dice)
        try:
            await _answered(getattr(service.stub, method.name), request, streams=method.server_streaming)
        except grpc.aio.AioRpcError as error:
            errors.append(error)
    assert [error for error in errors if error.code() not in REFUSALS] == []
    assert [error for error in errors if not refusal(error).reason] == []
