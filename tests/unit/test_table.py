"""The transition table says what the lifecycle promises, and no two of its rules meet."""

from __future__ import annotations

from itertools import combinations

import pytest

from shared.machine import (
    CHANGED,
    CLAIM,
    COMPLETE,
    COMPLETED,
    FAIL,
    FAILED,
    FIND_NOTHING,
    IN_FLIGHT,
    NONE,
    POSTPONE,
    PROCESSING,
    QUEUE_STATUSES,
    QUEUED,
    RELEASE,
    REQUEUE,
    RESCUE,
    RETRY,
    UNCHANGED,
    WORKER_TRIGGERS,
    curate_trigger,
)
from shared.table import CLEAR, GIVEN, KEEP, Rule, transition_table
from tests.support.parcels import PARCELS

TABLE = transition_table(PARCELS)
TRIGGERS = PARCELS.curation.triggers


def curated(source: str, queue_status: str, status: str, *, cancel: bool = False) -> Rule | None:
    """The one rule for setting a status on items of a pair, if there is one."""
    rules = TABLE.of_user(curate_trigger(status), cancel_in_flight=cancel)
    return next((rule for rule in rules if (rule.status, rule.queue_status) == (source, queue_status)), None)


def worked(trigger: str, *, exhausted: bool = False) -> Rule:
    """The one rule for what a worker does to an item of status `Scan`."""
    [rule] = [rule for rule in TABLE.of(trigger) if rule.status == "Scan" and rule.exhausted in (None, exhausted)]
    return rule


@pytest.mark.parametrize(
    ("source", "queue_status", "status", "verdict", "to_queue_status"),
    [
        ("New", NONE, "Scan", CHANGED, QUEUED),
        ("New", COMPLETED, "Scan", CHANGED, QUEUED),
        ("New", FAILED, "Scan", CHANGED, QUEUED),
        ("Scan", COMPLETED, "Scan", CHANGED, QUEUED),
        ("Scan", FAILED, "Scan", CHANGED, QUEUED),
        ("Scan", QUEUED, "Scan", UNCHANGED, QUEUED),
        ("Scan", PROCESSING, "Scan", IN_FLIGHT, PROCESSING),
        ("Scan", QUEUED, "Archived", CHANGED, NONE),
        ("Scan", PROCESSING, "Archived", IN_FLIGHT, PROCESSING),
        ("Scan", COMPLETED, "Archived", CHANGED, COMPLETED),
        ("Scan", FAILED, "Archived", CHANGED, FAILED),
        ("New", NONE, "Selected", CHANGED, NONE),
        ("Selected", COMPLETED, "Selected", UNCHANGED, COMPLETED),
    ],
)
def test_setting_a_status_does_to_the_queue_what_the_lifecycle_says(
    source: str, queue_status: str, status: str, verdict: str, to_queue_status: str
) -> None:
    rule = curated(source, queue_status, status)
    assert rule is not None
    assert (rule.verdict, rule.to_queue_status) == (verdict, to_queue_status)
    assert rule.to_status == (status if verdict == CHANGED else source)


@pytest.mark.parametrize(("status", "to_queue_status"), [("Archived", NONE), ("Scan", QUEUED)])
def test_an_item_is_taken_from_its_worker_when_the_caller_asks(status: str, to_queue_status: str) -> None:
    rule = curated("Scan", PROCESSING, status, cancel=True)
    assert rule is not None
    assert (rule.verdict, rule.to_queue_status, rule.worker) == (CHANGED, to_queue_status, CLEAR)


def test_what_is_not_declared_has_no_rule() -> None:
    assert curated("Archived", NONE, "Scan") is None
    assert curated("Scan", COMPLETED, "New") is None


def test_entering_the_queue_begins_anew_for_the_batch_that_asked() -> None:
    rule = curated("New", FAILED, "Scan")
    assert rule is not None
    assert (rule.attempts_factor, rule.attempts_step) == (0, 0)
    assert (rule.error, rule.failure, rule.result) == (CLEAR, CLEAR, CLEAR)
    assert (rule.turn, rule.run_at, rule.worker, rule.batch) == (GIVEN, CLEAR, CLEAR, GIVEN)


@pytest.mark.parametrize(("queue_status", "cancel"), [(QUEUED, False), (PROCESSING, True)])
def test_leaving_the_queue_leaves_nothing_of_it_but_an_earlier_result(queue_status: str, cancel: bool) -> None:
    rule = curated("Scan", queue_status, "Archived", cancel=cancel)
    assert rule is not None
    assert (rule.attempts_factor, rule.attempts_step) == (0, 0)
    assert {rule.error, rule.failure, rule.turn, rule.run_at, rule.worker, rule.batch} == {CLEAR}
    assert rule.result == KEEP


