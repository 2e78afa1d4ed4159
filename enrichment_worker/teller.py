"""What is left to do once a claim is committed: telling watchers, and forgetting claims of which nothing is in hand.

Beside the claimer, over a connection that is free whenever much is claimed: neither items nor the next claim wait.
"""

from __future__ import annotations

from math import inf

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.session import Session
from shared.db.claim import follow_up
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part


class Teller(Part):
    """Follows up the claims of one workflow, several at once where they come faster."""

    def __init__(self, *, lane: Lane, session: Session, pinned: Pinned) -> None:
        super().__init__()
        self._lane, self._session, self._pinned = lane, session, pinned

    @property
    def name(self) -> str:
        """Which workflow's teller it is."""
        return f"Teller of {self._lane.workflow.resource}"

    async def stop(self) -> None:
        """Tells nothing more; claims that are settled are forgotten with their session."""
        self._lane.claimed.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        while await self._lane.claimed.wait(inf) and not self.stopping.is_set():
            try:
                async with self._pinned.autocommit() as connection:
                    settled = self._lane.settled[:]  # not before: it may take long to have the connection
                    await follow_up(connection, self._lane.workflow, session=self._session.id, settled=settled)
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)
                self._lane.claimed.ring()
            else:
                del self._lane.settled[: len(settled)]
