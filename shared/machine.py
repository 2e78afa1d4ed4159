"""The lifecycle of an item: one `transitions` machine over the pair (status, queue_status).

The pair is two machines on one model, coupled by callbacks: entering a trigger status enqueues, leaving it while
queued dequeues, and neither is allowed while a worker has the item, unless the caller takes it away. This module is
the only place where a rule of the lifecycle is written. `shared.table` runs it on every reachable pair, and the SQL
takes what it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from transitions import EventData, Machine, MachineError

from shared.workflow import Curation

NONE, QUEUED, PROCESSING, COMPLETED, FAILED = "none", "queued", "processing", "completed", "failed"
QUEUE_STATUSES = (NONE, QUEUED, PROCESSING, COMPLETED, FAILED)

REQUEUE = "requeue"
"""What users do to items that have failed: the queue has them again, and their status stays."""
CLAIM, COMPLETE, FIND_NOTHING, RETRY, FAIL, RELEASE, POSTPONE, RESCUE = WORKER_TRIGGERS = (
    "claim",
    "complete",
    "find_nothing",
    "retry",
    "fail",
    "release",
    "postpone",
    "rescue",
)
FOUND, NOTHING_FOUND = "found", "nothing_found"
RESULTS = (FOUND, NOTHING_FOUND)

CHANGED, UNCHANGED, ILLEGAL_TRANSITION, IN_FLIGHT = "changed", "unchanged", "illegal_transition", "in_flight"


@dataclass(slots=True)
class ItemState:
    """The part of an item that the machine changes; the model that both machines share."""

    status: str
    queue_status: str = NONE
    attempts: int = 0
    error: Any = None
    failure: Any = None
    result: str | None = None
    turn: Any = None
    run_at: Any = None
    worker: Any = None
    batch: Any = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a trigger brings with it; each trigger uses what it needs."""

    later: Any = None
    """When the next attempt may start."""
    error: Any = None
    """What went wrong."""
    failure: Any = None
    """The group of failures that it belongs to."""
    turn: Any = None
    """The place in the queue."""
    worker: Any = None
    """The session that claims."""
    batch: Any = None
    """The batch that curates."""
    cancel_in_flight: bool = False
    """Whether the caller takes items away from a worker."""


def curate_trigger(status: str) -> str:
    """The name of the trigger by which users set a status."""
    return f"set {status}"


