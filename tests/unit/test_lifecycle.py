"""Every part starts and stops by the same convention; these are its promises."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from shared.errors import Interrupted
from shared.lifecycle import Part, run_parts


class Loop(Part):
    """A part as most are: works until it is asked to stop, and notes what became of it."""

    def __init__(self, notes: list[str] | None = None, *, called: str = "loop") -> None:
        super().__init__()
        self.notes = notes if notes is not None else []
        self.called = called
        self.die = asyncio.Event()

    async def _run(self) -> None:
        self.notes.append(f"{self.called} starts")
        self.ready()
        dying = asyncio.create_task(self.die.wait())
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({dying, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self.die.is_set():
                raise ValueError(f"{self.called} died")
        finally:
            dying.cancel()
            stopping.cancel()
            self.notes.append(f"{self.called} ends")


class Slow(Part):
    """Is never ready by itself, and stops only when it is cancelled or, if it heeds, when asked to."""

    stop_timeout_s = 0.01

    def __init__(self, *, heeds: bool = True) -> None:
        super().__init__()
        self.heeds = heeds
        self.begun = asyncio.Event()
        self.cancelled = False

    async def _run(self) -> None:
        self.begun.set()
        try:
            await (self.stopping if self.heeds else asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class Stubborn(Slow):
    """Is ready, and ignores that it is asked to stop."""

    async def _run(self) -> None:
        self.ready()
        await super()._run()


class Broken(Part):
    """Fails before it is ready."""

    async def _run(self) -> None:
        raise ValueError("no room")


class Brief(Part):
    """Ends by itself."""

    def __init__(self, *, is_ready: bool) -> None:
        super().__init__()
        self.is_ready = is_ready

    async def _run(self) -> None:
        if self.is_ready:
            self.ready()


async def test_entering_returns_when_it_is_ready_and_leaving_when_it_has_ended() -> None:
    part = Loop()
    async with part:
        assert part.notes == ["loop starts"]
    assert part.notes == ["loop starts", "loop ends"]
    await part.ended()


async def test_stopping_one_that_never_started_is_fine() -> None:
    await Loop().stop()


async def test_one_that_was_stopped_before_it_started_ends_at_once_when_it_starts() -> None:
    part = Loop()
    await part.stop()
    async with part:
        await part.ended()
    assert part.notes == ["loop starts", "loop ends"]


async def test_stopping_twice_and_at_once_is_fine() -> None:
    part = Loop()
    async with part:
        await asyncio.gather(part.stop(), part.stop())
        await part.stop()
    assert part.notes == ["loop starts", "loop ends"]


async def test_stopping_it_while_it_starts_ends_it_and_entering_says_so() -> None:
    part = Slow()
    entering = asyncio.create_task(part.__aenter__())
    await part.begun.wait()
    await part.stop()
    with pytest.raises(RuntimeError, match="Slow ended before it was ready"):
        await entering


async def test_cancelling_the_one_who_enters_stops_the_part() -> None:
    part = Slow()
    entering = asyncio.create_task(part.__aenter__())
    await part.begun.wait()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert part.stopping.is_set()
    await part.ended()


async def test_one_that_does_not_stop_in_time_is_cancelled() -> None:
    part = Stubborn(heeds=False)
    async with part:
        pass
    assert part.cancelled


async def test_cancelling_the_one_who_stops_cancels_the_part_and_leaves_nothing_running() -> None:
    part = Stubborn(heeds=False)
    part.stop_timeout_s = 3600  # type: ignore[misc]
    await part.__aenter__()
    await part.begun.wait()
    stopping = asyncio.create_task(part.stop())
    await part.stopping.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert part.cancelled


async def test_an_error_before_it_is_ready_comes_out_of_entering() -> None:
    with pytest.raises(ValueError, match="no room"):
        await Broken().__aenter__()


async def test_an_end_before_it_is_ready_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="Brief ended before it was ready"):
        await Brief(is_ready=False).__aenter__()


async def test_an_error_while_it_runs_comes_out_of_ended_and_leaving_does_not_hide_it() -> None:
    part = Loop()
    async with part:
        part.die.set()
        with pytest.raises(ValueError, match="loop died"):
            await part.ended()
    with pytest.raises(ValueError, match="loop died"):
        await part.ended()


async def test_an_end_that_nobody_asked_for_is_an_error() -> None:
    async with Brief(is_ready=True) as part:
        with pytest.raises(RuntimeError, match="Brief ended unasked"):
            await part.ended()


async def test_it_starts_only_once() -> None:
    async with Loop() as part:
        with pytest.raises(RuntimeError, match="Loop was started before"):
            await part.__aenter__()


async def test_a_pause_ends_when_the_part_is_asked_to_stop() -> None:
    part = Loop()
    pausing = asyncio.create_task(part.pause(3600))
    await part.stop()
    await pausing


async def test_a_pause_ends_by_itself() -> None:
    await Loop().pause(0.001)


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[asyncio.Task[None]]:
    """`run_parts` at work, until the last of the parts is ready."""
    task = asyncio.create_task(run_parts(parts, on_ready="ready"))
    await parts[-1]._ready.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_signal_stops_the_parts_in_reverse_order() -> None:
    notes: list[str] = []
    async with running(Loop(notes, called="first"), Loop(notes, called="last")) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    assert notes == ["first starts", "last starts", "last ends", "first ends"]


def forked() -> int:
    """A process that waits for a signal."""
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that there are threads
        child = os.fork()
    if not child:
        os.write(writing, b"ready")
        signal.pause()
        os._exit(0)
    os.read(reading, 5)
    for end in (reading, writing):
        os.close(end)
    return child


async def test_a_signal_to_a_forked_process_ends_that_one_alone() -> None:
    part = Loop([])
    async with running(part):
        child = forked()
        os.kill(child, signal.SIGTERM)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await part.pause(0.001)
        assert (os.waitstatus_to_exitcode(status), part.stopping.is_set()) == (-signal.SIGTERM, False)


async def test_a_second_signal_cancels_what_still_drains() -> None:
    part = Stubborn(heeds=False)
    part.stop_timeout_s = 3600  # type: ignore[misc]
    async with running(part) as task:
        await part.begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await part.stopping.wait()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            await task
    assert part.cancelled


@contextmanager
def hangup(handler: signal.Handlers) -> Iterator[None]:
    """What a process is started with: to end when its terminal is closed, or by `nohup` to ignore that."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_closed_terminal_stops_the_parts_and_hurries_nobody() -> None:
    part = Stubborn(heeds=False)
    part.stop_timeout_s = 3600  # type: ignore[misc]
    with hangup(signal.SIG_DFL):
        async with running(part) as task:
            await part.begun.wait()
            os.kill(os.getpid(), signal.SIGHUP)
            await part.stopping.wait()
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait({task}, timeout=0.05)
            assert not part.cancelled
            part.cancel()


