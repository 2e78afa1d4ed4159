"""A lane's share of the limits that hold for all workers together: reserved with each claim, in its transaction.

So nothing is claimed that could not begin soon, and what a claim did not need is free again when it commits.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from enrichment_worker.lane import Lane, Term
from shared.db.engine import Connection
from shared.db.limits import WHOLE, Ask, Grant, give_back, interval_s, keep, late_s, lease, reserve

HORIZON_S = 0.5
"""Calls are reserved so far ahead: enough for several to a claim, too little for a dead worker's to be missed."""
SLOT_S = 0.25
"""Where all slots are taken, perhaps by other workers, they are asked for again after so long."""
REST_S_MIN = 0.02


@dataclass(frozen=True, slots=True)
class Portion:
    """What a claim may take."""

    count: int
    """Items, at most."""
    rest_s: float = 0.0
    """There is nothing to be had that could begin soon, for so long."""
    grant: Grant | None = None
    """The calls that were reserved, where there is a rate."""
    clock_s: tuple[float, float] = (0.0, 0.0)
    """Between these times of the event loop the database's clock was read."""


class Quota:
    """One lane's share."""

    def __init__(self, lane: Lane) -> None:
        limits = lane.workflow.limits
        self._lane, self._api = lane, lane.workflow.api
        self._interval_s, self._late_s = interval_s(limits.rate), late_s(limits.rate)
        self._slots_max = limits.concurrency_total

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to ask for."""
        return self._interval_s > 0 or self._slots_max is not None

    async def reserve(self, connection: Connection, count: int, *, session: int) -> Portion:
        """Reserves what so many items need, or as much of it as there is."""
        if not self.is_limited:
            return Portion(count)
        clock = asyncio.get_running_loop().time
        asked_at_s = clock()
        ask = Ask(WHOLE, count, self._interval_s)
        grant = (await reserve(connection, self._api, [ask], horizon_s=HORIZON_S))[WHOLE]
        clock_s = (asked_at_s + grant.waited_s, clock())
        free, rest_s = grant.calls, REST_S_MIN if grant.calls < count else 0.0
        if self._interval_s > 0:
            # What is reserved from now on begins later still: time for several to come together in a claim.
            rest_s = max(rest_s, grant.next_s - HORIZON_S / 2)
        if self._slots_max is not None:
            used = self._lane.upstream.used
            wanted = {WHOLE: (used + grant.calls, used)}
            leased = await lease(connection, self._api, session, wanted, slots_max=self._slots_max)
            free = leased[WHOLE] - used
            if free < grant.calls:
                rest_s = max(rest_s, SLOT_S)
        return Portion(free, rest_s, grant, clock_s)

    async def settle(self, connection: Connection, portion: Portion, taken: int, *, session: int) -> None:
        """Gives back what was reserved and is not needed, in the same transaction."""
        if portion.grant is None:
            return
        if self._interval_s > 0 and taken < portion.grant.calls:
            await give_back(connection, self._api, WHOLE, (portion.grant.calls - taken) * self._interval_s)
        if self._slots_max is not None and taken < portion.count:
            await keep(connection, self._api, session, {WHOLE: self._lane.upstream.used + taken})

    def terms(self, portion: Portion, taken: int) -> list[Term] | None:
        """When each of the items that were taken may begin; None for at once."""
        if portion.grant is None or self._interval_s == 0:
            return None
        return terms_of(portion.grant, taken, portion.clock_s, interval_s=self._interval_s, late_s=self._late_s)


def terms_of(grant: Grant, count: int, clock_s: tuple[float, float], *, interval_s: float, late_s: float) -> list[Term]:
    """When each of the first `count` granted calls may begin.

    The grant counts from when the database's clock was read, at some time between the two of `clock_s`: by the later
    one no call begins too early, and by the earlier one none begins too late.
    """
    earliest_s, latest_s = clock_s
    starts_s = [grant.first_s + n * interval_s for n in range(count)]
    return [(latest_s + start_s, earliest_s + start_s + late_s) for start_s in starts_s]
