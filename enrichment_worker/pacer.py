"""Lets the items of a lane begin when their calls were reserved for, not before and not much later.

Whoever is late would begin together with what comes next, and there would be more in a period than is allowed. So an
item whose time has passed is given back, without the loss of an attempt, and gets another time with its next claim.
"""

from __future__ import annotations

import asyncio

from enrichment_worker.lane import Lane
from enrichment_worker.runner import Runner
from shared.lifecycle import Part

IDLE_S = 1.0


class Pacer(Part):
    """The times of one lane's items."""

    def __init__(self, *, lane: Lane, runner: Runner) -> None:
        super().__init__()
        self._lane, self._runner = lane, runner
        self.lapsed = 0
        """Items whose time had passed before they could begin."""

    @property
    def resource(self) -> str:
        """Which workflow's pacer it is."""
        return self._lane.workflow.resource

    @property
    def name(self) -> str:
        """What logs call it."""
        return f"Pacer of {self.resource}"

    async def stop(self) -> None:
        """Lets nothing more begin."""
        self._lane.pace.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        clock = asyncio.get_running_loop().time
        while not self.stopping.is_set():
            lapsed, next_s = self._lane.hand_out(clock())
            if lapsed:
                self.lapsed += len(lapsed)
                self._runner.release(lapsed)
            await self._lane.pace.wait(IDLE_S if next_s is None else next_s - clock())
