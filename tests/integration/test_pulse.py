"""The beats of a session by themselves. How long a pulse waits is written down, and it beats when the test lets it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from enrichment_worker.pinned import Pinned
from enrichment_worker.pulse import BLOCKED_EXIT, Numbers, Pulse
from shared.db.sessions import close_session, open_session
from shared.waits import backoff
from tests.support.eventually import DEADLINE_S, eventually
from tests.support.proxy import proxied
from tests.support.worker import WIDGETS, World

BEAT_S = 10.0
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


class Waits(threading.Event):
    """What a pulse waits for between two beats: not for the time, but for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: queue.Queue[float | None] = queue.Queue()
        self._go = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.asked_s.put(timeout)
        self._go.acquire(timeout=DEADLINE_S)
        return self.is_set()

    def go(self, beats: int = 1) -> None:
        """So many waits are over."""
        self._go.release(beats)

    def set(self) -> None:
        super().set()
        self.go()


class Beating:
    """A pulse, and what was heard of it."""

    def __init__(self, session: int, url: str, numbers: Callable[[], Numbers]) -> None:
        self.heard: asyncio.Queue[bool | Exception] = asyncio.Queue()
        self.waits, self._name = Waits(), f"pulse of session {session}"
        self.pulse = Pulse(
            session,
            pinned=lambda: Pinned(url, name="beating", random=lambda: 1.0, timeout_s=DEADLINE_S),
            beat_s=BEAT_S,
            blocked_max_s=1.5 * BEAT_S,
            numbers=numbers,
            heard=self.heard.put_nowait,
        )
        self.pulse._stopping = self.waits

    @property
    def is_over(self) -> bool:
        """Whether its thread has ended."""
        return all(thread.name != self._name for thread in threading.enumerate())

    async def next_wait_s(self) -> float | None:
        return await asyncio.to_thread(self.waits.asked_s.get, timeout=DEADLINE_S)


Begin = Callable[..., Beating]


@pytest.fixture
async def session(world: World) -> int:
    async with world.transaction() as connection:
        return await open_session(connection, host="h", version="0", resources=["gadgets"])


@pytest.fixture
async def begin(world: World, session: int) -> AsyncIterator[Begin]:
    """Starts a pulse; it is stopped at the end."""
    begun: list[Beating] = []

    def begin(url: str = world.url, numbers: Callable[[], Numbers] = lambda: Numbers(0, 0, 0)) -> Beating:
        begun.append(Beating(session, url, numbers))
        begun[-1].pulse.start()
        return begun[-1]

    yield begin
    for beating in begun:
        await beating.pulse.stop()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """The codes with which this process would have ended."""
    codes: queue.Queue[int] = queue.Queue()

    def end(code: int) -> None:
        codes.put(code)
        raise InterruptedError

    monkeypatch.setattr("enrichment_worker.pulse.os._exit", end)
    monkeypatch.setattr("enrichment_worker.pulse.logging.shutdown", lambda: None)
    return codes


async def test_a_beat_that_found_no_database_is_tried_again_soon_and_the_next_one_is_as_far_as_ever(
    world: World, begin: Begin
) -> None:
    async with proxied(world.url) as (proxy, url):
        beating = begin(url)
        proxy.refuse()
        for wait_s in (BEAT_S, *(backoff(failures, lambda: 1.0) for failures in (1, 2))):
            assert await beating.next_wait_s() == wait_s
            beating.waits.go()
        await beating.next_wait_s()
        await proxy.accept()
        beating.waits.go()
        assert await beating.heard.get() is True
        assert await beating.next_wait_s() == BEAT_S
        await beating.pulse.stop()


async def test_an_event_loop_that_answers_each_time_is_never_taken_for_blocked(
    begin: Begin, exits: queue.Queue[int]
) -> None:
    beating = begin()
    for _ in range(5):
        beating.waits.go()
        assert await beating.heard.get() is True
    assert exits.empty()


async def test_a_process_whose_event_loop_is_blocked_ends_without_a_database_too(
    begin: Begin, exits: queue.Queue[int]
) -> None:
    beating = begin(NOWHERE)
    beating.waits.go(100)
    assert exits.get(timeout=DEADLINE_S) == BLOCKED_EXIT  # this blocks it
    asked_s = [beating.waits.asked_s.get() or 0.0 for _ in range(beating.waits.asked_s.qsize())]
    assert sum(asked_s) > 1.5 * BEAT_S >= sum(asked_s[:-1]), "no earlier"


async def test_a_worker_may_be_blocked_for_as_long_as_the_longest_attempt_of_all_and_its_expiry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds_s: list[float] = []

    class Noted(Pulse):
        def __init__(self, *args: Any, blocked_max_s: float, **more: Any) -> None:
            bounds_s.append(blocked_max_s)
            super().__init__(*args, blocked_max_s=blocked_max_s, **more)

    monkeypatch.setattr("enrichment_worker.session.Pulse", Noted)
    world.limit(timeout_s=300)
    world.others = [WIDGETS]
    async with world.worker(expiry_s=40):
        assert bounds_s == [340]


async def test_a_pulse_whose_session_is_over_beats_no_more(world: World, session: int, begin: Begin) -> None:
    async with world.transaction() as connection:
        await close_session(connection, session)
    beating = begin()
    beating.waits.go()
    assert await beating.heard.get() is False
    await eventually(lambda: beating.is_over)


async def test_who_stops_a_pulse_waits_for_the_beat_that_is_under_way(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.pulse.JOIN_S", DEADLINE_S)
    hanging = Hanging()
    beating = begin(numbers=hanging)
    beating.waits.go()
    await asyncio.to_thread(hanging.begun.wait)
    stopping = asyncio.create_task(beating.pulse.stop())
    await asyncio.wait([stopping], timeout=0)
    assert not stopping.done()
    hanging.go.set()
    await stopping
    assert beating.is_over
    assert beating.heard.get_nowait() is True


async def test_a_beat_that_hangs_is_left_behind_and_outlives_its_event_loop_in_silence(
    world: World, session: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.pulse.JOIN_S", 0.01)
    hanging, begun = Hanging(), []

    async def live() -> None:
        begun.append(Beating(session, world.url, hanging))
        begun[-1].pulse.start()
        begun[-1].waits.go()
        await asyncio.to_thread(hanging.begun.wait)
        async with asyncio.timeout(DEADLINE_S):
            await begun[-1].pulse.stop()

    await asyncio.to_thread(asyncio.run, live())
    assert not begun[-1].is_over
    hanging.go.set()
    await eventually(lambda: begun[-1].is_over)


class Hanging:
    """Numbers for which a beat waits."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self) -> Numbers:
        self.begun.set()
        self.go.wait(DEADLINE_S)
        return Numbers(0, 0, 0)
