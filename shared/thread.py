"""Runs what blocks in a thread of its own: nobody waits for it, neither for a place in a pool nor at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(call: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Starts it. The future has what it returns, or the `Exception` that it raises.

    A thread cannot be interrupted: it goes on when the future is cancelled, and what comes of it is dropped. It is a
    daemon, so that one that never ends lets the process end.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: Exception | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = call()
        except Exception as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, value, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
