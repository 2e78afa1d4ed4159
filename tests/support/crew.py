"""Workers of a site as real processes, each started again whenever it has ended, as an orchestrator would.

Each has a proxy between itself and PostgreSQL, and all have one between themselves and the external API.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.flaky_api import FlakyApi
from tests.support.nursery import Fork, Nursery
from tests.support.proxy import HOST, Proxy
from tests.support.recorders import RESOURCE
from tests.support.replicas import Replicas
from tests.support.worker import Api

SETTINGS = {
    "CURATION_RESOURCES": RESOURCE,
    "CURATION_BEAT_S": "0.5",
    "CURATION_EXPIRY_S": "3",
    "CURATION_POLL_S": "0.5",
    "CURATION_GRACE_S": "2",
    "GOOGLE_PLACES_API_KEY": "test",
}
EXPIRY_S = float(SETTINGS["CURATION_EXPIRY_S"])


@dataclass(slots=True)
class Hand:
    """One worker."""

    back: Proxy
    """To PostgreSQL."""
    process: Fork | None = None
    """While it is ready."""
    is_told_to_stop: bool = False
    is_over: bool = False
    """It is not started again."""


class Crew:
    """All workers; entered by `running_crew`."""

    def __init__(self, site: Replicas, nursery: Nursery, hands: Sequence[Hand], api: FlakyApi, front: Proxy) -> None:
        """`front` is the way to the API."""
        self.hands, self.api, self.front = hands, api, front
        self.starts = 0
        self.unasked: list[str] = []
        """The ends of the logs of those that nobody killed or stopped."""
        self._site, self._nursery = site, nursery
        self._is_over = False

    async def supervise(self, hand: Hand) -> None:
        """Keeps one worker running until `stop`."""
        api = f"http://{HOST}:{self.front.port}"
        while not self._is_over:
            environment = self._site.environment(hand.back, GOOGLE_PLACES_URL=api, **SETTINGS)
            process = await self._nursery.start(environment, self._site.log_file("worker"))
            if await process.ready("ready,"):
                self.starts += 1
                hand.process, hand.is_told_to_stop = process, False
            code = await process.ended()
            hand.process = None
            if code != -signal.SIGKILL and not hand.is_told_to_stop:
                self.unasked.append(f"a worker ended with {code}: {process.tail}")
        hand.is_over = True

    async def ready(self, hand: Hand) -> Fork:
        """Its process, once it is ready."""
        while (process := hand.process) is None:  # noqa: ASYNC110 - whichever process of its it is
            await asyncio.sleep(0.02)
        return process

    def send(self, hand: Hand, process: Fork, number: signal.Signals) -> None:
        """A signal, if it is still that process."""
        if hand.process is process and process.exit_code is None:
            hand.is_told_to_stop |= number == signal.SIGTERM
            with suppress(ProcessLookupError):  # it has ended a moment ago
                os.kill(process.pid, number)

    async def stop(self) -> None:
        """Tells all to stop, and waits until they have."""
        self._is_over = True
        while not all(hand.is_over for hand in self.hands):
            for hand in self.hands:
                if hand.process is not None and not hand.is_told_to_stop:
                    self.send(hand, hand.process, signal.SIGTERM)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running_crew(site: Replicas, count: int, *, seed: int) -> AsyncIterator[Crew]:
    """So many workers, and the API that they call."""
    async with AsyncExitStack() as stack:
        server = Api()
        url = await stack.enter_async_context(server.serve())
        front = await stack.enter_async_context(Proxy(urlsplit(url).port or 0))
        nursery = await stack.enter_async_context(Nursery())
        hands = [Hand(await stack.enter_async_context(site.back())) for _ in range(count)]
        crew = Crew(site, nursery, hands, FlakyApi(server, seed=seed), front)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(crew.supervise(hand)) for hand in hands]
        try:
            yield crew
        finally:
            for task in tasks:
                task.cancel()
