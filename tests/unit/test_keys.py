"""The keys of an API as its workflows meet there."""

from __future__ import annotations

import asyncio

import pytest

from enrichment_worker.key import Key
from enrichment_worker.keys import Door, Keys
from enrichment_worker.pinned import Pinned
from shared.db.limits import Grant, interval_s, late_s
from shared.enrichment import TurnedAway
from shared.workflow import Limits, Rate
from tests.support.eventually import eventually


async def test_who_waits_for_a_key_leaves_most_places_of_its_workflow_free_and_all_of_others() -> None:
    nobody = Pinned("", name="nobody", random=lambda: 1.0, timeout_s=1.0)
    limits = Limits(concurrency=4, key_concurrency=1)
    keys = Keys(api="API", limits=[limits, limits], session=lambda: 1, pinned=nobody)
    mine, theirs = Door.of(keys, limits), Door.of(keys, limits)
    entering = [asyncio.ensure_future(door.enter("key", wait_s=60)) for door in (mine, mine, theirs)]
    away, waiting = await asyncio.wait(entering, return_when=asyncio.FIRST_COMPLETED)
    assert away == {entering[1]}
    assert isinstance(entering[1].exception(), TurnedAway)
    assert waiting == {entering[0], entering[2]}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_left_in_the_moment_that_would_have_turned_him_away_is_left_alone() -> None:
    nobody = Pinned("", name="nobody", random=lambda: 1.0, timeout_s=1.0)
    limits = Limits(concurrency=40, key_concurrency=1)
    keys = Keys(api="API", limits=[limits], session=lambda: 1, pinned=nobody)
    task = asyncio.ensure_future(Door.of(keys, limits).enter("key", wait_s=60))
    await asyncio.sleep(0)  # noqa: TID251 - it begins to wait
    task.cancel()
    keys._take(keys._keys["key"], Grant("key", 0, 100.0, 100.0, 0.0), 0, (0.0, 0.0))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert keys.turned_away == 0


@pytest.mark.parametrize("why", ["held", "late"])
async def test_who_was_let_in_and_comes_to_it_too_late_or_once_the_key_is_held_waits_again(why: str) -> None:
    nobody, clock = Pinned("", name="nobody", random=lambda: 1.0, timeout_s=1.0), asyncio.get_running_loop().time
    limits = Limits(concurrency=40, key_concurrency=2)
    keys = Keys(api="API", limits=[limits], session=lambda: 1, pinned=nobody)
    door = Door.of(keys, limits)

    async def let_in() -> tuple[asyncio.Task[None], Key]:
        task = asyncio.create_task(door.enter("key", wait_s=60))
        await asyncio.wait([task], timeout=0)
        state = keys._keys["key"]
        keys._take(state, Grant("key", 1, 0.0, 0.0, 0.0), 2, (clock(), clock()))
        return task, state

    first, state = await let_in()
    await first
    if why == "late":
        keys._late_s = 0.1
    second, _ = await let_in()
    assert (second.done(), len(state.waiting), state.used) == (False, 0, 2)
    if why == "held":
        keys.leave("key", lasted_s=1.0, hold_s=3600.0)
    else:
        ends_s = clock() + keys._late_s
        while clock() <= ends_s:
            pass
    await eventually(lambda: second.done() or bool(state.waiting))
    assert not second.done()
    second.cancel()
    await asyncio.wait([second])


@pytest.mark.parametrize("turn", [1, -1])
def test_of_the_rates_of_its_workflows_the_strictest_holds(turn: int) -> None:
    nobody = Pinned("", name="nobody", random=lambda: 1.0, timeout_s=1.0)
    steady, bursting, fast = Rate(calls=10), Rate(calls=600, per_s=60), Rate(calls=100)
    limits = [Limits(), *(Limits(key_rate=rate) for rate in (steady, bursting, fast)[::turn])]
    keys = Keys(api="API", limits=limits, session=lambda: 1, pinned=nobody)
    assert (keys._interval_s, keys._late_s) == (interval_s(steady), late_s(steady))
