"""One key as a worker has it: who is let in, and when who is turned away comes back."""

from __future__ import annotations

import asyncio
from math import inf

from enrichment_worker.key import Key, Waiter


def waiter() -> Waiter:
    return Waiter(inf, asyncio.get_running_loop().create_future(), door=None)


async def test_as_many_are_let_in_as_have_a_slot_and_a_call_in_the_order_they_came() -> None:
    waiters = [waiter() for _ in range(3)]
    key = Key(is_leased=True, slots=2)
    key.waiting.extend(waiters)
    key.let_in(0.0)
    assert key.used == 0
    key.calls.extend([(0.0, inf)] * 3)
    key.let_in(0.0)
    assert [w.let_in.done() for w in waiters] == [True, True, False]
    key.leave(0.0, hold_s=0.0, kept_s=1.0)
    assert (waiters[2].let_in.done(), key.used) == (True, 2)


async def test_calls_whose_time_has_passed_let_nobody_in() -> None:
    key = Key(is_leased=False)
    key.waiting.append(waiter())
    key.calls.append((0.0, 1.0))
    key.let_in(1.5)
    assert (key.used, len(key.calls)) == (0, 0)


async def test_who_waits_no_more_takes_no_place() -> None:
    key, gone, left = Key(is_leased=False), waiter(), waiter()
    key.waiting.extend([gone, left])
    gone.let_in.cancel()
    assert not key.forget(gone)
    key.calls.append((0.0, inf))
    key.let_in(0.0)
    assert key.forget(left), "it had been let in"


async def test_a_hold_takes_back_the_calls_that_were_reserved() -> None:
    key = Key(is_leased=False, used=1)
    key.calls.append((0.0, inf))
    key.leave(10.0, hold_s=60.0, kept_s=1.0)
    assert (list(key.calls), key.held_until_s, key.is_idle) == ([], 70.0, False)


async def test_those_who_are_turned_away_come_back_one_after_the_other() -> None:
    key = Key(is_leased=False)
    assert [key.come_back_in(100.0, free_s=5.0, apart_s=2.0) for _ in range(3)] == [7.0, 9.0, 11.0]
    assert key.come_back_in(200.0, free_s=0.0, apart_s=2.0) == 2.0
