"""Gives back what was claimed and has not begun, when operators drain a workflow or its API is not to be called.

That nobody claims meanwhile, the claim itself sees to. Told by a notification; nothing depends on it: it polls besides.
"""

from __future__ import annotations

import logging

from enrichment_worker.patrol import Patrol
from shared.db.api_states import read_apis
from shared.db.workflow_states import read_draining
from shared.errors import DatabaseUnavailable

log = logging.getLogger(__name__)


class Switch(Patrol):
    """Looks which workflows drain, and which external APIs are held or down."""

    async def _run(self) -> None:
        self.ready()
        while not self.stopping.is_set():
            try:
                await self._look()
                await self._rest()
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)

    async def _look(self) -> None:
        upstreams = {lane.upstream.api: lane.upstream for lane in self._lanes}.values()
        async with self._pinned.transaction() as connection:
            draining = await read_draining(connection, [lane.workflow.resource for lane in self._lanes])
            states = {state.api: state for state in await read_apis(connection, {u.api for u in upstreams})}
        for upstream in upstreams:
            upstream.learn(states.get(upstream.api))
        for lane, runner in zip(self._lanes, self._runners, strict=True):
            lane.draining = lane.workflow.resource in draining
            if (lane.draining or lane.upstream.is_barred()) and (count := runner.give_back()):
                log.info("%s: gave back %s items that had not begun", lane.workflow.resource, count)
        self._probe.mark("looked at the switch", draining)
