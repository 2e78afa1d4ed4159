"""Tells all workers what this one has found out about external APIs: that one asks to wait, is down, or answers again.

Many attempts end in a moment; what they showed together is one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from enrichment_worker.bell import Bell
from enrichment_worker.pinned import Pinned
from enrichment_worker.upstream import PROBE_S_MAX, Findings, Upstream
from shared.db.api_states import (
    abandon_probe,
    add_failures,
    clear_failures,
    end_probe,
    hold,
    read_apis,
)
from shared.db.engine import Connection
from shared.db.limits import sweep
from shared.db.workflow_states import alert, announce
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe
from shared.waits import about

log = logging.getLogger(__name__)

SWEEP_S = 60.0
"""Between two looks for leases and schedules that no longer say anything."""


class Reporter(Part):
    """Writes down what was found, as it is found."""

    def __init__(
        self,
        *,
        upstreams: Sequence[Upstream],
        news: Bell,
        pinned: Pinned,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`news` is the bell of the upstreams."""
        super().__init__()
        self._upstreams, self._news, self._pinned = upstreams, news, pinned
        self._random, self._probe = random, probe or Probe()

    async def stop(self) -> None:
        """Tells what is left, then stops."""
        self._news.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        clock = asyncio.get_running_loop().time
        sweep_at_s = clock() + SWEEP_S * self._random()
        while not self.stopping.is_set():
            await self._news.wait(max(0.0, sweep_at_s - clock()))
            try:
                for upstream in self._upstreams:
                    await self._report(upstream)
                if clock() >= sweep_at_s:
                    sweep_at_s = clock() + about(SWEEP_S, self._random)
                    async with self._pinned.transaction() as connection:
                        await sweep(connection)
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)
                self._news.ring()

    async def _report(self, upstream: Upstream) -> None:
        findings = upstream.take_findings()
        if not findings.is_worth_telling:
            return
        try:
            async with self._pinned.transaction() as connection:
                if await self._write(connection, upstream, findings):
                    await announce(connection, [lane.workflow.resource for lane in upstream.lanes])
                state = next(iter(await read_apis(connection, [upstream.api])), None)
        except DatabaseUnavailable:
            upstream.give_back()
            raise
        upstream.told(state)
        self._probe.mark("reported an API", findings)

    async def _write(self, connection: Connection, upstream: Upstream, findings: Findings) -> bool:
        """Returns whether the state of the API has changed for those who watch."""
        api, limits = upstream.api, upstream.lanes[0].workflow.limits
        has_changed = False
        if findings.held_until_s > (now_s := asyncio.get_running_loop().time()):
            has_changed |= await hold(connection, api, findings.held_until_s - now_s)
        if findings.answered and await clear_failures(connection, api):
            log.warning("%s answers again", api)
            has_changed = True
        if findings.failures and upstream.failures_max is not None:
            opened = await add_failures(
                connection,
                api,
                findings.failures,
                error=findings.error,
                failures_max=upstream.failures_max,
                probe_s=limits.backoff_s,
            )
            if opened:
                log.warning("%s is down: %s", api, findings.error)
            else:
                for lane in upstream.lanes:
                    await alert(connection, lane.workflow.resource)
            has_changed |= opened
        if findings.probe == "down":
            longest_s = min(limits.backoff_max_s, PROBE_S_MAX)
            has_changed |= await end_probe(connection, api, first_s=limits.backoff_s, longest_s=longest_s)
        elif findings.probe:
            await abandon_probe(connection, api)
        return has_changed
