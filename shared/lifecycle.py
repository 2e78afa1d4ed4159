"""How everything long-running starts and stops: one convention, kept by `Part`, and one way to run a process.

`async with part:` enters when the part is ready and leaves when it has stopped. An `app.py` enters its parts in an
`AsyncExitStack`, so that leaving drains them in reverse order and there is no shutdown code. A part that ends by
itself, by an error or without, ends the process, non-zero: a dead loop must never look like an idle one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import cache
from types import TracebackType
from typing import Any, ClassVar, Self

from shared.errors import Interrupted

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""They stop a process; a second one makes it hurry."""


class Part(ABC):
    """A long-running part of a process. A subclass writes `_run`, calls `self.ready()` in it and watches `stopping`."""

    stop_timeout_s: ClassVar[float] = 30.0
    """How long `_run` may take to return once `stopping` is set; then it is cancelled."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        """Set when the part is asked to stop: finish what is in hand, take nothing new."""
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _run(self) -> None:
        """The part's life: get ready, say so by `self.ready()`, work until `stopping`, clean up, return."""

    @property
    def name(self) -> str:
        """What logs call it."""
        return type(self).__name__

    def ready(self) -> None:
        """Called by `_run`: the part can be used now."""
        self._ready.set()

    async def __aenter__(self) -> Self:
        """Starts, and returns when ready. Raises what `_run` raised before it was."""
        if self._task is not None:
            raise RuntimeError(f"{self.name} was started before")
        self._task = asyncio.create_task(self._run(), name=self.name)
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
            if not self._ready.is_set():
                raise RuntimeError(f"{self.name} ended before it was ready")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Asks the part to stop and waits until it has; twice, or before the start, is fine.

        Whoever is cancelled while waiting here cancels the part, and still leaves only when it has ended.
        """
        self.stopping.set()
        if self._task is None:
            return
        try:
            done, _ = await asyncio.wait({self._task}, timeout=self.stop_timeout_s)
            if not done:
                log.error("%s did not stop within %s s; cancelled", self.name, self.stop_timeout_s)
        finally:
            self.cancel()
            await asyncio.wait({self._task})

    def cancel(self) -> None:
        """Ends it without letting it finish what it has in hand; nothing to do when it has ended."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Returns when the part has ended after being asked to.

        Raises what the part died of, or `RuntimeError` where it was cancelled or ended unasked.
        """
        assert self._task is not None, "not started"
        await asyncio.wait({self._task})
        if self._task.cancelled():
            raise RuntimeError(f"{self.name} was cancelled")
        self._task.result()
        if not self.stopping.is_set():
            raise RuntimeError(f"{self.name} ended unasked")

    async def work_until_stopped(self, *loops: Coroutine[Any, Any, None]) -> None:
        """Runs these side by side, and cancels them when the part is asked to stop.

        Raises:
            ExceptionGroup: one of them died; the others are cancelled.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            await self.stopping.wait()
            for task in tasks:
                task.cancel()

    async def pause(self, seconds: float) -> None:
        """Sleeps, but not past a stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass


def heed_hangup(stop: Callable[[], None]) -> None:
    """Has a process stop in order when its terminal is closed, unless it was started to outlive that (`nohup`).

    The kernel and the shell may both say so: `stop` may be called twice, and means no hurry.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop)


async def run_parts(parts: Sequence[Part], *, on_ready: str) -> None:
    """Enters the parts in order, logs `on_ready`, runs until SIGTERM, SIGINT or SIGHUP, then leaves them in reverse.

    A signal that comes while they start ends the start. A second signal cancels what is still draining. Raises what
    the first part to die raised, while it ran or while it drained.

    Raises:
        Interrupted: there was a second signal.
    """
    loop, asked, hurried = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            hurried.set()
            for part in parts:
                part.cancel()
        asked.set()

    _keep_from_children()
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    heed_hangup(asked.set)
    entered: list[Part] = []
    try:
        async with AsyncExitStack() as stack:

            async def start() -> None:
                for part in parts:
                    entered.append(await stack.enter_async_context(part))  # noqa: PERF401 -- the start may end half-way

            await _unless(asked, start())
            if not asked.is_set():
                log.info(on_ready)
                await _unless(asked, _ended(parts))
        if hurried.is_set():
            raise Interrupted("a second signal ended what was still draining")
        await _ended(entered)
    finally:
        for number in (*SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


@cache
def _keep_from_children() -> None:
    """Takes our signal handlers out of forked processes, as `multiprocessing` makes them.

    With them a signal to the child would stop this process, and not the child.
    """

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=forget)


async def _ended(parts: Sequence[Part]) -> None:
    await asyncio.gather(*(part.ended() for part in parts))


async def _unless(asked: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Runs `work` until it ends, or is cancelled because the process was asked to stop. Raises what it raised."""
    task, asking = asyncio.create_task(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({task, asking}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asking.cancel()
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
