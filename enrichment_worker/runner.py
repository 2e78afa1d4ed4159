"""Runs the enrichers of one workflow, as many at once as its limits allow, and hands on how each attempt ended.

Attempts run at places. An attempt that does not end when it is told to loses its place to another one, so that a stuck
enricher, one that swallows its cancellation or blocks its thread, holds nobody up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

from enrichment_worker.completer import Completer
from enrichment_worker.lane import Hold, Lane
from enrichment_worker.slices import Slices
from shared.attempt import Bench, attempt, interrupted, overdue
from shared.db.finish import Result
from shared.errors import EnrichersStuck
from shared.lifecycle import Part
from shared.outcome import AttemptOutcome
from shared.probe import Probe
from shared.workflow import Item

log = logging.getLogger(__name__)

RELEASED = AttemptOutcome(trigger="release")
MERCY_S = 3.0
"""How long an enricher may take to end after it was told to."""
STUCK_MIN = 4
"""So many attempts may be stuck in any case before the process ends."""


class Grace:
    """How long a draining worker waits for what is in flight: one span for all its runners, from the first asked to
    stop. All drain from then on, or the others would begin what they then have no time for.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until_s = seconds, inf
        self._begun = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether nothing more is to begin."""
        return self._begun.is_set()

    @property
    def left_s(self) -> float:
        """Seconds left, once it has begun."""
        return max(0.0, self._until_s - asyncio.get_running_loop().time())

    def begin(self) -> None:
        """One of the runners is asked to stop."""
        if not self.has_begun:
            self._until_s = asyncio.get_running_loop().time() + self._seconds
            self._begun.set()

    async def wait(self, seconds: float) -> None:
        """Sleeps, but not past its beginning."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()


@dataclass(slots=True, eq=False)
class _Place:
    """Where attempts run, one after the other."""

    task: asyncio.Task[None] = field(init=False)
    item: Item | None = None
    until_s: float = inf
    """When the attempt must have ended, its mercy included."""
    is_cancelled: bool = False
    """The item was lost while the attempt ran."""
    is_given_up: bool = False
    is_over: bool = False
    """No further attempt begins."""

    @property
    def hold(self) -> Hold | None:
        return None if self.item is None else (self.item.key, self.item.version)

    def end(self) -> None:
        """Ends it, with the attempt that runs there."""
        self.is_over = True
        self.task.cancel()


