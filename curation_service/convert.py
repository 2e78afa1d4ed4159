"""Turns what the database says into messages, and the words of the enums back and forth.

JSON has one kind of number, a double: whole numbers beyond 2^53 and exact decimals go out as text, so that no digit
is lost on the way to a browser.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from curation.v1 import curation_pb2 as pb
from curation_service.batch_pages import outcomes_token
from curation_service.batch_request import WEIGHTS, BatchUpdate
from curation_service.batch_update import BatchAnswer
from shared.db.batches import Batch, Progress
from shared.db.jsonb import to_jsonb
from shared.db.log import Entry
from shared.errors import Outcome
from shared.workflow import Workflow

EXACT_MAX = 1 << 53
"""The whole numbers up to here are all doubles."""
DEPTH_MAX = 25
"""Levels of JSON in a message: each takes three or four of the hundred that protobuf reads."""

QUEUE_STATUSES: Mapping[str | None, pb.QueueStatus] = {
    None: pb.QUEUE_STATUS_NONE,
    "none": pb.QUEUE_STATUS_NONE,
    "queued": pb.QUEUE_STATUS_QUEUED,
    "processing": pb.QUEUE_STATUS_PROCESSING,
    "completed": pb.QUEUE_STATUS_COMPLETED,
    "failed": pb.QUEUE_STATUS_FAILED,
}
RESULTS: Mapping[str | None, pb.EnrichmentResult] = {
    None: pb.ENRICHMENT_RESULT_UNSPECIFIED,
    "found": pb.ENRICHMENT_RESULT_FOUND,
    "nothing_found": pb.ENRICHMENT_RESULT_NOTHING_FOUND,
}
OUTCOME_REASONS: Mapping[str, pb.OutcomeReason] = {
    "unchanged": pb.OUTCOME_REASON_UNCHANGED,
    "not_found": pb.OUTCOME_REASON_NOT_FOUND,
    "illegal_transition": pb.OUTCOME_REASON_ILLEGAL_TRANSITION,
    "in_flight": pb.OUTCOME_REASON_IN_FLIGHT,
    "stale_version": pb.OUTCOME_REASON_STALE_VERSION,
}


AnswerT = TypeVar("AnswerT", pb.BatchUpdateStatusResponse, pb.RetryFailedResponse)


def item_reader(workflow: Workflow) -> Callable[[Mapping[str, Any]], pb.Item]:
    """A function from a row of the source table, as a mapping by column name, to its message."""
    queue, key = workflow.queue, workflow.key.name
    status, version = workflow.curation.column, workflow.curation.version_column
    data_names = [column.name for column in workflow.data_columns]

    def read(row: Mapping[str, Any]) -> pb.Item:
        return pb.Item(
            id=str(row[key]),
            status=row[status],
            queue_status=QUEUE_STATUSES[row[queue.status]],
            result=RESULTS[row[queue.result]],
            error=row[queue.error] or "",
            attempts=row[queue.attempts],
            version=row[version],
            batch_id=id_text(row[queue.batch]),
            next_attempt_time=timestamp(row[queue.run_at]),
            failure_group_id=id_text(row[queue.failure]),
            data=to_struct({name: row[name] for name in data_names}),
        )

    return read


def event_message(entry: Entry, index: int) -> pb.StatusEvent:
    """One item's event out of an entry of the log."""
    message = item_part(entry, index)
    message.MergeFrom(shared_part(entry))
    return message


def item_part(entry: Entry, index: int) -> pb.StatusEvent:
    """What an event says of its item."""
    return pb.StatusEvent(
        item_id=entry.items[index],
        version=entry.versions[index],
        attempt=entry.attempts[index],
        error=entry.errors[index] if entry.errors else None,
        next_attempt_time=timestamp(entry.run_ats[index]) if entry.run_ats else None,
        step=entry.steps[index] if entry.steps else None,
        fraction=entry.fractions[index] if entry.fractions else None,
    )


def shared_part(entry: Entry) -> pb.StatusEvent:
    """What all events of an entry say alike."""
    return pb.StatusEvent(
        kind=entry.kind,
        previous_status=entry.from_status,
        status=entry.to_status,
        previous_queue_status=QUEUE_STATUSES[entry.from_queue],
        queue_status=QUEUE_STATUSES[entry.to_queue],
        batch_id=id_text(entry.batch),
        cause_batch_id=id_text(entry.cause),
        reason=entry.reason,
        event_time=timestamp(entry.at),
    )


