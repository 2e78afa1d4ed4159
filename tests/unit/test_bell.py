"""Waits that somebody of the same process cuts short: no ring is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from functools import partial

from enrichment_worker.bell import Bell


async def test_a_ring_while_nobody_waits_ends_the_next_wait_and_no_other() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait(60)
    assert not await bell.wait(0)


async def test_a_ring_ends_the_waits_of_all() -> None:
    bell = Bell()
    waits = [asyncio.create_task(bell.wait(60)) for _ in range(3)]
    await asyncio.wait(waits, timeout=0)
    bell.ring()
    assert sorted(await asyncio.gather(*waits)) == [False, False, True], "it is told to one"


async def test_what_is_to_be_done_at_once_is_done_by_who_rings_and_once() -> None:
    bell, done = Bell(), list[str]()
    waits = [asyncio.create_task(bell.wait(60, partial(begin, done, name))) for name in ("a", "b")]
    await asyncio.wait(waits, timeout=0)
    bell.ring()
    assert done == ["a", "b"]
    bell.ring()
    await asyncio.wait(waits)
    bell.ring()
    assert done == ["a", "b"]


async def test_a_ring_after_one_that_was_dealt_with_at_once_ends_the_next_wait() -> None:
    for is_done in (True, False):
        bell = Bell()
        waiting = asyncio.create_task(bell.wait(60, partial(bool, is_done)))
        await asyncio.wait([waiting], timeout=0)
        bell.ring()
        bell.ring()
        assert await waiting
        assert await bell.wait(0) == is_done, "else the task itself deals with both"


async def test_it_is_not_done_where_the_wait_was_rung_for_before_or_ends_by_itself() -> None:
    bell, done = Bell(), list[str]()
    bell.ring()
    assert await bell.wait(60, partial(begin, done, "rung before"))
    assert not await bell.wait(0, partial(begin, done, "by itself"))
    assert not done


async def test_a_ring_in_the_turn_in_which_the_time_is_up_is_told_and_no_error() -> None:
    bell, errors = Bell(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    waiting = asyncio.create_task(bell.wait(0))
    await asyncio.wait([waiting], timeout=0)
    bell.ring()  # the timer is due, and about to run
    assert await waiting
    assert errors == []


async def test_who_is_cancelled_takes_no_ring_along() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.wait([waiting], timeout=0)
    bell.ring()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await bell.wait(60)


async def test_a_wait_that_is_rung_or_cancelled_leaves_no_timer_and_no_future() -> None:
    bell, left = Bell(), []
    for _ in range(5):
        asyncio.get_running_loop().call_soon(bell.ring)
        await bell.wait(60)
        waiting = asyncio.create_task(bell.wait(60))
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        await asyncio.wait([waiting])
        left.append(waited_for())
    assert left[-1] == left[0]


def begin(done: list[str], name: str) -> bool:
    """What is done at once, of which not all is done then."""
    done.append(name)
    return False


def waited_for() -> Counter[str]:
    """Timers that are to ring, and futures."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, asyncio.TimerHandle | asyncio.Future)]
    return Counter(type(each).__name__ for each in found if not each.cancelled())
