"""One key of an API as this worker has it: who waits, what is reserved, and who is in. Nothing here waits or asks."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import inf

from enrichment_worker.lane import Term


@dataclass(slots=True, eq=False)
class Waiter:
    """One use that waits."""

    until_s: float
    """When it is turned away."""
    let_in: asyncio.Future[Term]
    door: object
    """The door at which it waits."""


@dataclass(slots=True, eq=False)
class Key:
    """One key. All times are of the event loop's clock."""

    is_leased: bool
    """Whether a use needs a slot."""
    lasts_s: float = 0.5
    """How long a use lasts, about."""
    waiting: deque[Waiter] = field(default_factory=deque)
    used: int = 0
    slots: int = 0
    """The slots that it has leased."""
    calls: deque[Term] = field(default_factory=deque)
    """When the uses that are reserved, and have not begun, may begin."""
    ask_at_s: float = -inf
    """The database is not asked for more before then: there is nothing to be had."""
    free_at_s: float = inf
    """When slots that nobody wants are given back."""
    is_in_doubt: bool = False
    """An answer was lost: more slots may be leased than it knows of."""
    hold_s: float = 0.0
    """Everybody is to leave it alone for so long, and does not know yet."""
    held_until_s: float = -inf
    away_until_s: float = -inf
    """When the one that was turned away last comes back; the next one comes after it."""

    @property
    def wanted(self) -> tuple[int, int]:
        """How many slots it wants, and how many it uses."""
        return self.used + len(self.waiting), self.used

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it."""
        return not (self.waiting or self.used or self.slots or self.hold_s or self.is_in_doubt)

    def let_in(self, now_s: float) -> None:
        """Lets in who can be; calls whose time has passed are lost."""
        while self.calls and self.calls[0][1] < now_s:
            self.calls.popleft()
        while self.waiting and self.calls and (not self.is_leased or self.used < self.slots):
            waiter = self.waiting.popleft()
            if not waiter.let_in.done():
                self.used += 1
                waiter.let_in.set_result(self.calls.popleft())

    def forget(self, waiter: Waiter) -> bool:
        """Takes out one that waits no more. Returns whether it had been let in."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        let_in = waiter.let_in
        return let_in.done() and not let_in.cancelled() and let_in.exception() is None

    def leave(self, now_s: float, *, hold_s: float, kept_s: float) -> None:
        """A use has ended."""
        self.used -= 1
        if hold_s > 0:
            self.hold_s, self.held_until_s = max(self.hold_s, hold_s), max(self.held_until_s, now_s + hold_s)
            self.calls.clear()
        self.free_at_s = now_s + kept_s
        if self.is_leased:
            self.ask_at_s = -inf
        self.let_in(now_s)

    def come_back_in(self, now_s: float, *, free_s: float, apart_s: float) -> float:
        """In how many seconds one that is turned away may try again: one after the other, as they can be let in."""
        self.away_until_s = max(self.away_until_s, now_s + free_s) + apart_s
        return self.away_until_s - now_s
