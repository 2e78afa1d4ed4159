"""Commits how attempts ended, many in one transaction: values, status and event together or not at all.

Results wait for company, 20 ms at most, and only while more are coming. A row that its target refuses fails alone:
the batch is halved until it is found. While PostgreSQL is away, results are kept; the lane bounds how many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Lane, Report
from enrichment_worker.pinned import Pinned
from enrichment_worker.refusal import is_refusal, refusal, value_problem
from shared.db.engine import Connection
from shared.db.finish import Result, finish, lock
from shared.db.log import append_progress
from shared.errors import DatabaseUnavailable
from shared.failure import Failure
from shared.lifecycle import Part
from shared.probe import Probe

log = logging.getLogger(__name__)

STOP_S = 10.0
"""A stopping completer tries so long to reach PostgreSQL; what it then still has is rescued with its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushLimits:
    """When results are committed."""

    size: int = 500
    """So many results go into one transaction at most."""
    age_s: float = 0.02
    """A result waits so long for others, while others may come."""
    progress_s: float = 0.2
    """Progress is written at most so often."""


class Completer(Part):
    """The commits of one workflow, one at a time. Leaving it commits what is left."""

    def __init__(
        self, *, lane: Lane, pinned: Pinned, limits: FlushLimits | None = None, probe: Probe | None = None
    ) -> None:
        super().__init__()
        self._lane, self._pinned = lane, pinned
        self._limits, self._probe = limits or FlushLimits(), probe or Probe()
        self._results: list[Result] = []
        self._bell = Bell()
        self._reported_at_s = 0.0
        self._give_up_at_s = float("inf")

    @property
    def name(self) -> str:
        """Which workflow's completer it is."""
        return f"Completer of {self._lane.workflow.resource}"

    def add(self, result: Result) -> None:
        """Takes a result; it is kept until it is committed. Never waits: the lane bounds how many there can be."""
        self._results.append(_checked(result, self._lane))
        if len(self._results) in (1, self._limits.size) or not self._lane.is_busy:
            self._bell.ring()

    async def stop(self) -> None:
        """Commits what is left, then stops."""
        self._bell.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        while self._results or not self.stopping.is_set():
            await self._gather()
            try:
                await self._flush()
            except DatabaseUnavailable:
                if self._is_given_up():
                    log.error("%s: no database; %s results are left to rescue", self.name, len(self._results))
                    return
                self._probe.mark("waiting for the database")
                await self._bell.wait(self._pinned.backoff_s)

    async def _gather(self) -> None:
        """Waits until there is something to commit, and a little longer while more is coming."""
        if not self._results and not self.stopping.is_set():
            await self._bell.wait(self._limits.progress_s)
        if 0 < len(self._results) < self._limits.size and self._lane.is_busy and not self.stopping.is_set():
            await self._bell.wait(self._limits.age_s)

    async def _flush(self) -> None:
        now_s = asyncio.get_running_loop().time()
        reports: list[Report] = []
        if now_s - self._reported_at_s >= self._limits.progress_s:
            reports, self._reported_at_s = self._lane.take_reports(), now_s
        batch = self._results[: self._limits.size]
        if not batch and not reports:
            return
        committed = await self._commit(batch, reports)
        del self._results[: len(batch)]
        self._lane.settle([result.item for result in batch], now_s=now_s)
        for result in committed:
            self._lane.done += result.trigger in ("complete", "find_nothing")
            self._lane.failed += result.trigger == "fail"
        if reports:
            self._probe.mark("reported", reports)
        self._probe.mark("flushed", committed)

    async def _commit(self, batch: list[Result], reports: list[Report]) -> list[Result]:
        """Commits in one transaction; a second one, with savepoints, when the target refused something."""
        try:
            if reports:
                # By themselves: both lock rows in key order, and one after the other would not be in order.
                async with self._pinned.transaction() as connection:
                    await append_progress(connection, self._lane.workflow, reports)
            async with self._pinned.transaction() as connection:
                return await self._finish(connection, batch)
        except (psycopg.Error, TypeError, ValueError) as error:
            if not is_refusal(error):
                raise
        failed: list[Result] = []
        async with self._pinned.transaction() as connection:
            await lock(connection, self._lane.workflow, batch)
            done = await self._halve(connection, batch, failed)
            return done + await self._finish(connection, failed)

    async def _halve(self, connection: Connection, batch: Sequence[Result], failed: list[Result]) -> list[Result]:
        """Finishes what the target takes; adds each result that it refuses to `failed`, as that item's failure."""
        try:
            async with connection.transaction():
                return await self._finish(connection, batch)
        except (psycopg.Error, TypeError, ValueError) as error:
            if not is_refusal(error):
                raise
            if len(batch) == 1:
                failed.append(_failed(batch[0], refusal(error, self._lane.workflow, batch[0].values or {}), self._lane))
                return []
        middle = len(batch) // 2
        first = await self._halve(connection, batch[:middle], failed)
        return first + await self._halve(connection, batch[middle:], failed)

    async def _finish(self, connection: Connection, batch: Sequence[Result]) -> list[Result]:
        if not batch:
            return []
        finished = await finish(connection, self._lane.workflow, self._lane.table, batch)
        if finished.dropped:
            self._lane.dropped += finished.dropped
            self._probe.mark("dropped", finished.dropped)
            log.info("%s: dropped %s late results", self.name, finished.dropped)
        if not finished.refused:
            return list(batch)
        refused = {id(result): message for result, message in finished.refused}
        failed = [_failed(result, message, self._lane) for result, message in finished.refused]
        await finish(connection, self._lane.workflow, self._lane.table, failed)
        return [result for result in batch if id(result) not in refused] + failed

    def _is_given_up(self) -> bool:
        if not self.stopping.is_set():
            return False
        now_s = asyncio.get_running_loop().time()
        self._give_up_at_s = min(self._give_up_at_s, now_s + STOP_S)
        return now_s >= self._give_up_at_s


def _checked(result: Result, lane: Lane) -> Result:
    if result.trigger != "complete" or result.values is None:
        return result
    problem = value_problem(lane.workflow, result.values)
    return result if problem is None else _failed(result, problem, lane)


def _failed(result: Result, message: str, lane: Lane) -> Result:
    failure = Failure.of(lane.workflow.target.name, "Refused", message)
    return replace(result, trigger="fail", error=message, failure=failure, delay_s=0.0, values=None)
