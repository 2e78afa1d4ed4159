"""Turns what the database says of items, events and batches into messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from curation.v1 import curation_pb2 as pb
from curation_service.batch_pages import outcomes_token
from curation_service.batch_request import WEIGHTS, BatchUpdate
from curation_service.batch_update import BatchAnswer
from curation_service.json_values import to_struct
from curation_service.listing import PairCount
from shared.db.batches import Batch, Progress
from shared.db.log import Entry
from shared.errors import Outcome
from shared.machine import (
    COMPLETED,
    FAILED,
    FOUND,
    ILLEGAL_TRANSITION,
    IN_FLIGHT,
    NONE,
    NOTHING_FOUND,
    PROCESSING,
    QUEUED,
    UNCHANGED,
)
from shared.workflow import Workflow

QUEUE_STATUSES: Mapping[str | None, pb.QueueStatus] = {
    None: pb.QUEUE_STATUS_NONE,
    NONE: pb.QUEUE_STATUS_NONE,
    QUEUED: pb.QUEUE_STATUS_QUEUED,
    PROCESSING: pb.QUEUE_STATUS_PROCESSING,
    COMPLETED: pb.QUEUE_STATUS_COMPLETED,
    FAILED: pb.QUEUE_STATUS_FAILED,
}
RESULTS: Mapping[str | None, pb.EnrichmentResult] = {
    None: pb.ENRICHMENT_RESULT_UNSPECIFIED,
    FOUND: pb.ENRICHMENT_RESULT_FOUND,
    NOTHING_FOUND: pb.ENRICHMENT_RESULT_NOTHING_FOUND,
}
OUTCOME_REASONS: Mapping[str, pb.OutcomeReason] = {
    UNCHANGED: pb.OUTCOME_REASON_UNCHANGED,
    "not_found": pb.OUTCOME_REASON_NOT_FOUND,
    ILLEGAL_TRANSITION: pb.OUTCOME_REASON_ILLEGAL_TRANSITION,
    IN_FLIGHT: pb.OUTCOME_REASON_IN_FLIGHT,
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


def count_message(count: PairCount) -> pb.StatusCount:
    """How many items are in one pair of statuses."""
    return pb.StatusCount(status=count.status, queue_status=QUEUE_STATUSES[count.queue_status], count=count.count)


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