class Lifecycle:
    """The two coupled machines of one workflow."""

    def __init__(self, curation: Curation, *, attempts_max: int) -> None:
        self._curation = curation
        self._attempts_max = attempts_max
        self.status_machine = self._build_status_machine()
        self.queue_machine = self._build_queue_machine()

    def apply(self, item: ItemState, trigger: str, facts: Facts) -> str:
        """Fires a trigger at an item, changing it in place.

        Returns:
            `changed`, `unchanged`, `illegal_transition` or `in_flight`; the item changes only with the first.
        """
        machine = self.queue_machine if trigger in WORKER_TRIGGERS else self.status_machine
        before = item.version
        try:
            fired = machine.events[trigger].trigger(item, facts=facts)
        except MachineError:
            return ILLEGAL_TRANSITION
        if not fired:
            return IN_FLIGHT
        return CHANGED if item.version > before else UNCHANGED

    def _build_status_machine(self) -> Machine:
        curation = self._curation
        machine = _machine(curation.statuses, curation.initial, "status")
        for status in curation.statuses:
            trigger = curate_trigger(status)
            # Setting again what is set is no news, unless it is a trigger status on an item that has ended.
            machine.add_transition(trigger, status, None, conditions=self._has_nothing_to_do)
            if status in curation.triggers:
                machine.add_transition(
                    trigger, status, status, conditions=self._may_be_taken, after=[self._couple, self._count]
                )
            for source in curation.statuses:
                if status in curation.transitions[source] and source != status:
                    couples = source in curation.triggers or status in curation.triggers
                    free = self._may_be_taken if couples else None
                    machine.add_transition(trigger, source, status, conditions=free, after=[self._couple, self._count])
        for status in curation.statuses:
            if status in curation.triggers:
                machine.add_transition(REQUEUE, status, None, unless=self._has_failed)
                machine.add_transition(REQUEUE, status, status, after=[self._couple, self._count])
        return machine

    def _build_queue_machine(self) -> Machine:
        machine = _machine(QUEUE_STATUSES, NONE, "queue_status")
        count = self._count
        # Fired by the status machine alone; the version counts the pair, so only once.
        machine.add_transition("enqueue", [NONE, COMPLETED, FAILED], QUEUED, after=self._enter_queue)
        machine.add_transition("dequeue", QUEUED, NONE, after=self._leave_queue)
        machine.add_transition("cancel", PROCESSING, NONE, after=self._leave_queue)
        # Fired by workers.
        machine.add_transition(CLAIM, QUEUED, PROCESSING, after=[self._start, count])
        machine.add_transition(COMPLETE, PROCESSING, COMPLETED, after=[self._end, self._found, count])
        machine.add_transition(FIND_NOTHING, PROCESSING, COMPLETED, after=[self._end, self._found_nothing, count])
        machine.add_transition(FAIL, PROCESSING, FAILED, after=[self._end, self._note_error, count])
        for trigger in (RETRY, RESCUE):
            machine.add_transition(
                trigger, PROCESSING, FAILED, conditions=self._is_exhausted, after=[self._end, self._note_error, count]
            )
            machine.add_transition(trigger, PROCESSING, QUEUED, after=[self._end, self._note_error, self._wait, count])
        machine.add_transition(RELEASE, PROCESSING, QUEUED, after=[self._give_back, self._wait, count])
        machine.add_transition(
            POSTPONE, PROCESSING, QUEUED, after=[self._give_back, self._note_error, self._wait, count]
        )
        return machine

    # Conditions.

    def _has_nothing_to_do(self, event: EventData) -> bool:
        item = _item(event)
        return item.status not in self._curation.triggers or item.queue_status == QUEUED

    def _may_be_taken(self, event: EventData) -> bool:
        facts = _facts(event)
        return _item(event).queue_status != PROCESSING or facts.cancel_in_flight

    def _has_failed(self, event: EventData) -> bool:
        return _item(event).queue_status == FAILED

    def _is_exhausted(self, event: EventData) -> bool:
        return _item(event).attempts >= self._attempts_max

    # The coupling: what entering and leaving a trigger status does to the queue.

    def _couple(self, event: EventData) -> None:
        item = _item(event)
        facts = _facts(event)

        def fire(trigger: str) -> None:
            self.queue_machine.events[trigger].trigger(item, facts=facts)

        if item.queue_status == PROCESSING and facts.cancel_in_flight:
            fire("cancel")
        if item.status in self._curation.triggers:
            if item.queue_status != QUEUED:
                fire("enqueue")
        elif item.queue_status == QUEUED:
            fire("dequeue")

    # Effects on the other fields.

    def _count(self, event: EventData) -> None:
        _item(event).version += 1

    def _enter_queue(self, event: EventData) -> None:
        item, facts = _item(event), _facts(event)
        item.attempts, item.error, item.failure, item.result, item.worker = 0, None, None, None, None
        item.turn, item.run_at, item.batch = facts.turn, None, facts.batch

    def _leave_queue(self, event: EventData) -> None:
        item = _item(event)
        item.attempts, item.error, item.failure = 0, None, None
        item.turn, item.run_at, item.worker, item.batch = None, None, None, None

    def _start(self, event: EventData) -> None:
        item, facts = _item(event), _facts(event)
        item.attempts += 1
        item.worker, item.turn, item.run_at, item.failure = facts.worker, None, None, None

    def _end(self, event: EventData) -> None:
        item = _item(event)
        item.worker, item.error, item.failure = None, None, None

    def _found(self, event: EventData) -> None:
        _item(event).result = FOUND

    def _found_nothing(self, event: EventData) -> None:
        _item(event).result = NOTHING_FOUND

    def _note_error(self, event: EventData) -> None:
        item, facts = _item(event), _facts(event)
        item.error, item.failure = facts.error, facts.failure

    def _give_back(self, event: EventData) -> None:
        _item(event).worker = None
        _item(event).attempts -= 1

    def _wait(self, event: EventData) -> None:
        _item(event).run_at = _facts(event).later


def _item(event: EventData) -> ItemState:
    return cast("ItemState", event.model)


def _facts(event: EventData) -> Facts:
    return cast("Facts", event.kwargs["facts"])


def _machine(states: tuple[str, ...], initial: str, attribute: str) -> Machine:
    return Machine(
        model=None,
        states=list(states),
        initial=initial,
        model_attribute=attribute,
        auto_transitions=False,
        send_event=True,
    )
