"""Claims what there is room for, ahead of need, so that the runner never waits for the database.

Woken by notifications, by room, and by its own poll: the poll alone would carry the load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from math import inf

import psycopg

from enrichment_worker.armed import Armed
from enrichment_worker.lane import Hold, Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.quota import Portion, Quota
from enrichment_worker.refusal import note_refusal
from enrichment_worker.session import Session
from enrichment_worker.strays import release_strays
from shared.db.api_states import begin_probe, may_probe
from shared.db.claim import Claimed, claim, ready_claim
from shared.db.in_hand import own_items
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe
from shared.waits import about, backoff

log = logging.getLogger(__name__)

RESTART_S = 1.0
"""For so long a claim starts where the last one ended; then at the front, for what came back to an earlier turn."""
RESTART_SHARE = 0.05
"""Claims from the front take no more of the time than this: while an old transaction is open, each walks over all that
was claimed since."""
PROBE_SPARE_S = 15.0
"""A probe is taken for lost, and another one made, so long after its attempt should have ended."""
LOOK_S = 30.0
"""A worker that has ever lost an answer looks so often for items that it does not know of: a claim may be committed
long after its connection was lost, where the disc or a standby is slow."""
BREATH_S = 0.02
"""A pause after a claim that emptied the queue: every commit of any worker notifies, and not each deserves a query."""


class Claimer(Part):
    """The claims of one workflow."""

    def __init__(
        self,
        *,
        lane: Lane,
        session: Session,
        pinned: Pinned,
        shared_pinned: Pinned,
        end_doubt: Callable[[AbstractSet[Hold]], None],
        poll_s: float,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`pinned` plans claims once; those with something around them are made over `shared_pinned`. `end_doubt` is
        told which items of a claim in doubt are not this worker's.
        """
        super().__init__()
        self._lane, self._session, self._pinned, self._shared_pinned = lane, session, pinned, shared_pinned
        self._end_doubt = end_doubt
        self._poll_s, self._random, self._probe = poll_s, random, probe or Probe()
        self._quota = Quota(lane)
        self._look_at_s = inf
        self._failures = 0
        """Claims that found no database, or were not allowed, since one succeeded over the usual connection."""
        self._has_emptied = True
        """The last claim emptied the queue."""
        self._is_idle = False
        """The next claim waits for news."""
        self._turn, self._restart_at_s = -inf, 0.0

    @property
    def name(self) -> str:
        """Which workflow's claimer it is."""
        return f"Claimer of {self._lane.workflow.resource}"

    async def stop(self) -> None:
        """Claims nothing more."""
        self.stopping.set()  # first: a ring may send a claim
        self._lane.work.ring()
        await super().stop()

    async def _run(self) -> None:
        self.ready()
        try:
            await self._claim_on()
        finally:
            self._end_doubt(self._lane.in_doubt.copy())  # nobody would ask any more

    async def _claim_on(self) -> None:
        while not self.stopping.is_set():
            try:
                if self._lane.in_doubt:
                    await self._resolve()
                else:
                    await self._step()
            except DatabaseUnavailable:
                # The claim may have been committed all the same, and its answer lost.
                self._look_at_s = -inf
                await self._back_off()
            except psycopg.Error as error:
                # Other workflows go on, and so does this one once its source allows it.
                note_refusal(self._lane, "claim", error)
                self._probe.mark("refused", error)
                await self._back_off()

    async def _back_off(self) -> None:
        self._failures += 1
        self._is_idle, self._turn = False, -inf  # what a claim got that was not committed is in the queue still
        await self.pause(backoff(self._failures, self._random))

    async def _step(self) -> None:
        limit, is_idle = self._lane.room, self._is_idle
        self._is_idle = False
        if self._lane.upstream.is_barred():
            await self._wait_for_api()
        elif limit < self._lane.portion:
            await self._lane.work.wait(self._poll_s)
        elif is_idle:
            await asyncio.sleep(BREATH_S)  # no `pause`: the items just claimed begin once this task waits
            if not self.stopping.is_set():
                await self._wait_for_items(limit)
        else:
            rest_s = await self._claim(limit)
            if rest_s and not self._has_emptied:
                await self.pause(rest_s)

    async def _wait_for_items(self, limit: int) -> None:
        """Waits until there may be some; where nothing has to be asked before, they are claimed by whoever rings."""
        wait_s, session, loop = about(self._poll_s, self._random), self._session.id, asyncio.get_running_loop()
        if self._quota.is_limited:
            await self._lane.work.wait(wait_s)
            return
        async with self._pinned.autocommit() as connection:
            ready = await ready_claim(connection, self._lane.workflow, self._lane.table, session=session, limit=limit)
        portion = Portion(ready.limit)

        def may_be_sent() -> bool:
            if self.stopping.is_set() or self._lane.upstream.is_barred():
                return False
            return session == self._session.id and loop.time() < self._look_at_s

        def take(claimed: Claimed) -> None:
            self._take(portion, claimed, from_front=True, in_doubt=True)
            if claimed.items:
                self._probe.mark("claimed by a ring", claimed.items)

        self._probe.mark("armed", not self._lane.work.is_rung)
        if await Armed(ready, self._pinned, may_be_sent).wait(self._lane.work, wait_s, take):
            self._end_doubt(frozenset())

    async def _resolve(self) -> None:
        """Items have begun whose claim may not be committed: asks the database, and has those end that are not ours."""
        async with self._shared_pinned.autocommit() as connection:
            own = await own_items(connection, self._lane.workflow, self._session.id)
        lost = self._lane.in_doubt - {(item.key, item.version) for item in own}
        self._end_doubt(lost)
        if lost:
            log.warning("%s: a claim of %s items that had begun was not committed", self.name, len(lost))
            self._probe.mark("not committed", lost)
        while lost & self._lane.held.keys() and not self.stopping.is_set():
            await self._lane.work.wait(self._poll_s)  # the next claim may get the same ones, under the same versions

    async def _wait_for_api(self) -> None:
        """One item, of all workers, is tried while the API is down; no other one is claimed."""
        upstream, now_s = self._lane.upstream, asyncio.get_running_loop().time()
        wait_s = max(upstream.held_s, upstream.probe_at_s - now_s if upstream.is_broken else 0.0)
        if upstream.is_broken and wait_s <= 0:
            if self._lane.room:
                await self._claim(1, probe=True)
            # It has its item now, or there is none to be had, or no room.
            wait_s = about(self._poll_s, self._random)
        await self._lane.work.wait(min(max(wait_s, BREATH_S), self._poll_s))

    async def _claim(self, limit: int, *, probe: bool = False) -> float:
        """Returns for how long there is nothing more to be had that could begin soon."""
        lane, session, now_s = self._lane, self._session.id, asyncio.get_running_loop().time()
        if now_s >= self._restart_at_s:
            self._turn = -inf
        from_front = self._turn == -inf
        in_doubt = now_s >= self._look_at_s
        is_alone = not (in_doubt or probe or self._quota.is_limited)
        async with self._pinned.autocommit() if is_alone else self._shared_pinned.transaction() as connection:
            if in_doubt and (released := await release_strays(connection, lane, session=session)):
                log.info("%s: released %s items claimed without our knowing", self.name, released)
            portion, claimed = Portion(0), Claimed((), self._turn)
            if not probe or await may_probe(connection, lane.upstream.api):
                portion = await self._quota.reserve(connection, limit, session=session)
            if portion.count:
                claimed = await claim(
                    *(connection, lane.workflow, lane.table),
                    session=session,
                    limit=portion.count,
                    from_turn=-inf if probe else self._turn,
                    probe=probe,
                )
            await self._quota.settle(connection, portion, len(claimed.items), session=session)
            if probe and claimed.items:
                lease_s = lane.workflow.limits.timeout_s + PROBE_SPARE_S
                await begin_probe(connection, lane.upstream.api, lease_s=lease_s)
        if in_doubt:
            self._look_at_s = now_s + LOOK_S
            self._probe.mark("looked for strays")
        else:
            self._failures = 0
        if from_front:
            ended_s = asyncio.get_running_loop().time()
            self._restart_at_s = ended_s + max(RESTART_S, (ended_s - now_s) / RESTART_SHARE)
        self._take(portion, claimed, from_front=from_front, probe=probe)
        return portion.rest_s

    def _take(
        self, portion: Portion, claimed: Claimed, *, from_front: bool, probe: bool = False, in_doubt: bool = False
    ) -> None:
        items, terms = claimed.items, self._quota.terms(portion, len(claimed.items))
        if not probe:
            self._turn, self._has_emptied = claimed.turn, len(items) < portion.count
            if self._has_emptied:
                self._turn, self._is_idle = -inf, from_front  # if not from there, more may be before
        elif items:
            self._lane.upstream.begin_probe(items[0])
            terms = None  # it is the only call
        more = 0 < len(items) == portion.count
        now_s = asyncio.get_running_loop().time()
        self._lane.take(items, claimed.position, now_s=now_s, more=more, terms=terms, in_doubt=in_doubt)
        self._probe.mark("claimed", items)
