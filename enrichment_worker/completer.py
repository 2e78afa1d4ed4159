"""Commits how attempts ended, many in one transaction: values, status and event together or not at all.

Results wait for company, 20 ms at most, and only while more are coming. A row that its target refuses fails alone:
the batch is halved until it is found. A result whose row somebody holds for long, the source's or the target's, is set
aside until it is free, as is one that the source does not allow. While PostgreSQL is away, or somebody holds the whole
target, results are kept; the lane bounds how many. Those that cannot be saved in time together, as large ones, are
tried again by halves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg.errors import LockNotAvailable

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.refusal import UNSAYABLE, is_refusal, note_refusal, refusal, value_problem
from shared.db.engine import Connection
from shared.db.finish import Finished, Result, finish, held_keys
from shared.db.log import append_progress
from shared.errors import DatabaseUnavailable
from shared.failure import Failure
from shared.lifecycle import Part
from shared.machine import COMPLETE, FAIL, FIND_NOTHING
from shared.outcome import clean
from shared.probe import Probe
from shared.secrets import Secrets
from shared.workflow import ItemKey

log = logging.getLogger(__name__)

STOP_S = 10.0
"""A stopping completer tries so long to reach PostgreSQL; what it then still has is rescued with its session."""
LOCK_S = 2.0
"""A commit waits so long for what others hold; what was set aside is looked at as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushLimits:
    """When results are committed."""

    size: int
    """The most results that go into one transaction."""
    age_s: float
    """A result waits so long for others, while others may come."""
    progress_s: float
    """Progress is written at most so often."""


