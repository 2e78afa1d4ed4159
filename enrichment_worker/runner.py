"""Runs the enrichers of one workflow, as many at once as its limits allow, and hands on how each attempt ended."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from enrichment_worker.completer import Completer
from enrichment_worker.lane import Lane
from shared.attempt import Bench, attempt, is_async
from shared.db.finish import Result
from shared.lifecycle import Part
from shared.outcome import AttemptOutcome
from shared.probe import Probe
from shared.workflow import Item

RELEASED = AttemptOutcome(trigger="release")


class Grace:
    """How long a draining worker waits for what is in flight: one span for all its runners, from the first asked."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until_s = seconds, float("inf")

    def left_s(self) -> float:
        """Seconds left; the first call starts the span."""
        now_s = asyncio.get_running_loop().time()
        self._until_s = min(self._until_s, now_s + self._seconds)
        return max(0.0, self._until_s - now_s)


class Runner(Part):
    """The attempts of one workflow. Leaving it waits for those in flight, then releases the rest."""

    def __init__(
        self, *, lane: Lane, bench: Bench, completer: Completer, grace: Grace, probe: Probe | None = None
    ) -> None:
        super().__init__()
        self._lane, self._bench, self._completer, self._grace = lane, bench, completer, grace
        self._probe = probe or Probe()

    @property
    def name(self) -> str:
        """Which workflow's runner it is."""
        return f"Runner of {self._lane.workflow.resource}"

    async def _run(self) -> None:
        threads = None
        if not is_async(self._bench.enricher):
            threads = ThreadPoolExecutor(self._lane.concurrency, thread_name_prefix=self._lane.workflow.resource)
        bench = replace(self._bench, threads=threads)
        try:
            async with asyncio.TaskGroup() as group:
                places = [group.create_task(self._work(bench)) for _ in range(self._lane.concurrency)]
                self.ready()
                await self.stopping.wait()
                await self._drain(places)
        finally:
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self, bench: Bench) -> None:
        """One of the places at which attempts run, one after the other."""
        while (item := await self._lane.items.get()) is not None:
            if self._lane.draining:
                self._finish(item, RELEASED)
                continue
            self._lane.begin(item)
            try:
                outcome = await attempt(item, bench)
            except asyncio.CancelledError:
                self._finish(item, RELEASED)
                raise
            self._finish(item, outcome)

    def give_back(self) -> int:
        """Releases what has not begun. Returns how many items that were."""
        items = self._lane.take_back()
        for item in items:
            self._finish(item, RELEASED)
        return len(items)

    async def _drain(self, places: list[asyncio.Task[None]]) -> None:
        """Releases what has not begun, waits for what has, within the grace; then cancels that, which releases it."""
        self.give_back()
        for _ in places:
            self._lane.items.put_nowait(None)
        self._probe.mark("draining")
        await asyncio.wait(places, timeout=self._grace.left_s())
        for place in places:
            place.cancel()

    def _finish(self, item: Item, outcome: AttemptOutcome) -> None:
        self._lane.end(item)
        told = (outcome.trigger, outcome.error, outcome.failure, outcome.delay_s, outcome.values)
        self._completer.add(Result(item, *told))
