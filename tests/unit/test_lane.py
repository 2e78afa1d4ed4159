"""What a worker holds: never more than its lane's capacity, and as much ahead as its pace asks for."""

from __future__ import annotations

from enrichment_worker.lane import Lane
from shared.table import transition_table
from shared.workflow import Item
from tests.support.worker import GADGETS

CONCURRENCY = GADGETS.limits.concurrency


def items(count: int, first: int = 0) -> list[Item]:
    return [Item(key, 1, 1, {}) for key in range(first, first + count)]


def lane(ahead_max: int = 100) -> Lane:
    return Lane(GADGETS, transition_table(GADGETS), ahead_max=ahead_max)


async def test_what_is_held_takes_room_until_it_is_settled() -> None:
    one = lane()
    assert one.room == 2 * CONCURRENCY
    one.take(items(2 * CONCURRENCY), 1, now_s=0.0)
    assert one.room == 0
    one.begin(items(1)[0])
    one.end(items(1)[0])
    assert one.room == 0
    one.settle(items(1), now_s=0.0)
    assert one.room == 1


async def test_a_claim_is_settled_with_the_last_of_its_items() -> None:
    one = lane()
    one.take(items(2), 7, now_s=0.0)
    one.take(items(1, first=2), 8, now_s=0.0)
    one.settle(items(1), now_s=0.0)
    assert one.settled == []
    one.settle(items(2, first=1), now_s=0.0)
    assert one.settled == [7, 8]


async def test_what_a_database_that_lost_commits_gives_once_more_is_held_once() -> None:
    one = lane()
    one.take(items(2), 7, now_s=0.0)
    one.lost |= set(one.held)
    one.take(items(2), 8, now_s=0.0)
    assert one.lost == set()
    one.settle(items(2), now_s=0.0)
    one.settle(items(2), now_s=0.0)
    assert (one.settled, one.held) == ([8], {})


async def test_an_item_begins_in_its_time_and_never_after_it() -> None:
    one, (late, now, later) = lane(), items(3)
    one.take([late, now, later], 1, now_s=0.0, terms=[(1.0, 2.0), (3.0, 4.0), (3.5, 4.5)])
    assert one.hand_out(0.5) == ([], 1.0)
    assert one.hand_out(3.0) == ([late], 3.5)
    assert (one.items.get_nowait(), one.items.empty()) == (now, True)


async def test_what_was_taken_back_before_its_time_never_begins() -> None:
    one, (now, later) = lane(), items(2)
    one.take([now, later], 1, now_s=0.0, terms=[(0.0, 9.0), (5.0, 9.0)])
    one.hand_out(0.0)
    assert one.take_back() == [later, now]
    assert one.hand_out(5.0) == ([], None)
    assert one.items.empty()


async def test_a_fast_lane_claims_further_ahead_up_to_its_bound() -> None:
    one = lane(ahead_max=100)
    one.take(items(1), 1, now_s=0.0)
    for step in range(100):
        batch = items(one.room, first=1000 * (step + 1))
        one.take(batch, 1, now_s=0.05 * step)
        while not one.items.empty():
            one.items.get_nowait()
        one.settle(batch, now_s=0.05 * (step + 1))
    assert one.ahead == 100


async def test_a_lane_that_waited_for_a_claim_claims_further_ahead_at_once() -> None:
    one = lane(ahead_max=100)
    before = one.ahead
    one.take(items(1), 1, now_s=0.0, more=True)
    assert one.ahead == 2 * before
    one.take(items(1, first=1), 1, now_s=0.0, more=True)
    assert one.ahead == 2 * before, "it had an item left to begin"


async def test_a_slow_lane_hoards_nothing() -> None:
    one = lane()
    one.take(items(16), 1, now_s=0.0)
    for number in range(16):
        one.settle(items(1, first=number), now_s=10.0 * (number + 1))
    assert one.ahead == 1


async def test_a_pause_does_not_count_as_slow() -> None:
    one = lane()
    before = one.ahead
    one.take(items(16), 1, now_s=3600.0)
    one.settle(items(16), now_s=3600.25)
    assert one.ahead >= before


async def test_only_the_latest_progress_of_a_running_item_is_kept() -> None:
    one, (first, second) = lane(), items(2)
    one.report(first, "before it began", 0.1)
    for item in (first, second):
        one.begin(item)
        one.report(item, "half", 0.5)
    one.report(first, "nearly", 0.9)
    one.end(second)
    one.report(second, "a thread past its time", 1.0)
    assert one.take_reports() == [(first.key, first.version, "nearly", 0.9)]
    assert one.take_reports() == []


async def test_progress_in_doubt_is_kept_until_it_is_none() -> None:
    one, (first,) = lane(), items(1)
    one.take([first], 7, now_s=0.0, in_doubt=True)
    one.begin(first)
    one.report(first, "half", 0.5)
    assert one.take_reports() == []
    one.end_doubt(frozenset())
    assert one.take_reports() == [(first.key, first.version, "half", 0.5)]


async def test_watchers_are_told_of_a_claim_once_it_is_committed() -> None:
    one, (first, second) = lane(), items(2)
    one.take([first], 7, now_s=0.0, in_doubt=True)
    assert not await one.claimed.wait(0)
    one.end_doubt({(first.key, first.version)})
    assert not await one.claimed.wait(0)
    one.take([second], 8, now_s=0.0, in_doubt=True)
    one.end_doubt(frozenset())
    assert await one.claimed.wait(0)


async def test_a_claim_that_was_not_committed_is_never_named_again() -> None:
    one, (first, second) = lane(), items(2)
    one.take([first], 7, now_s=0.0, in_doubt=True)
    one.end_doubt({(first.key, first.version)})
    one.settle([first], now_s=0.0)
    one.take([second], 7, now_s=0.0, in_doubt=True)
    one.end_doubt(frozenset())
    assert one.settled == []
    one.settle([second], now_s=0.0)
    assert one.settled == [7]


async def test_a_claim_of_which_one_item_is_known_to_be_ours_was_committed_and_is_settled() -> None:
    one, (first, second) = lane(), items(2)
    one.take([first, second], 7, now_s=0.0, in_doubt=True)
    one.end_doubt({(second.key, second.version)})  # a user took it away since
    one.settle([first, second], now_s=0.0)
    assert one.settled == [7]