class Completer(Part):
    """The commits of one workflow, one at a time on each connection. Leaving it commits what is left."""

    def __init__(
        self,
        *,
        lane: Lane,
        pinned: Sequence[Pinned],
        secrets: Secrets,
        limits: FlushLimits,
        probe: Probe | None = None,
    ) -> None:
        """`secrets` are struck out of what a target says of the values that it refuses.

        The connections `pinned` wait for no lock longer than `LOCK_S`.
        """
        super().__init__()
        self._lane, self._pinned, self._secrets = lane, pinned, secrets
        self._limits, self._probe = limits, probe or Probe()
        self._size = limits.size
        """How many results are committed together now."""
        self._results: list[Result] = []
        self._aside: list[Result] = []
        """Results whose rows, or whose target's rows, somebody held."""
        self._refused: list[Result] = []
        """Results that the source did not allow, not even as failures."""
        self._look_at_s = 0.0
        self._bell, self._gathering = Bell(), asyncio.Lock()
        self._committing = 0
        self._reported_at_s = 0.0
        self._give_up_at_s = float("inf")

    @property
    def name(self) -> str:
        """Which workflow's completer it is."""
        return f"Completer of {self._lane.workflow.resource}"

    def add(self, result: Result) -> None:
        """Takes a result; it is kept until it is committed. Never waits: the lane bounds how many there can be."""
        self._results.append(self._checked(result))
        if len(self._results) in (1, self._limits.size) or not self._lane.is_busy:
            self._bell.ring()

    async def stop(self) -> None:
        """Commits what is left, then stops."""
        self._bell.ring()
        await super().stop()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for pinned in self._pinned:
                    group.create_task(self._write(pinned))
                self.ready()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        if left := len(self._aside) + len(self._refused):
            log.warning("%s: %s results are left to rescue: rows are held, or not to be changed", self.name, left)

    async def _write(self, pinned: Pinned) -> None:
        """Commits what it takes in hand over one connection, until it is asked to stop and nothing is left."""
        hand: list[Result] = []
        await pinned.warm(lambda connection: finish(connection, self._lane.workflow, self._lane.table, ()))
        while hand or self._results or not self.stopping.is_set():
            try:
                if not hand:
                    async with self._gathering:
                        await self._gather()
                        await self._take_up(pinned)
                        await self._report(pinned)
                        hand = self._results[: self._size]
                        del self._results[: self._size]
                if hand:
                    self._committing += 1
                    try:
                        await self._commit(pinned, hand, hand[:])
                    finally:
                        self._committing -= 1
                    self._size = min(self._limits.size, self._size + self._size // 8 + 1)
            except DatabaseUnavailable:
                # It may be away, or what is in hand be too much for the time that a commit has.
                self._size = max(1, len(hand) // 2)
                self._results += hand[self._size :]
                del hand[self._size :]
                if self._is_given_up():
                    log.error(
                        "%s: no database; %s results are left to rescue", self.name, len(hand) + len(self._results)
                    )
                    return
                self._probe.mark("waiting for the database")
                await self._bell.wait(pinned.backoff_s)

    async def _gather(self) -> None:
        """Waits until there is something to commit, and a little longer while more is coming."""
        if not self._results and not self.stopping.is_set():
            await self._bell.wait(self._limits.progress_s)
        more = self._lane.is_busy or self._committing
        if 0 < len(self._results) < self._limits.size and more and not self.stopping.is_set():
            await self._bell.wait(self._limits.age_s)

    async def _take_up(self, pinned: Pinned) -> None:
        """Takes up what was set aside and is held no more, every `LOCK_S`; before the end whenever it is asked."""
        now_s = asyncio.get_running_loop().time()
        if not self.stopping.is_set():
            if now_s < self._look_at_s:
                return
            self._results += self._refused
            self._refused.clear()
        self._look_at_s = now_s + LOCK_S
        if not self._aside:
            return
        async with pinned.autocommit() as connection:
            held = await held_keys(connection, self._lane.workflow, self._aside)
        aside, self._aside = self._aside, []
        self._results += self._set_aside(aside, held)

    def _set_aside(self, results: Sequence[Result], held: AbstractSet[ItemKey]) -> list[Result]:
        """Keeps for later those whose rows somebody holds. Returns the others."""
        self._aside += [result for result in results if result.item.key in held]
        return [result for result in results if result.item.key not in held]

    async def _report(self, pinned: Pinned) -> None:
        """Writes progress in a transaction of its own: together with results it would not lock rows in key order."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._reported_at_s < self._limits.progress_s:
            return
        reports, self._reported_at_s = self._lane.take_reports(), now_s
        if reports:
            async with pinned.autocommit() as connection:
                await append_progress(connection, self._lane.workflow, reports)
            self._probe.mark("reported", reports)

    async def _commit(self, pinned: Pinned, hand: list[Result], batch: Sequence[Result]) -> None:
        """Commits the first results in hand in one transaction; in two halves when the target refuses something.

        Each piece is a transaction: what the target checks at the end of one alone is found in the same way.
        """
        try:
            async with pinned.autocommit() as connection:
                finished = await self._finish(connection, batch)
        except (psycopg.Error, *UNSAYABLE) as error:
            if not is_refusal(error):
                raise
            if len(batch) == 1 and batch[0].trigger != COMPLETE:
                # Logged once for each look at what was refused: that may be all that a worker holds.
                note_refusal(self._lane, batch[0].trigger, error, is_known=bool(self._refused))
                self._refused.append(hand.pop(0))  # what was refused first, where this is its failure
                self._probe.mark("refused", error)
                return
            for piece in self._pieces(batch, error):
                await self._commit(pinned, hand, piece)
            return
        if isinstance(finished, Finished):
            del hand[: len(batch)]
            self._settle(batch, dropped=finished.dropped)
            return
        hand[: len(batch)] = free = self._set_aside(batch, finished)
        self._probe.mark("set aside", finished)
        if free:
            await self._commit(pinned, hand, free)

    async def _finish(self, connection: Connection, batch: Sequence[Result]) -> Finished | set[ItemKey]:
        """Returns the keys of the rows that somebody holds, where nothing was changed because of them."""
        workflow = self._lane.workflow
        try:
            return await finish(connection, workflow, self._lane.table, batch)
        except LockNotAvailable:
            with suppress(LockNotAvailable):
                if held := await held_keys(connection, workflow, batch):
                    return held
            tables = workflow.source.name, workflow.target.name
            log.warning("%s: results wait, as somebody holds %s or %s", self.name, *tables)
            raise

    def _settle(self, batch: Sequence[Result], *, dropped: int) -> None:
        """They are committed: makes room for others, and counts."""
        self._lane.settle([result.item for result in batch], now_s=asyncio.get_running_loop().time())
        ended = Counter(result.trigger for result in batch)
        self._lane.done += ended[COMPLETE] + ended[FIND_NOTHING]
        self._lane.failed += ended[FAIL]
        if dropped:
            self._lane.dropped += dropped
            self._probe.mark("dropped", dropped)
            log.info("%s: dropped %s late results", self.name, dropped)
        self._probe.mark("flushed", batch)

    def _is_given_up(self) -> bool:
        if not self.stopping.is_set():
            return False
        now_s = asyncio.get_running_loop().time()
        self._give_up_at_s = min(self._give_up_at_s, now_s + STOP_S)
        return now_s >= self._give_up_at_s

    def _pieces(self, batch: Sequence[Result], error: Exception) -> Sequence[Sequence[Result]]:
        """The halves of a batch of which something is refused; of a single result its failure."""
        if len(batch) == 1:
            return [[self._failed(batch[0], refusal(error, self._lane.workflow, batch[0].values or {}))]]
        middle = len(batch) // 2
        return batch[:middle], batch[middle:]

    def _checked(self, result: Result) -> Result:
        if result.trigger != COMPLETE or result.values is None:
            return result
        problem = value_problem(self._lane.workflow, result.values)
        return result if problem is None else self._failed(result, problem)

    def _failed(self, result: Result, message: str) -> Result:
        message = clean(message, self._secrets)
        failure = Failure.of(self._lane.workflow.target.name, "Refused", message)
        return replace(result, trigger=FAIL, error=message, failure=failure, delay_s=0.0, values=None)
