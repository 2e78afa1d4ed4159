"""Ends the attempts at items that are no longer this worker's: a user took them away, or they were rescued.

Their results could not be saved any more; what is asked of it is to be spared, not correctness. Told by a notification
when a user cancels; nothing depends on it, it polls besides, and then asks only for what it has held for some time: a
worker whose items take less than that asks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from psycopg import sql

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Hold, Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.runner import Runner
from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe
from shared.workflow import Workflow

log = logging.getLogger(__name__)

VERSIONS = sql.SQL("/* versions */ SELECT s.{key}, s.version FROM {source} s WHERE s.{key} = ANY(%s::{key_type}[])")


class Canceller(Part):
    """Looks which of the items that the process holds are lost."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        runners: Sequence[Runner],
        pinned: Pinned,
        poll_s: float,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`runners` are those of the lanes, in the same order."""
        super().__init__()
        self._lanes, self._runners, self._pinned = lanes, runners, pinned
        self._poll_s, self._random, self._probe = poll_s, random, probe or Probe()
        self._seen: list[set[Hold]] = [set() for _ in lanes]
        self._is_told = False
        self._bell = Bell()

    def ring(self) -> None:
        """Items may have been lost, whenever they were claimed: looks at all of them, at once."""
        self._is_told = True
        self._bell.ring()

    async def stop(self) -> None:
        """Looks no more."""
        self._bell.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        while not self.stopping.is_set():
            try:
                await self._bell.wait(self._poll_s * (0.75 + self._random() / 2))
                everything, self._is_told = self._is_told, False
                for n, lane in enumerate(self._lanes):
                    asked = set(lane.held) if everything else self._seen[n] & lane.held
                    self._seen[n] = set(lane.held)
                    if asked:
                        await self._look(lane, self._runners[n], asked)
            except DatabaseUnavailable:
                self._is_told = True
                await self.pause(self._pinned.backoff_s)

    async def _look(self, lane: Lane, runner: Runner, asked: set[Hold]) -> None:
        async with self._pinned.transaction() as connection:
            lost = asked - await read_holds(connection, lane.workflow, [key for key, _ in asked])
        if lost:
            count = runner.cancel_lost(lost)
            log.info("%s: lost %s items, %s of them were running", lane.workflow.resource, len(lost), count)
            self._probe.mark("lost", lost)


async def read_holds(connection: Connection, workflow: Workflow, keys: Sequence[object]) -> set[Hold]:
    """The versions that items have now; those that are gone are left out."""
    cursor = await connection.execute(VERSIONS.format(**item_names(workflow)), [keys])
    return {(key, version) for key, version in await cursor.fetchall()}
