import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueueStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUEUE_STATUS_UNSPECIFIED: _ClassVar[QueueStatus]
    QUEUE_STATUS_NONE: _ClassVar[QueueStatus]
    QUEUE_STATUS_QUEUED: _ClassVar[QueueStatus]
    QUEUE_STATUS_PROCESSING: _ClassVar[QueueStatus]
    QUEUE_STATUS_COMPLETED: _ClassVar[QueueStatus]
    QUEUE_STATUS_FAILED: _ClassVar[QueueStatus]

class EnrichmentResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENRICHMENT_RESULT_UNSPECIFIED: _ClassVar[EnrichmentResult]
    ENRICHMENT_RESULT_FOUND: _ClassVar[EnrichmentResult]
    ENRICHMENT_RESULT_NOTHING_FOUND: _ClassVar[EnrichmentResult]

class OutcomeReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_REASON_UNSPECIFIED: _ClassVar[OutcomeReason]
    OUTCOME_REASON_UNCHANGED: _ClassVar[OutcomeReason]
    OUTCOME_REASON_NOT_FOUND: _ClassVar[OutcomeReason]
    OUTCOME_REASON_ILLEGAL_TRANSITION: _ClassVar[OutcomeReason]
    OUTCOME_REASON_IN_FLIGHT: _ClassVar[OutcomeReason]
    OUTCOME_REASON_STALE_VERSION: _ClassVar[OutcomeReason]

class BatchPriority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCH_PRIORITY_UNSPECIFIED: _ClassVar[BatchPriority]
    BATCH_PRIORITY_LOW: _ClassVar[BatchPriority]
    BATCH_PRIORITY_NORMAL: _ClassVar[BatchPriority]
    BATCH_PRIORITY_HIGH: _ClassVar[BatchPriority]

class BreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BREAKER_STATE_UNSPECIFIED: _ClassVar[BreakerState]
    BREAKER_STATE_CLOSED: _ClassVar[BreakerState]
    BREAKER_STATE_OPEN: _ClassVar[BreakerState]

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_ALIVE: _ClassVar[WorkerState]
    WORKER_STATE_SILENT: _ClassVar[WorkerState]
    WORKER_STATE_ENDED: _ClassVar[WorkerState]

class CauseKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_KIND_UNSPECIFIED: _ClassVar[CauseKind]
    CAUSE_KIND_STATUS_NO_TRIGGER: _ClassVar[CauseKind]
    CAUSE_KIND_NEVER_QUEUED: _ClassVar[CauseKind]
    CAUSE_KIND_COMPLETED: _ClassVar[CauseKind]
    CAUSE_KIND_NOTHING_FOUND: _ClassVar[CauseKind]
    CAUSE_KIND_FAILED: _ClassVar[CauseKind]
    CAUSE_KIND_RUNNING: _ClassVar[CauseKind]
    CAUSE_KIND_WORKER_LOST: _ClassVar[CauseKind]
    CAUSE_KIND_PAUSED: _ClassVar[CauseKind]
    CAUSE_KIND_DRAINING: _ClassVar[CauseKind]
    CAUSE_KIND_NO_WORKER: _ClassVar[CauseKind]
    CAUSE_KIND_BREAKER_OPEN: _ClassVar[CauseKind]
    CAUSE_KIND_API_HELD: _ClassVar[CauseKind]
    CAUSE_KIND_BACKING_OFF: _ClassVar[CauseKind]
    CAUSE_KIND_RATE_LIMITED: _ClassVar[CauseKind]
    CAUSE_KIND_NO_FREE_SLOT: _ClassVar[CauseKind]
    CAUSE_KIND_BEHIND_OTHERS: _ClassVar[CauseKind]