def answer_message(class_: type[AnswerT], answer: BatchAnswer, command: BatchUpdate) -> AnswerT:
    """What a batch did, as the answer of the call that it came by; with `validate_only` it has no id."""
    batch = pb.Batch(
        resource=command.workflow.resource,
        status=command.status,
        actor=command.actor,
        reason=command.reason,
        requested_count=answer.requested,
        changed_count=answer.changed,
        queued_count=answer.queued,
        priority=_priority(command.weight),
    )
    token = ""
    if answer.batch is not None and sum(answer.counts.values()) > len(answer.outcomes):
        token = outcomes_token(answer.batch.id, len(answer.outcomes))
    return class_(
        batch=batch_message(answer.batch) if answer.batch is not None else batch,
        outcomes=map(outcome_message, answer.outcomes),
        outcome_counts=[
            pb.OutcomeCount(reason=OUTCOME_REASONS[reason], count=n) for reason, n in sorted(answer.counts.items())
        ],
        next_outcomes_page_token=token,
        resume_token=answer.resume_token,
        replayed=answer.replayed,
    )


def batch_message(batch: Batch) -> pb.Batch:
    """A batch that was carried out."""
    return pb.Batch(
        batch_id=id_text(batch.id),
        resource=batch.resource,
        status=batch.status,
        actor=batch.actor,
        reason=batch.reason,
        create_time=timestamp(batch.created_at),
        requested_count=batch.requested,
        changed_count=batch.changed,
        queued_count=batch.queued,
        priority=_priority(batch.weight),
    )


def progress_message(batch: int, progress: Progress) -> pb.BatchProgress:
    """How far a batch has come; without a rate, which takes two looks."""
    return pb.BatchProgress(
        batch_id=id_text(batch),
        total=progress.total,
        queued=progress.queued,
        processing=progress.processing,
        completed=progress.completed,
        failed=progress.failed,
        dequeued=progress.dequeued,
        done=progress.done,
    )


def outcome_message(outcome: Outcome) -> pb.Outcome:
    """An item that a batch left unchanged."""
    return pb.Outcome(
        item_id=outcome.item,
        reason=OUTCOME_REASONS[outcome.reason],
        status=outcome.status or "",
        # Where the item exists: an unknown one is in no queue status, not in NONE.
        queue_status=QUEUE_STATUSES[outcome.queue_status] if outcome.version else pb.QUEUE_STATUS_UNSPECIFIED,
        version=outcome.version or 0,
    )


def _priority(weight: float) -> pb.BatchPriority:
    return next((p for p, its_weight in WEIGHTS.items() if weight <= its_weight), pb.BATCH_PRIORITY_HIGH)


def id_text(number: int | None) -> str:
    """The id of a batch, worker or group as callers know it; empty for none."""
    return "" if number is None else str(number)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment with its time zone as a message; None for none."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def to_struct(values: Mapping[str, Any], *, depth_max: int = DEPTH_MAX) -> Struct:
    """Values by name as JSON; what is deeper than this, as its text."""
    return Struct(fields={name: _value(value, depth_max) for name, value in values.items()})


def _value(value: Any, depth_max: int) -> Value:
    match value:
        case str() if not isinstance(value, Enum):
            return Value(string_value=value)
        case None:
            return Value(null_value=NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case int() if -EXACT_MAX <= value <= EXACT_MAX:
            return Value(number_value=value)
        case float() if math.isfinite(value):
            return Value(number_value=value)
        case Mapping() | list() | tuple() | set() | frozenset() if depth_max <= 0:
            return Value(string_value=_as_json(value))
        case Mapping():
            inner = {str(name): inner for name, inner in value.items()}
            return Value(struct_value=to_struct(inner, depth_max=depth_max - 1))
        case list() | tuple() | set() | frozenset():
            return Value(list_value=ListValue(values=[_value(inner, depth_max - 1) for inner in value]))
        case _:
            return Value(string_value=_as_text(value))


def _as_json(value: Any) -> str:
    try:
        return to_jsonb(value).decode()
    except (TypeError, RecursionError):
        return "…"


def _as_text(value: Any) -> str:
    match value:
        case Enum():
            return str(value.value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return b64encode(value).decode()
        case _:
            return str(value)
