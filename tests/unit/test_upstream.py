"""What a worker makes of what its attempts show of an external API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import inf

import pytest

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Lane
from enrichment_worker.upstream import TOLD_FROM, Upstream
from shared.db.api_states import ApiState
from shared.failure import Failure
from shared.outcome import AttemptOutcome, Trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.support.worker import GADGETS

FAILURES = 5
DOWN = AttemptOutcome(
    trigger="retry", error="down 7", failure=Failure("gadgets API", "HTTP 503", "down …"), is_outage=True, delay_s=0.5
)
FOUND = AttemptOutcome(trigger="complete", values={})
REFUSED = AttemptOutcome(trigger="fail", error="refused")
SLOWER = replace(DOWN, is_outage=False, hold_s=60.0)
OPEN = ApiState("gadgets API", held_s=None, is_broken=True, probe_s=0.0, failures=9)


@pytest.fixture
async def lane() -> Lane:
    """A lane whose API breaks after so many outages."""
    workflow = replace(GADGETS, limits=replace(GADGETS.limits, breaker_failures=FAILURES))
    return Lane(workflow, transition_table(workflow), ahead_max=0, upstream=Upstream(workflow.api, news=Bell()))


def item(key: int) -> Item:
    return Item(key, 1, 1, {})


def saw(lane: Lane, *outcomes: AttemptOutcome) -> list[str]:
    """How attempts that ended so are to end."""
    return [lane.saw(item(n), outcome).trigger for n, outcome in enumerate(outcomes)]


async def test_outages_in_a_row_break_it_and_those_that_follow_do_not_count(lane: Lane) -> None:
    assert saw(lane, *[DOWN] * (FAILURES + 2)) == ["retry"] * FAILURES + ["postpone"] * 2
    assert lane.bars(item(99))
    assert lane.upstream.turned_away == 2


@pytest.mark.parametrize("answer", [FOUND, REFUSED, replace(DOWN, is_outage=False)])
async def test_any_answer_begins_the_count_anew(lane: Lane, answer: AttemptOutcome) -> None:
    saw(lane, *[DOWN] * (FAILURES - 1), answer, *[DOWN] * (FAILURES - 1))
    assert not lane.bars(item(99))


async def test_while_it_is_down_an_item_waits_as_long_as_its_attempt_said(lane: Lane) -> None:
    saw(lane, *[DOWN] * FAILURES)
    outcome = lane.saw(item(99), DOWN)
    assert (outcome.trigger, outcome.error, outcome.delay_s) == ("postpone", "down 7", 0.5)


@pytest.mark.parametrize("trigger", ["release", "postpone"])
async def test_what_was_given_back_says_nothing_of_the_api(lane: Lane, trigger: Trigger) -> None:
    saw(lane, *[DOWN] * (FAILURES - 1), AttemptOutcome(trigger=trigger), DOWN)
    assert lane.bars(item(99))


async def test_outages_that_another_worker_was_answered_after_bar_nobody_for_ever(lane: Lane) -> None:
    known = replace(OPEN, is_broken=False, probe_s=None, failures=0)
    saw(lane, *[DOWN] * (FAILURES - 2))
    told = lane.upstream.take_findings().failures
    lane.upstream.told(replace(known, failures=told))
    saw(lane, *[DOWN] * 2)
    assert lane.upstream.is_broken
    # Meanwhile another worker was answered: the database counts the last two, and has no probe to end it by.
    again = lane.upstream.take_findings().failures
    lane.upstream.told(replace(known, failures=again))
    assert not lane.upstream.is_barred()


async def test_a_single_outage_is_told_to_nobody(lane: Lane) -> None:
    saw(lane, *[DOWN] * (TOLD_FROM - 1))
    assert not lane.upstream.take_findings().is_worth_telling
    saw(lane, DOWN)
    findings = lane.upstream.take_findings()
    assert (findings.failures, findings.error, findings.is_worth_telling) == (TOLD_FROM, "down 7", True)


async def test_a_single_outage_that_breaks_it_is_told_at_once() -> None:
    workflow, news = replace(GADGETS, limits=replace(GADGETS.limits, breaker_failures=1)), Bell()
    lane = Lane(workflow, transition_table(workflow), ahead_max=0, upstream=Upstream(workflow.api, news=news))
    saw(lane, DOWN)
    assert await news.wait(0)
    assert (lane.upstream.is_broken, lane.upstream.take_findings().failures) == (True, 1)


@pytest.mark.parametrize("told", [0, TOLD_FROM])
async def test_outages_count_though_the_database_does_not_know_of_them_yet(lane: Lane, told: int) -> None:
    known = replace(OPEN, is_broken=False, probe_s=None, failures=0)
    saw(lane, *[DOWN] * TOLD_FROM)
    if told:
        assert lane.upstream.take_findings().failures == told
    lane.upstream.learn(known)
    saw(lane, *[DOWN] * (FAILURES - TOLD_FROM))
    assert lane.upstream.is_broken
    lane.upstream.learn(known)
    assert lane.upstream.is_broken


async def test_an_answer_is_told_only_where_outages_were(lane: Lane) -> None:
    saw(lane, FOUND)
    assert not lane.upstream.take_findings().is_worth_telling
    lane.upstream.learn(replace(OPEN, is_broken=False, failures=2))
    saw(lane, FOUND)
    findings = lane.upstream.take_findings()
    assert (findings.answered, findings.is_worth_telling) == (True, True)


async def test_nothing_is_told_of_an_answer_once_the_database_has_forgotten_the_outages(lane: Lane) -> None:
    lane.upstream.learn(replace(OPEN, is_broken=False, failures=2))
    lane.upstream.learn(None)
    saw(lane, FOUND)
    assert not lane.upstream.take_findings().is_worth_telling


async def test_an_answer_while_outages_are_being_told_is_told_after_them(lane: Lane) -> None:
    saw(lane, *[DOWN] * TOLD_FROM)
    assert lane.upstream.take_findings().failures == TOLD_FROM
    saw(lane, FOUND)
    lane.upstream.told(replace(OPEN, is_broken=False, failures=TOLD_FROM))
    assert lane.upstream.take_findings().answered


async def test_what_could_not_be_told_is_told_again(lane: Lane) -> None:
    saw(lane, *[DOWN] * TOLD_FROM, SLOWER, *[DOWN] * TOLD_FROM)
    first = lane.upstream.take_findings()
    lane.upstream.give_back()
    assert lane.upstream.take_findings() == first
    assert (first.failures, first.held_until_s > 0) == (TOLD_FROM, True)


async def test_so_is_how_a_probe_ended(lane: Lane) -> None:
    for outcome, told in ((DOWN, ("down", False)), (FOUND, ("", True))):
        lane.upstream.learn(OPEN)
        lane.upstream.begin_probe(item(0))
        saw(lane, outcome)
        lane.upstream.take_findings()
        lane.upstream.give_back()
        findings = lane.upstream.take_findings()
        assert (findings.probe, findings.answered) == told
        lane.upstream.told(OPEN)


async def test_outages_before_an_answer_are_not_told_again_as_those_behind_it(lane: Lane) -> None:
    saw(lane, *[DOWN] * TOLD_FROM)
    lane.upstream.take_findings()
    saw(lane, FOUND)
    lane.upstream.give_back()
    saw(lane, *[DOWN] * TOLD_FROM)
    assert lane.upstream.take_findings().failures == TOLD_FROM


async def test_a_shorter_hold_does_not_end_a_longer_one(lane: Lane) -> None:
    saw(lane, replace(SLOWER, hold_s=3600.0), SLOWER)
    assert lane.upstream.held_s > 1800.0


async def test_a_hold_bars_at_once_and_though_the_database_does_not_know_of_it_yet(lane: Lane) -> None:
    saw(lane, SLOWER)
    assert (lane.bars(item(99)), lane.upstream.is_barred()) == (True, True)
    lane.upstream.learn(None)
    assert lane.bars(item(99))
    assert lane.upstream.take_findings().is_worth_telling
    lane.upstream.learn(None)
    assert lane.bars(item(99))
    lane.upstream.told(None)
    assert not lane.bars(item(99))


async def test_how_long_it_is_held_can_be_read_in_a_thread_as_numbers_are(lane: Lane) -> None:
    saw(lane, SLOWER)
    assert await asyncio.to_thread(lambda: lane.upstream.held_s) > 0


async def test_only_a_probe_may_begin_while_it_is_down_and_its_failure_does_not_count(lane: Lane) -> None:
    lane.upstream.learn(OPEN)
    lane.upstream.begin_probe(item(0))
    assert (lane.bars(item(0)), lane.bars(item(1)), lane.upstream.probe_at_s) == (False, True, inf)
    outcome = lane.saw(item(0), replace(DOWN, trigger="fail", error="down 7 (gave up after 3 attempts)", delay_s=0.0))
    assert (outcome.trigger, outcome.error, outcome.delay_s) == ("postpone", "down …", GADGETS.limits.backoff_s)
    assert lane.upstream.take_findings().probe == "down"
    assert lane.bars(item(0))


async def test_a_probe_that_was_given_back_is_told_as_such(lane: Lane) -> None:
    lane.upstream.learn(OPEN)
    lane.upstream.begin_probe(item(0))
    saw(lane, AttemptOutcome(trigger="release"))
    findings = lane.upstream.take_findings()
    assert (findings.probe, findings.is_worth_telling) == ("abandoned", True)


async def test_lanes_that_call_the_same_api_share_what_is_known_of_it(lane: Lane) -> None:
    patient = replace(lane.workflow, limits=replace(lane.workflow.limits, breaker_failures=9 * FAILURES))
    other = Lane(patient, lane.table, ahead_max=0, upstream=lane.upstream)
    saw(lane, *[DOWN] * 3)
    saw(other, *[DOWN] * 2)
    assert lane.bars(item(99))
    assert other.bars(item(99))


async def test_when_it_answers_again_the_lanes_are_rung_and_the_count_begins_anew(lane: Lane) -> None:
    saw(lane, *[DOWN] * FAILURES)
    lane.upstream.learn(OPEN)
    lane.upstream.learn(None)
    assert not lane.bars(item(99))
    await lane.work.wait(60)  # or it would take a minute
    saw(lane, *[DOWN] * (FAILURES - 1))
    assert not lane.bars(item(99))
