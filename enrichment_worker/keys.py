"""The keys of one API: hosts, tenants, whatever enrichers name; shared by the workflows that call the API.

Those who wait are asked for together, all keys in one transaction, and one such transaction is under way at a time. A
slot that nobody wants any more is kept for a moment: the key may be used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from enrichment_worker.bell import Bell
from enrichment_worker.key import Key, Waiter
from enrichment_worker.pinned import Pinned
from enrichment_worker.quota import REST_S_MIN, SLOT_S, terms_of
from shared.db.engine import Connection
from shared.db.limits import Ask, Grant, give_back, interval_s, keep, late_s, lease, postpone, reserve
from shared.enrichment import TurnedAway
from shared.errors import DatabaseUnavailable
from shared.key_use import Gate
from shared.lifecycle import Part
from shared.probe import Probe
from shared.workflow import Limits

GATHER_S = 0.01
"""A use waits so long for others that want a key, to share a transaction with them."""
HORIZON_S = 1.0
"""Uses are reserved so far ahead."""
KEPT_S = 0.25
"""A slot that nobody wants is given back after so long."""
AWAY_S_MAX = 3600.0
"""A use that is turned away comes back after this at the latest."""
IDLE_S = 1.0


class Keys(Part):
    """The keys of one API."""

    def __init__(
        self,
        *,
        api: str,
        limits: Sequence[Limits],
        session: Callable[[], int],
        pinned: Pinned,
        probe: Probe | None = None,
    ) -> None:
        """`limits` are those of the workflows that call it; `session` tells the worker's, which may be another one
        tomorrow.
        """
        super().__init__()
        self.api = api
        self._session, self._pinned, self._probe = session, pinned, probe or Probe()
        # Where workflows differ, the strictest holds, as for the breaker.
        rates = [each.key_rate for each in limits]
        self._interval_s, self._late_s = max(map(interval_s, rates)), min(map(late_s, rates))
        self._slots_max = min((n for each in limits if (n := each.key_concurrency) is not None), default=None)
        self._keys: dict[str, Key] = {}
        self._bell = Bell()
        self.turned_away = 0
        """Attempts that would have waited too long."""

    @property
    def name(self) -> str:
        """Which API's keys they are."""
        return f"Keys of {self.api}"

    @property
    def are_limited(self) -> bool:
        """Whether there is anything to wait for."""
        return self._interval_s > 0 or self._slots_max is not None

    async def stop(self) -> None:
        """Asks for nothing more."""
        self._bell.ring()
        await super().stop()

    async def enter(self, key: str, door: Door, *, wait_s: float) -> None:
        """Returns when the key may be used; raises `TurnedAway` when that would take longer than `wait_s`, or too many
        wait at this door.
        """
        loop = asyncio.get_running_loop()
        state = self._keys.setdefault(key, Key(is_leased=self._slots_max is not None))
        until_s = loop.time() + wait_s
        if sum(waiter.door is door for waiter in state.waiting) >= door.waiting_max:
            raise self._away(state, 0.0)
        while True:
            waiter = Waiter(until_s, loop.create_future(), door)
            state.waiting.append(waiter)
            self._bell.ring()
            try:
                async with asyncio.timeout_at(until_s):
                    starts_s, ends_s = await waiter.let_in
                    await asyncio.sleep(starts_s - loop.time())
            except BaseException as error:
                if state.forget(waiter):
                    self._out(state)
                if isinstance(error, TimeoutError):
                    raise self._away(state, 0.0) from None
                raise
            if loop.time() <= ends_s and loop.time() >= state.held_until_s:
                return
            self._out(state)

    def leave(self, key: str, *, lasted_s: float, hold_s: float | None) -> None:
        """A use has ended."""
        state = self._keys[key]
        state.lasts_s = (state.lasts_s + lasted_s) / 2
        self._out(state, hold_s or 0.0)

    def _out(self, state: Key, hold_s: float = 0.0) -> None:
        state.leave(asyncio.get_running_loop().time(), hold_s=hold_s, kept_s=KEPT_S)
        self._bell.ring()

    def _away(self, state: Key, free_s: float) -> TurnedAway:
        self.turned_away += 1
        now_s = asyncio.get_running_loop().time()
        apart_s = max(self._interval_s, state.lasts_s / (self._slots_max or 1), REST_S_MIN)
        after_s = min(AWAY_S_MAX, state.come_back_in(now_s, free_s=free_s, apart_s=apart_s))
        return TurnedAway(f"{self.api} is called as often as it may be", after_s)

    async def _run(self) -> None:
        self.ready()
        clock = asyncio.get_running_loop().time
        while not self.stopping.is_set():
            await self._bell.wait(max(0.0, self._next_s(clock()) - clock()))
            await self.pause(GATHER_S)
            try:
                await self._exchange(clock())
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)
                self._bell.ring()

    def _next_s(self, now_s: float) -> float:
        """When there may be something to ask for, or to give back."""
        times = [state.ask_at_s if state.waiting else state.free_at_s for state in self._keys.values()]
        return min([now_s + IDLE_S, *times])

    async def _exchange(self, now_s: float) -> None:
        """Tells what is held, asks for what those who wait need, and gives back what nobody does."""
        await self._tell_holds()
        asking = {key: state for key, state in self._keys.items() if state.waiting and state.ask_at_s <= now_s}
        freed = self._free(now_s)
        if asking or freed:
            try:
                async with self._pinned.transaction() as connection:
                    taken = await self._ask(connection, asking) if asking else {}
                    if freed:
                        await keep(connection, self.api, self._session(), freed)
            except DatabaseUnavailable:
                for key in (*asking, *freed):
                    self._keys[key].is_in_doubt, self._keys[key].free_at_s = True, now_s
                raise
            for key, share in taken.items():
                self._take(self._keys[key], *share)
            self._probe.mark("asked for keys", asking)
        for key in [key for key, state in self._keys.items() if state.is_idle and state.away_until_s <= now_s]:
            del self._keys[key]

    async def _tell_holds(self) -> None:
        """By itself: with what is asked for, keys would be locked out of order, and two workers wait for each other."""
        held = {key: state.hold_s for key, state in self._keys.items() if state.hold_s}
        if not held:
            return
        async with self._pinned.transaction() as connection:
            for key in sorted(held):
                await postpone(connection, self.api, key, held[key])
        for key, told_s in held.items():
            if self._keys[key].hold_s == told_s:  # or else it has grown meanwhile
                self._keys[key].hold_s = 0.0

    def _free(self, now_s: float) -> Mapping[str, int]:
        """How many slots each key keeps of those it has leased and no longer uses all of.

        The others are given up here, before the database is told: so what it is told stays true.
        """
        freed: dict[str, int] = {}
        for key, state in self._keys.items():
            if not state.waiting and state.free_at_s <= now_s:
                if state.slots > state.used or state.is_in_doubt:
                    freed[key] = state.slots = state.used
                state.free_at_s, state.is_in_doubt = float("inf"), False
        return freed

    async def _ask(
        self, connection: Connection, asking: Mapping[str, Key]
    ) -> Mapping[str, tuple[Grant, int, tuple[float, float]]]:
        """For each key the calls and the slots that it got, and between which times the database's clock was read."""
        clock = asyncio.get_running_loop().time
        asks = [Ask(key, max(0, len(s.waiting) - len(s.calls)), self._interval_s) for key, s in asking.items()]
        wanted = {key: state.wanted for key, state in asking.items()}
        began_s = clock()
        grants = await reserve(connection, self.api, asks, horizon_s=HORIZON_S)
        ended_s, slots = clock(), {key: wish for key, (wish, _) in wanted.items()}
        if self._slots_max is not None:
            slots = {**await lease(connection, self.api, self._session(), wanted, slots_max=self._slots_max)}
        shares = {}
        for key, grant in grants.items():
            usable = min(grant.calls, max(0, slots[key] - wanted[key][1] - len(asking[key].calls)))
            if usable < grant.calls and self._interval_s:
                await give_back(connection, self.api, key, (grant.calls - usable) * self._interval_s)
            shares[key] = replace(grant, calls=usable), slots[key], (began_s + grant.waited_s, ended_s)
        return shares

    def _take(self, state: Key, grant: Grant, slots: int, clock_s: tuple[float, float]) -> None:
        now_s = asyncio.get_running_loop().time()
        state.slots, state.is_in_doubt = slots, False
        state.free_at_s = now_s + KEPT_S  # whoever wanted them may be gone, or not get a call
        state.calls += terms_of(grant, grant.calls, clock_s, interval_s=self._interval_s, late_s=self._late_s)
        state.let_in(now_s)
        if not state.waiting:
            return
        has_slots = self._slots_max is None or state.used < state.slots
        state.ask_at_s = now_s + max(REST_S_MIN, grant.next_s - HORIZON_S / 2 if has_slots else SLOT_S)
        for waiter in [waiter for waiter in state.waiting if waiter.until_s < now_s + grant.next_s]:
            state.waiting.remove(waiter)
            if not waiter.let_in.done():
                waiter.let_in.set_exception(self._away(state, grant.next_s))


@dataclass(frozen=True, slots=True, eq=False)
class Door(Gate):
    """Where the attempts of one workflow enter."""

    keys: Keys
    waiting_max: int
    """So many may wait for one key: places that others of the workflow do not have meanwhile."""

    @classmethod
    def of(cls, keys: Keys, limits: Limits) -> Door:
        """The door of the workflow that has these limits."""
        return cls(keys, max(1, limits.concurrency // 4))

    async def enter(self, key: str, *, wait_s: float) -> None:
        """Waits at this door."""
        await self.keys.enter(key, self, wait_s=wait_s)

    def leave(self, key: str, *, lasted_s: float, hold_s: float | None) -> None:
        """A use has ended."""
        self.keys.leave(key, lasted_s=lasted_s, hold_s=hold_s)