QUEUE_STATUS_UNSPECIFIED: QueueStatus
QUEUE_STATUS_NONE: QueueStatus
QUEUE_STATUS_QUEUED: QueueStatus
QUEUE_STATUS_PROCESSING: QueueStatus
QUEUE_STATUS_COMPLETED: QueueStatus
QUEUE_STATUS_FAILED: QueueStatus
ENRICHMENT_RESULT_UNSPECIFIED: EnrichmentResult
ENRICHMENT_RESULT_FOUND: EnrichmentResult
ENRICHMENT_RESULT_NOTHING_FOUND: EnrichmentResult
OUTCOME_REASON_UNSPECIFIED: OutcomeReason
OUTCOME_REASON_UNCHANGED: OutcomeReason
OUTCOME_REASON_NOT_FOUND: OutcomeReason
OUTCOME_REASON_ILLEGAL_TRANSITION: OutcomeReason
OUTCOME_REASON_IN_FLIGHT: OutcomeReason
OUTCOME_REASON_STALE_VERSION: OutcomeReason
BATCH_PRIORITY_UNSPECIFIED: BatchPriority
BATCH_PRIORITY_LOW: BatchPriority
BATCH_PRIORITY_NORMAL: BatchPriority
BATCH_PRIORITY_HIGH: BatchPriority
BREAKER_STATE_UNSPECIFIED: BreakerState
BREAKER_STATE_CLOSED: BreakerState
BREAKER_STATE_OPEN: BreakerState
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_ALIVE: WorkerState
WORKER_STATE_SILENT: WorkerState
WORKER_STATE_ENDED: WorkerState
CAUSE_KIND_UNSPECIFIED: CauseKind
CAUSE_KIND_STATUS_NO_TRIGGER: CauseKind
CAUSE_KIND_NEVER_QUEUED: CauseKind
CAUSE_KIND_COMPLETED: CauseKind
CAUSE_KIND_NOTHING_FOUND: CauseKind
CAUSE_KIND_FAILED: CauseKind
CAUSE_KIND_RUNNING: CauseKind
CAUSE_KIND_WORKER_LOST: CauseKind
CAUSE_KIND_PAUSED: CauseKind
CAUSE_KIND_DRAINING: CauseKind
CAUSE_KIND_NO_WORKER: CauseKind
CAUSE_KIND_BREAKER_OPEN: CauseKind
CAUSE_KIND_API_HELD: CauseKind
CAUSE_KIND_BACKING_OFF: CauseKind
CAUSE_KIND_RATE_LIMITED: CauseKind
CAUSE_KIND_NO_FREE_SLOT: CauseKind
CAUSE_KIND_BEHIND_OTHERS: CauseKind