@pytest.mark.parametrize(
    ("trigger", "exhausted", "to_queue_status", "attempts_step", "error", "result", "run_at"),
    [
        (CLAIM, False, PROCESSING, 1, KEEP, KEEP, CLEAR),
        (COMPLETE, False, COMPLETED, 0, CLEAR, "found", KEEP),
        (FIND_NOTHING, False, COMPLETED, 0, CLEAR, "nothing_found", KEEP),
        (RETRY, False, QUEUED, 0, GIVEN, KEEP, GIVEN),
        (RETRY, True, FAILED, 0, GIVEN, KEEP, KEEP),
        (FAIL, False, FAILED, 0, GIVEN, KEEP, KEEP),
        (RELEASE, False, QUEUED, -1, KEEP, KEEP, GIVEN),
        (POSTPONE, False, QUEUED, -1, GIVEN, KEEP, GIVEN),
        (RESCUE, False, QUEUED, 0, GIVEN, KEEP, GIVEN),
        (RESCUE, True, FAILED, 0, GIVEN, KEEP, KEEP),
    ],
)
def test_a_worker_does_to_an_item_what_the_lifecycle_says(
    trigger: str,
    exhausted: bool,
    to_queue_status: str,
    attempts_step: int,
    error: str,
    result: str,
    run_at: str,
) -> None:
    rule = worked(trigger, exhausted=exhausted)
    assert (rule.verdict, rule.to_queue_status) == (CHANGED, to_queue_status)
    assert (rule.attempts_factor, rule.attempts_step) == (1, attempts_step)
    failure = CLEAR if trigger == CLAIM else error
    assert (rule.error, rule.failure, rule.result, rule.run_at) == (error, failure, result, run_at)
    assert (rule.worker, rule.turn) == ((GIVEN, CLEAR) if trigger == CLAIM else (CLEAR, KEEP))
    assert rule.batch == KEEP


@pytest.mark.parametrize(
    ("status", "queue_status", "verdict"),
    [
        ("Scan", FAILED, CHANGED),
        ("Scan", COMPLETED, UNCHANGED),
        ("Scan", PROCESSING, UNCHANGED),
        ("Archived", FAILED, None),
    ],
)
def test_only_what_has_failed_and_is_still_wanted_is_requeued(
    status: str, queue_status: str, verdict: str | None
) -> None:
    rules = {(rule.status, rule.queue_status): rule for rule in TABLE.of_user(REQUEUE)}
    rule = rules.get((status, queue_status))
    assert (rule and rule.verdict) == verdict
    if rule is not None and rule.verdict == CHANGED:
        assert (rule.to_status, rule.to_queue_status) == (status, QUEUED)
        assert (rule.attempts_factor, rule.error, rule.turn, rule.batch) == (0, CLEAR, GIVEN, GIVEN)


def test_workers_never_change_the_status_and_only_take_what_is_queued() -> None:
    for rule in TABLE.of(*WORKER_TRIGGERS):
        assert rule.to_status == rule.status
        assert rule.queue_status == (QUEUED if rule.trigger == CLAIM else PROCESSING)


def test_only_items_of_a_trigger_status_wait_or_are_under_way() -> None:
    pairs = {(rule.to_status, rule.to_queue_status) for rule in TABLE.rules}
    assert {status for status, queue_status in pairs if queue_status in (QUEUED, PROCESSING)} == TRIGGERS
    assert {queue_status for _, queue_status in pairs} == set(QUEUE_STATUSES)


def test_whatever_is_not_changed_stays_as_it_is() -> None:
    for rule in TABLE.rules:
        if rule.verdict != CHANGED:
            assert (rule.to_status, rule.to_queue_status) == (rule.status, rule.queue_status)
            assert (rule.attempts_factor, rule.attempts_step) == (1, 0)
            assert {rule.error, rule.failure, rule.result, rule.turn, rule.run_at, rule.worker, rule.batch} == {KEEP}


def test_at_most_one_rule_fits_an_item() -> None:
    def question(rule: Rule) -> tuple[object, ...]:
        return (rule.trigger, rule.cancel_in_flight, rule.status, rule.queue_status)

    for one, other in combinations(TABLE.rules, 2):
        if question(one) == question(other):
            assert {one.exhausted, other.exhausted} == {True, False}
