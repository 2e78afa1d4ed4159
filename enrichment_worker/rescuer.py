"""Gives items of dead workers to the living. Who is dead is said by the database's clock, never by this machine's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import psycopg

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.refusal import note_refusal
from shared.db.sessions import rescue
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe
from shared.waits import about

log = logging.getLogger(__name__)


class Rescuer(Part):
    """Looks for sessions that stopped beating; every worker does, and the database lets one of them have each."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        pinned: Pinned,
        expiry_s: float,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`expiry_s` says how often to look; each session says for itself how long it may be silent."""
        super().__init__()
        self._lanes, self._pinned, self._expiry_s = lanes, pinned, expiry_s
        self._random, self._probe = random, probe or Probe()

    async def _run(self) -> None:
        self.ready()
        while not self.stopping.is_set():
            try:
                for lane in self._lanes:
                    while await self._rescue(lane) and not self.stopping.is_set():
                        pass
                await self.pause(about(self._expiry_s / 3, self._random))
            except DatabaseUnavailable:
                # While PostgreSQL was away nobody could beat: give everybody the time to, or all would rescue all.
                await self.pause(self._expiry_s)

    async def _rescue(self, lane: Lane) -> int:
        try:
            async with self._pinned.transaction() as connection:
                rescued = await rescue(connection, lane.workflow, lane.table)
        except psycopg.Error as error:
            note_refusal(lane, "rescue", error)
            self._probe.mark("refused", error)
            return 0
        if rescued:
            log.warning("rescued %s items of %s from dead workers", rescued, lane.workflow.resource)
        self._probe.mark("rescued", rescued)
        return rescued
