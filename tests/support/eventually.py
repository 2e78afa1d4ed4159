"""The one place where a test may poll: for what has no event, and below a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 60.0
"""Ten times what it takes on a machine with other work: only a test that fails waits so long."""


async def eventually(holds: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    """Returns once it holds; raises `TimeoutError` when that takes too long."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - for what has no event
            await asyncio.sleep(0.005)


async def eventually_async(holds: Callable[[], Awaitable[bool]], *, within_s: float = DEADLINE_S) -> None:
    """The same, for what has to be asked, e.g. of a database."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - for what has no event
            await asyncio.sleep(0.02)