class Item(_message.Message):
    __slots__ = ("id", "status", "queue_status", "result", "error", "attempts", "version", "batch_id", "next_attempt_time", "data", "failure_group_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    status: str
    queue_status: QueueStatus
    result: EnrichmentResult
    error: str
    attempts: int
    version: int
    batch_id: str
    next_attempt_time: _timestamp_pb2.Timestamp
    data: _struct_pb2.Struct
    failure_group_id: str
    def __init__(self, id: _Optional[str] = ..., status: _Optional[str] = ..., queue_status: _Optional[_Union[QueueStatus, str]] = ..., result: _Optional[_Union[EnrichmentResult, str]] = ..., error: _Optional[str] = ..., attempts: _Optional[int] = ..., version: _Optional[int] = ..., batch_id: _Optional[str] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., data: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., failure_group_id: _Optional[str] = ...) -> None: ...

class StatusEvent(_message.Message):
    __slots__ = ("item_id", "version", "kind", "previous_status", "status", "previous_queue_status", "queue_status", "attempt", "error", "next_attempt_time", "step", "fraction", "batch_id", "cause_batch_id", "reason", "event_time")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_QUEUE_STATUS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    version: int
    kind: str
    previous_status: str
    status: str
    previous_queue_status: QueueStatus
    queue_status: QueueStatus
    attempt: int
    error: str
    next_attempt_time: _timestamp_pb2.Timestamp
    step: str
    fraction: float
    batch_id: str
    cause_batch_id: str
    reason: str
    event_time: _timestamp_pb2.Timestamp
    def __init__(self, item_id: _Optional[str] = ..., version: _Optional[int] = ..., kind: _Optional[str] = ..., previous_status: _Optional[str] = ..., status: _Optional[str] = ..., previous_queue_status: _Optional[_Union[QueueStatus, str]] = ..., queue_status: _Optional[_Union[QueueStatus, str]] = ..., attempt: _Optional[int] = ..., error: _Optional[str] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., step: _Optional[str] = ..., fraction: _Optional[float] = ..., batch_id: _Optional[str] = ..., cause_batch_id: _Optional[str] = ..., reason: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BatchProgress(_message.Message):
    __slots__ = ("batch_id", "total", "queued", "processing", "completed", "failed", "dequeued", "rate_per_second", "expected_end_time", "done")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DEQUEUED_FIELD_NUMBER: _ClassVar[int]
    RATE_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_END_TIME_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    total: int
    queued: int
    processing: int
    completed: int
    failed: int
    dequeued: int
    rate_per_second: float
    expected_end_time: _timestamp_pb2.Timestamp
    done: bool
    def __init__(self, batch_id: _Optional[str] = ..., total: _Optional[int] = ..., queued: _Optional[int] = ..., processing: _Optional[int] = ..., completed: _Optional[int] = ..., failed: _Optional[int] = ..., dequeued: _Optional[int] = ..., rate_per_second: _Optional[float] = ..., expected_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., done: _Optional[bool] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("batch_id", "resource", "status", "actor", "reason", "create_time", "requested_count", "changed_count", "queued_count", "priority")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_COUNT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    resource: str
    status: str
    actor: str
    reason: str
    create_time: _timestamp_pb2.Timestamp
    requested_count: int
    changed_count: int
    queued_count: int
    priority: BatchPriority
    def __init__(self, batch_id: _Optional[str] = ..., resource: _Optional[str] = ..., status: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., requested_count: _Optional[int] = ..., changed_count: _Optional[int] = ..., queued_count: _Optional[int] = ..., priority: _Optional[_Union[BatchPriority, str]] = ...) -> None: ...

class OutcomeCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: OutcomeReason
    count: int
    def __init__(self, reason: _Optional[_Union[OutcomeReason, str]] = ..., count: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("item_id", "reason", "status", "queue_status", "version")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    reason: OutcomeReason
    status: str
    queue_status: QueueStatus
    version: int
    def __init__(self, item_id: _Optional[str] = ..., reason: _Optional[_Union[OutcomeReason, str]] = ..., status: _Optional[str] = ..., queue_status: _Optional[_Union[QueueStatus, str]] = ..., version: _Optional[int] = ...) -> None: ...

class ItemSelection(_message.Message):
    __slots__ = ("entries",)
    class Entry(_message.Message):
        __slots__ = ("id", "expected_version")
        ID_FIELD_NUMBER: _ClassVar[int]
        EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
        id: str
        expected_version: int
        def __init__(self, id: _Optional[str] = ..., expected_version: _Optional[int] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ItemSelection.Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[ItemSelection.Entry, _Mapping]]] = ...) -> None: ...

class BatchUpdateStatusRequest(_message.Message):
    __slots__ = ("resource", "items", "ids", "filter", "status", "request_id", "allow_partial", "validate_only", "cancel_in_flight", "actor", "reason", "priority")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    resource: str
    items: ItemSelection
    ids: ItemIds
    filter: str
    status: str
    request_id: str
    allow_partial: bool
    validate_only: bool
    cancel_in_flight: bool
    actor: str
    reason: str
    priority: BatchPriority
    def __init__(self, resource: _Optional[str] = ..., items: _Optional[_Union[ItemSelection, _Mapping]] = ..., ids: _Optional[_Union[ItemIds, _Mapping]] = ..., filter: _Optional[str] = ..., status: _Optional[str] = ..., request_id: _Optional[str] = ..., allow_partial: _Optional[bool] = ..., validate_only: _Optional[bool] = ..., cancel_in_flight: _Optional[bool] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., priority: _Optional[_Union[BatchPriority, str]] = ...) -> None: ...

class ItemIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchUpdateStatusResponse(_message.Message):
    __slots__ = ("batch", "outcomes", "outcome_counts", "next_outcomes_page_token", "resume_token", "replayed")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_COUNTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OUTCOMES_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    outcome_counts: _containers.RepeatedCompositeFieldContainer[OutcomeCount]
    next_outcomes_page_token: str
    resume_token: str
    replayed: bool
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., outcome_counts: _Optional[_Iterable[_Union[OutcomeCount, _Mapping]]] = ..., next_outcomes_page_token: _Optional[str] = ..., resume_token: _Optional[str] = ..., replayed: _Optional[bool] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("resource", "ids", "batch_id", "filter", "resume_token", "skip_snapshot", "end_when_done", "skip_progress")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SKIP_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    END_WHEN_DONE_FIELD_NUMBER: _ClassVar[int]
    SKIP_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    resource: str
    ids: ItemIds
    batch_id: str
    filter: str
    resume_token: str
    skip_snapshot: bool
    end_when_done: bool
    skip_progress: bool
    def __init__(self, resource: _Optional[str] = ..., ids: _Optional[_Union[ItemIds, _Mapping]] = ..., batch_id: _Optional[str] = ..., filter: _Optional[str] = ..., resume_token: _Optional[str] = ..., skip_snapshot: _Optional[bool] = ..., end_when_done: _Optional[bool] = ..., skip_progress: _Optional[bool] = ...) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("resume_token", "snapshot", "snapshot_end", "events", "progress", "heartbeat", "workflow")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    resume_token: str
    snapshot: ItemsSnapshot
    snapshot_end: SnapshotEnd
    events: StatusEvents
    progress: BatchProgress
    heartbeat: Heartbeat
    workflow: WorkflowState
    def __init__(self, resume_token: _Optional[str] = ..., snapshot: _Optional[_Union[ItemsSnapshot, _Mapping]] = ..., snapshot_end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., events: _Optional[_Union[StatusEvents, _Mapping]] = ..., progress: _Optional[_Union[BatchProgress, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., workflow: _Optional[_Union[WorkflowState, _Mapping]] = ...) -> None: ...

class ItemsSnapshot(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("item_count",)
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    item_count: int
    def __init__(self, item_count: _Optional[int] = ...) -> None: ...

class StatusEvents(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[StatusEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[StatusEvent, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListItemsRequest(_message.Message):
    __slots__ = ("resource", "filter", "order_by", "page_size", "page_token", "with_counts")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_COUNTS_FIELD_NUMBER: _ClassVar[int]
    resource: str
    filter: str
    order_by: str
    page_size: int
    page_token: str
    with_counts: bool
    def __init__(self, resource: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_counts: _Optional[bool] = ...) -> None: ...

class ListItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "counts")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    next_page_token: str
    counts: _containers.RepeatedCompositeFieldContainer[StatusCount]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., counts: _Optional[_Iterable[_Union[StatusCount, _Mapping]]] = ...) -> None: ...

class StatusCount(_message.Message):
    __slots__ = ("status", "queue_status", "count")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_STATUS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    status: str
    queue_status: QueueStatus
    count: int
    def __init__(self, status: _Optional[str] = ..., queue_status: _Optional[_Union[QueueStatus, str]] = ..., count: _Optional[int] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("resource", "id", "history_size")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    id: str
    history_size: int
    def __init__(self, resource: _Optional[str] = ..., id: _Optional[str] = ..., history_size: _Optional[int] = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item", "history")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    item: Item
    history: _containers.RepeatedCompositeFieldContainer[StatusEvent]
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., history: _Optional[_Iterable[_Union[StatusEvent, _Mapping]]] = ...) -> None: ...

class CountItemsRequest(_message.Message):
    __slots__ = ("resource", "filter")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    resource: str
    filter: str
    def __init__(self, resource: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class CountItemsResponse(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedCompositeFieldContainer[StatusCount]
    def __init__(self, counts: _Optional[_Iterable[_Union[StatusCount, _Mapping]]] = ...) -> None: ...

class GetBatchRequest(_message.Message):
    __slots__ = ("batch_id",)
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    def __init__(self, batch_id: _Optional[str] = ...) -> None: ...

class GetBatchResponse(_message.Message):
    __slots__ = ("batch", "progress")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    progress: BatchProgress
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., progress: _Optional[_Union[BatchProgress, _Mapping]] = ...) -> None: ...

class ListBatchesRequest(_message.Message):
    __slots__ = ("resource", "page_size", "page_token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    page_size: int
    page_token: str
    def __init__(self, resource: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBatchesResponse(_message.Message):
    __slots__ = ("batches", "next_page_token")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    next_page_token: str
    def __init__(self, batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListBatchOutcomesRequest(_message.Message):
    __slots__ = ("batch_id", "page_size", "page_token")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    page_size: int
    page_token: str
    def __init__(self, batch_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBatchOutcomesResponse(_message.Message):
    __slots__ = ("outcomes", "next_page_token")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    next_page_token: str
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WorkflowState(_message.Message):
    __slots__ = ("resource", "paused", "pause_time", "paused_by", "pause_reason", "draining", "resume_time", "resumed_by", "resume_reason", "api", "breaker", "breaker_open_time", "breaker_error", "hold_end_time", "next_probe_time")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    PAUSE_TIME_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    PAUSE_REASON_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RESUME_TIME_FIELD_NUMBER: _ClassVar[int]
    RESUMED_BY_FIELD_NUMBER: _ClassVar[int]
    RESUME_REASON_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    BREAKER_ERROR_FIELD_NUMBER: _ClassVar[int]
    HOLD_END_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_PROBE_TIME_FIELD_NUMBER: _ClassVar[int]
    resource: str
    paused: bool
    pause_time: _timestamp_pb2.Timestamp
    paused_by: str
    pause_reason: str
    draining: bool
    resume_time: _timestamp_pb2.Timestamp
    resumed_by: str
    resume_reason: str
    api: str
    breaker: BreakerState
    breaker_open_time: _timestamp_pb2.Timestamp
    breaker_error: str
    hold_end_time: _timestamp_pb2.Timestamp
    next_probe_time: _timestamp_pb2.Timestamp
    def __init__(self, resource: _Optional[str] = ..., paused: _Optional[bool] = ..., pause_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., paused_by: _Optional[str] = ..., pause_reason: _Optional[str] = ..., draining: _Optional[bool] = ..., resume_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resumed_by: _Optional[str] = ..., resume_reason: _Optional[str] = ..., api: _Optional[str] = ..., breaker: _Optional[_Union[BreakerState, str]] = ..., breaker_open_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., breaker_error: _Optional[str] = ..., hold_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_probe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WorkflowStatus(_message.Message):
    __slots__ = ("status", "next_statuses", "trigger", "initial")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STATUSES_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    status: str
    next_statuses: _containers.RepeatedScalarFieldContainer[str]
    trigger: bool
    initial: bool
    def __init__(self, status: _Optional[str] = ..., next_statuses: _Optional[_Iterable[str]] = ..., trigger: _Optional[bool] = ..., initial: _Optional[bool] = ...) -> None: ...

class Rate(_message.Message):
    __slots__ = ("calls", "period")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    calls: float
    period: _duration_pb2.Duration
    def __init__(self, calls: _Optional[float] = ..., period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WorkflowLimits(_message.Message):
    __slots__ = ("attempts_max", "timeout", "concurrency", "concurrency_total", "rate", "key_concurrency", "key_rate", "breaker_failures")
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    KEY_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    KEY_RATE_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FAILURES_FIELD_NUMBER: _ClassVar[int]
    attempts_max: int
    timeout: _duration_pb2.Duration
    concurrency: int
    concurrency_total: int
    rate: Rate
    key_concurrency: int
    key_rate: Rate
    breaker_failures: int
    def __init__(self, attempts_max: _Optional[int] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., concurrency: _Optional[int] = ..., concurrency_total: _Optional[int] = ..., rate: _Optional[_Union[Rate, _Mapping]] = ..., key_concurrency: _Optional[int] = ..., key_rate: _Optional[_Union[Rate, _Mapping]] = ..., breaker_failures: _Optional[int] = ...) -> None: ...

class Workflow(_message.Message):
    __slots__ = ("resource", "statuses", "limits", "state", "queued_count", "delayed_count", "in_flight_count")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELAYED_COUNT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_COUNT_FIELD_NUMBER: _ClassVar[int]
    resource: str
    statuses: _containers.RepeatedCompositeFieldContainer[WorkflowStatus]
    limits: WorkflowLimits
    state: WorkflowState
    queued_count: int
    delayed_count: int
    in_flight_count: int
    def __init__(self, resource: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[WorkflowStatus, _Mapping]]] = ..., limits: _Optional[_Union[WorkflowLimits, _Mapping]] = ..., state: _Optional[_Union[WorkflowState, _Mapping]] = ..., queued_count: _Optional[int] = ..., delayed_count: _Optional[int] = ..., in_flight_count: _Optional[int] = ...) -> None: ...

class GetWorkflowRequest(_message.Message):
    __slots__ = ("resource",)
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    def __init__(self, resource: _Optional[str] = ...) -> None: ...

class GetWorkflowResponse(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: Workflow
    def __init__(self, workflow: _Optional[_Union[Workflow, _Mapping]] = ...) -> None: ...

class ListWorkflowsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListWorkflowsResponse(_message.Message):
    __slots__ = ("workflows", "next_page_token")
    WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    workflows: _containers.RepeatedCompositeFieldContainer[Workflow]
    next_page_token: str
    def __init__(self, workflows: _Optional[_Iterable[_Union[Workflow, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PauseWorkflowRequest(_message.Message):
    __slots__ = ("resource", "actor", "reason")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resource: str
    actor: str
    reason: str
    def __init__(self, resource: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseWorkflowResponse(_message.Message):
    __slots__ = ("state", "changed")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    state: WorkflowState
    changed: bool
    def __init__(self, state: _Optional[_Union[WorkflowState, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class DrainWorkflowRequest(_message.Message):
    __slots__ = ("resource", "actor", "reason")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resource: str
    actor: str
    reason: str
    def __init__(self, resource: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DrainWorkflowResponse(_message.Message):
    __slots__ = ("state", "changed", "in_flight_count")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_COUNT_FIELD_NUMBER: _ClassVar[int]
    state: WorkflowState
    changed: bool
    in_flight_count: int
    def __init__(self, state: _Optional[_Union[WorkflowState, _Mapping]] = ..., changed: _Optional[bool] = ..., in_flight_count: _Optional[int] = ...) -> None: ...

class ResumeWorkflowRequest(_message.Message):
    __slots__ = ("resource", "actor", "reason")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resource: str
    actor: str
    reason: str
    def __init__(self, resource: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ResumeWorkflowResponse(_message.Message):
    __slots__ = ("state", "changed")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    state: WorkflowState
    changed: bool
    def __init__(self, state: _Optional[_Union[WorkflowState, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "host", "version", "state", "start_time", "beat_time", "end_time", "in_flight_count", "done_count", "failed_count", "workflows")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    BEAT_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DONE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    host: str
    version: str
    state: WorkerState
    start_time: _timestamp_pb2.Timestamp
    beat_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    in_flight_count: int
    done_count: int
    failed_count: int
    workflows: _containers.RepeatedCompositeFieldContainer[WorkflowState]
    def __init__(self, worker_id: _Optional[str] = ..., host: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., beat_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., in_flight_count: _Optional[int] = ..., done_count: _Optional[int] = ..., failed_count: _Optional[int] = ..., workflows: _Optional[_Iterable[_Union[WorkflowState, _Mapping]]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("resource", "with_ended", "page_size", "page_token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    WITH_ENDED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    with_ended: bool
    page_size: int
    page_token: str
    def __init__(self, resource: _Optional[str] = ..., with_ended: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers", "next_page_token")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    next_page_token: str
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RetryFailedRequest(_message.Message):
    __slots__ = ("resource", "items", "ids", "filter", "batch_id", "failure_group_id", "request_id", "allow_partial", "validate_only", "actor", "reason", "priority")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    resource: str
    items: ItemSelection
    ids: ItemIds
    filter: str
    batch_id: str
    failure_group_id: str
    request_id: str
    allow_partial: bool
    validate_only: bool
    actor: str
    reason: str
    priority: BatchPriority
    def __init__(self, resource: _Optional[str] = ..., items: _Optional[_Union[ItemSelection, _Mapping]] = ..., ids: _Optional[_Union[ItemIds, _Mapping]] = ..., filter: _Optional[str] = ..., batch_id: _Optional[str] = ..., failure_group_id: _Optional[str] = ..., request_id: _Optional[str] = ..., allow_partial: _Optional[bool] = ..., validate_only: _Optional[bool] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., priority: _Optional[_Union[BatchPriority, str]] = ...) -> None: ...

class RetryFailedResponse(_message.Message):
    __slots__ = ("batch", "outcomes", "outcome_counts", "next_outcomes_page_token", "resume_token", "replayed")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_COUNTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OUTCOMES_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    outcome_counts: _containers.RepeatedCompositeFieldContainer[OutcomeCount]
    next_outcomes_page_token: str
    resume_token: str
    replayed: bool
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., outcome_counts: _Optional[_Iterable[_Union[OutcomeCount, _Mapping]]] = ..., next_outcomes_page_token: _Optional[str] = ..., resume_token: _Optional[str] = ..., replayed: _Optional[bool] = ...) -> None: ...

class FailureGroup(_message.Message):
    __slots__ = ("failure_group_id", "upstream", "kind", "message", "item_count", "sample_item_id", "sample_error", "first_seen_time", "last_seen_time")
    FAILURE_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_ERROR_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_TIME_FIELD_NUMBER: _ClassVar[int]
    failure_group_id: str
    upstream: str
    kind: str
    message: str
    item_count: int
    sample_item_id: str
    sample_error: str
    first_seen_time: _timestamp_pb2.Timestamp
    last_seen_time: _timestamp_pb2.Timestamp
    def __init__(self, failure_group_id: _Optional[str] = ..., upstream: _Optional[str] = ..., kind: _Optional[str] = ..., message: _Optional[str] = ..., item_count: _Optional[int] = ..., sample_item_id: _Optional[str] = ..., sample_error: _Optional[str] = ..., first_seen_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_seen_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListFailureGroupsRequest(_message.Message):
    __slots__ = ("resource", "batch_id", "page_size", "page_token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    batch_id: str
    page_size: int
    page_token: str
    def __init__(self, resource: _Optional[str] = ..., batch_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFailureGroupsResponse(_message.Message):
    __slots__ = ("groups", "next_page_token")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[FailureGroup]
    next_page_token: str
    def __init__(self, groups: _Optional[_Iterable[_Union[FailureGroup, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Cause(_message.Message):
    __slots__ = ("kind", "since_time", "until_time", "actor", "reason", "error", "failure_group_id", "ahead_count", "ahead_count_exceeded", "worker_id", "host", "step", "fraction", "attempt", "attempts_max", "slot_count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILURE_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    AHEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    AHEAD_COUNT_EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: CauseKind
    since_time: _timestamp_pb2.Timestamp
    until_time: _timestamp_pb2.Timestamp
    actor: str
    reason: str
    error: str
    failure_group_id: str
    ahead_count: int
    ahead_count_exceeded: bool
    worker_id: str
    host: str
    step: str
    fraction: float
    attempt: int
    attempts_max: int
    slot_count: int
    def __init__(self, kind: _Optional[_Union[CauseKind, str]] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., error: _Optional[str] = ..., failure_group_id: _Optional[str] = ..., ahead_count: _Optional[int] = ..., ahead_count_exceeded: _Optional[bool] = ..., worker_id: _Optional[str] = ..., host: _Optional[str] = ..., step: _Optional[str] = ..., fraction: _Optional[float] = ..., attempt: _Optional[int] = ..., attempts_max: _Optional[int] = ..., slot_count: _Optional[int] = ...) -> None: ...

class ExplainItemRequest(_message.Message):
    __slots__ = ("resource", "id")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    resource: str
    id: str
    def __init__(self, resource: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class ExplainItemResponse(_message.Message):
    __slots__ = ("item", "causes")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    item: Item
    causes: _containers.RepeatedCompositeFieldContainer[Cause]
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., causes: _Optional[_Iterable[_Union[Cause, _Mapping]]] = ...) -> None: ...