async def test_what_nohup_has_started_outlives_its_terminal() -> None:
    part = Loop([])
    with hangup(signal.SIG_IGN):
        async with running(part):
            os.kill(os.getpid(), signal.SIGHUP)
            await part.pause(0.01)
            assert not part.stopping.is_set()


class DiesDraining(Loop):
    """Fails once it was asked to stop."""

    async def _run(self) -> None:
        await super()._run()
        raise ValueError("could not save")


async def test_an_error_while_draining_surfaces() -> None:
    async with running(DiesDraining()) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(ValueError, match="could not save"):
            await task


async def test_a_part_that_dies_takes_the_others_down_in_order_and_its_error_surfaces() -> None:
    notes: list[str] = []
    first, last = Loop(notes, called="first"), Loop(notes, called="last")
    async with running(first, last) as task:
        first.die.set()
        with pytest.raises(ValueError, match="first died"):
            await task
    assert notes[-2:] == ["first ends", "last ends"]


async def test_a_part_that_cannot_start_takes_down_those_before_it() -> None:
    notes: list[str] = []
    with pytest.raises(ValueError, match="no room"):
        await run_parts([Loop(notes), Broken()], on_ready="ready")
    assert notes == ["loop starts", "loop ends"]


async def test_a_signal_while_the_parts_start_stops_what_has_started() -> None:
    notes: list[str] = []
    slow = Slow()
    task = asyncio.create_task(run_parts([Loop(notes), slow], on_ready="ready"))
    await slow.begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert notes == ["loop starts", "loop ends"]
    await slow.ended()