class Runner(Part):
    """The attempts of one workflow. Leaving it waits for those in flight, then releases the rest."""

    def __init__(
        self, *, lane: Lane, bench: Bench, completer: Completer, grace: Grace, probe: Probe | None = None
    ) -> None:
        super().__init__()
        self._lane, self._bench, self._completer, self._grace = lane, bench, completer, grace
        self._probe = probe or Probe()
        self._places: list[_Place] = []
        self._stuck: set[asyncio.Task[None]] = set()
        self._withheld: list[Result] = []
        """Results of items whose claim may not be committed."""

    @property
    def name(self) -> str:
        """Which workflow's runner it is."""
        return f"Runner of {self._lane.workflow.resource}"

    async def stop(self) -> None:
        """Has all runners of the worker drain, and waits for this one. What has not begun goes back in any case."""
        self._grace.begin()
        await super().stop()
        self.give_back()

    def give_back(self) -> int:
        """Releases what has not begun. Returns how many items that were."""
        items = self._lane.take_back()
        self.release(items)
        return len(items)

    def release(self, items: Sequence[Item]) -> None:
        """Gives items back that were never begun, but for those that are no longer this worker's."""
        for item in items:
            if (item.key, item.version) in self._lane.lost:
                self._drop(item)
            else:
                self._finish(item, RELEASED)

    def cancel_lost(self, lost: AbstractSet[Hold]) -> int:
        """Ends the attempts at items that are no longer this worker's, and begins none. Returns how many it ended."""
        self._lane.lost |= lost & self._lane.held.keys()
        cancelled = [place for place in self._places if place.hold in lost and not place.is_cancelled]
        for place in cancelled:
            place.is_cancelled = True
            place.until_s = min(place.until_s, asyncio.get_running_loop().time() + MERCY_S)
            place.task.cancel()
        return len(cancelled)

    def end_doubt(self, lost: AbstractSet[Hold]) -> None:
        """It is known what became of the claim in doubt: these of its items are not this worker's, the others are.

        What those brought is saved; attempts at the lost ones are ended or never begin, what they brought is dropped.
        """
        self._lane.end_doubt(lost)
        self.cancel_lost(lost)
        results, self._withheld = self._withheld, []
        for result in results:
            if (result.item.key, result.item.version) in lost:
                self._drop(result.item)
            else:
                self._completer.add(result)

    async def _run(self) -> None:
        self._slices = Slices(asyncio.get_running_loop())
        for _ in range(self._lane.concurrency):
            self._open()
        self.ready()
        try:
            while not self._grace.has_begun:
                await self._grace.wait(MERCY_S / 3)
                self._look_after()
            await self._drain()
        finally:
            for place in self._places:
                place.end()

    def _open(self) -> None:
        place = _Place()
        place.task = asyncio.create_task(self._work(place), name=f"place of {self._lane.workflow.resource}")
        self._places.append(place)

    async def _work(self, place: _Place) -> None:
        loop, lane, time_s = asyncio.get_running_loop(), self._lane, self._bench.limits.timeout_s + MERCY_S
        while (item := await self._next(place)) is not None:
            if lane.lost and (item.key, item.version) in lane.lost:
                self._drop(item)
                continue
            if lane.bars(item):
                self._finish(item, RELEASED)
                continue
            lane.begin(item)
            place.item, place.until_s = item, loop.time() + time_s
            try:
                outcome = await attempt(item, self._bench, place.task)
            except asyncio.CancelledError:
                is_ours = place.is_cancelled or place.is_over
                outcome = RELEASED if is_ours else interrupted(item, self._bench)
            if place.is_given_up:
                return  # what became of the item was said then
            place.item, place.until_s = None, inf
            if place.is_cancelled:
                place.is_cancelled = False
                self._drop(item)
            else:
                self._finish(item, outcome)
            if place.task.cancelling():
                await _forgive(place.task)

    async def _next(self, place: _Place) -> Item | None:
        """The item to begin there; None when nothing more is to."""
        while not place.is_over:
            try:
                while self._slices.is_over():  # noqa: ASYNC110 - what is waited for is a turn of the event loop
                    await asyncio.sleep(0)
                return await self._lane.items.get()
            except asyncio.CancelledError:
                await _forgive(place.task)  # an earlier enricher may have left a timer that cancels
        return None

    def _look_after(self) -> None:
        """Gives up what is stuck; raises what a place died of."""
        now_s = asyncio.get_running_loop().time()
        for place in list(self._places):
            if place.task.done() and not self._grace.has_begun:
                place.task.result()
                raise RuntimeError("a place ended unasked")
            if place.until_s <= now_s:
                self._give_up(place)
                self._open()
        slots_max = self._lane.workflow.limits.concurrency_total
        has_slots = slots_max is None or sum(lane.stuck for lane in self._lane.upstream.lanes) < slots_max
        if self._lane.stuck >= max(STUCK_MIN, self._lane.concurrency) or not has_slots:
            raise EnrichersStuck(f"{self._lane.stuck} enrichers of {self._lane.workflow.resource} do not end")

    def _give_up(self, place: _Place, outcome: AttemptOutcome | None = None) -> None:
        item = place.item
        assert item is not None, "an attempt is stuck, not a place"
        place.is_given_up = True
        self._places.remove(place)
        self._stuck.add(place.task)
        self._lane.stuck += 1
        place.task.add_done_callback(self._came_back)
        log.error("%s: the enricher of item %s does not end; its place is given up", self.name, item.key)
        if place.is_cancelled:
            self._drop(item)
        else:
            self._finish(item, outcome or overdue(item, self._bench))
        self._probe.mark("given up", item)

    def _came_back(self, task: asyncio.Task[None]) -> None:
        self._stuck.discard(task)
        self._lane.stuck -= 1

    async def _drain(self) -> None:
        """Releases what has not begun, waits for what has, within the grace; then cancels that, which releases it."""
        self.give_back()
        for _ in self._places:
            self._lane.items.put_nowait(None)
        self._probe.mark("draining")
        tasks = {place.task for place in self._places}
        await asyncio.wait(tasks, timeout=self._grace.left_s)
        for place in self._places:
            place.end()
        await asyncio.wait(tasks, timeout=MERCY_S)
        for place in list(self._places):
            if not place.task.done():
                self._give_up(place, RELEASED)

    def _finish(self, item: Item, outcome: AttemptOutcome) -> None:
        self._lane.end(item)
        outcome = self._lane.saw(item, outcome)
        told = (outcome.trigger, outcome.error, outcome.failure, outcome.delay_s, outcome.values)
        result = Result(item, *told)
        if self._lane.in_doubt and (item.key, item.version) in self._lane.in_doubt:
            self._withheld.append(result)
            self._probe.mark("withheld", item)
        else:
            self._completer.add(result)

    def _drop(self, item: Item) -> None:
        """The item is lost: nothing of it could be saved, so nothing is sent."""
        self._lane.end(item)
        self._lane.saw(item, RELEASED)
        self._lane.cancelled += 1
        self._lane.settle([item], now_s=asyncio.get_running_loop().time())
        self._probe.mark("cancelled", item)


async def _forgive(task: asyncio.Task[None]) -> None:
    """The next attempt is not cancelled: neither for the last one, nor by what its enricher left behind."""
    while task.uncancel():
        pass
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # Python before 3.13 still raises what was asked for and not yet raised
