"""Ends the attempts at items that are no longer this worker's: a user took them away, or they were rescued.

Their results could not be saved any more, so this saves calls, and nothing depends on it. A notification tells of what
users cancel; besides, it polls, and then asks only about items that were held at the poll before: a worker whose items
take less time than that asks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from psycopg import sql

from enrichment_worker.lane import Hold, Lane
from enrichment_worker.patrol import Patrol
from enrichment_worker.runner import Runner
from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.errors import DatabaseUnavailable
from shared.workflow import Workflow

log = logging.getLogger(__name__)

VERSIONS = sql.SQL("/* versions */ SELECT s.{key}, s.{version} FROM {source} s WHERE s.{key} = ANY(%s::{key_type}[])")


class Canceller(Patrol):
    """Looks which of the items that the process holds are lost."""

    _is_told = False

    def ring(self) -> None:
        """Items may have been lost, whenever they were claimed: looks at all of them, at once."""
        self._is_told = True
        super().ring()

    async def _run(self) -> None:
        self.ready()
        seen: list[set[Hold]] = [set() for _ in self._lanes]
        while not self.stopping.is_set():
            try:
                await self._rest()
                everything, self._is_told = self._is_told, False
                for n, lane in enumerate(self._lanes):
                    # Who claimed those in doubt asks for them; those that are lost may be had once more meanwhile.
                    held = lane.held.keys() - lane.in_doubt - lane.lost
                    asked = held if everything else seen[n] & held
                    seen[n] = held
                    if asked:
                        await self._look(lane, self._runners[n], asked)
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)

    async def _look(self, lane: Lane, runner: Runner, asked: set[Hold]) -> None:
        async with self._pinned.autocommit() as connection:
            lost = asked - await read_holds(connection, lane.workflow, [key for key, _ in asked])
        if lost:
            if count := runner.cancel_lost(lost):
                log.info("%s: lost %s items that were running", lane.workflow.resource, count)
            self._probe.mark("lost", lost)


async def read_holds(connection: Connection, workflow: Workflow, keys: Sequence[object]) -> set[Hold]:
    """The versions that items have now; those that are gone are left out."""
    cursor = await connection.execute(VERSIONS.format(**item_names(workflow)), [keys])
    return {(key, version) for key, version in await cursor.fetchall()}
