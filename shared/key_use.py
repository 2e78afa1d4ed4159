"""An enricher's uses of keys of its external API: each waits for its turn, and tells how it ended.

Waiting is part of an attempt's time, so it may take a part of that time only. Who would have to wait longer is turned
away: the item goes back to the queue without the loss of an attempt, and its place is free for others.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol

from shared.outcome import asked_s, clean
from shared.secrets import Secrets

WAIT_PART = 0.25
"""The part of an attempt's time that all its waiting together may take."""
WAIT_S_MAX = 5.0
"""And no more seconds than this."""


class Gate(Protocol):
    """Lets uses of keys in, within limits that hold for all workers together."""

    async def enter(self, key: str, *, wait_s: float) -> None:
        """Returns when the key may be used. Raises `TurnedAway` when that would take longer than `wait_s`."""

    def leave(self, key: str, *, lasted_s: float, hold_s: float | None) -> None:
        """The use has ended; the API asked that the key be left alone for so long."""


class KeyUses:
    """The uses of keys in one attempt."""

    def __init__(self, gate: Gate, *, secrets: Secrets, timeout_s: float) -> None:
        """To be made in the gate's event loop. `secrets` are struck out of names; `timeout_s` is the attempt's time."""
        self.gate, self.loop, self._secrets = gate, asyncio.get_running_loop(), secrets
        self.wait_s = min(WAIT_S_MAX, timeout_s * WAIT_PART)
        """How much longer the attempt may wait."""
        self.has_held = False
        """Whether the API asked that a key be left alone: that concerns the key, not the whole API."""

    def use(self, key: str) -> KeyUse:
        """To be entered, by `async with`, or by `with` in a thread. Raises `ValueError`: a key without a name."""
        if not (name := clean(key, self._secrets)):
            raise ValueError("a key needs a name")
        return KeyUse(self, name)


class KeyUse(AbstractAsyncContextManager[None], AbstractContextManager[None]):
    """One use of one key."""

    def __init__(self, uses: KeyUses, key: str) -> None:
        self._uses, self._key, self._began_s = uses, key, 0.0

    async def __aenter__(self) -> None:
        began_s = self._uses.loop.time()
        try:
            await self._uses.gate.enter(self._key, wait_s=self._uses.wait_s)
        finally:
            self._began_s = self._uses.loop.time()
            self._uses.wait_s = max(0.0, self._uses.wait_s - (self._began_s - began_s))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def __enter__(self) -> None:
        asyncio.run_coroutine_threadsafe(self.__aenter__(), self._uses.loop).result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uses.loop.call_soon_threadsafe(self._leave, error)

    def _leave(self, error: BaseException | None) -> None:
        hold_s = asked_s(error, datetime.now(UTC)) if isinstance(error, Exception) else None
        self._uses.has_held = self._uses.has_held or hold_s is not None
        self._uses.gate.leave(self._key, lasted_s=self._uses.loop.time() - self._began_s, hold_s=hold_s)
