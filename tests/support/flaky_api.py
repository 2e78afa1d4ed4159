"""A place API that fails in every way an HTTP server can. Each of its answers is one of a kind, so that what was saved
is known by the call that brought it.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections import Counter
from dataclasses import dataclass

from tests.support.worker import Api, Reply

PATH = "v1/places/"
LASTING = {"nothing to be found": 0.05, "access refused": 0.01, "no such id": 0.01, "unreadable": 0.01}
"""What some places are answered each time, and their shares."""
PASSING = {
    "500": 0.02,
    "503": 0.02,
    "429": 0.003,
    "slow": 0.2,
    "hung": 0.004,
    "cut off": 0.02,
    "cut off amid the body": 0.01,
}
"""What happens to any call, and how often."""
STATUSES = {"access refused": 403, "no such id": 400, "nothing to be found": 404, "500": 500, "503": 503, "429": 429}
LATENCY_S = (0.02, 0.2)
SLOW_S = (0.5, 5.0)


@dataclass(slots=True)
class Call:
    """One call that came in."""

    place: str
    at_s: float
    """When, since 1970."""
    is_answered: bool = False
    """Whether it got details of the place."""


class FlakyApi:
    """Put `answer` into an `Api`. Every call is written down when it comes in."""

    def __init__(self, api: Api, *, seed: int) -> None:
        self._dice = random.Random(seed)
        self.calls: list[Call] = []
        """What a call is answered names its number, which is its index here."""
        self.faults: Counter[str] = Counter()
        self.is_down = False
        """Every call gets a 503."""
        self._is_kind = asyncio.Event()
        api.answer = self._answer

    def be_kind(self) -> None:
        """Nothing passing happens any more, and what hangs is cut off."""
        self._is_kind.set()

    def counts(self) -> Counter[str]:
        """Calls by place."""
        return Counter(call.place for call in self.calls)

    async def _answer(self, path: str) -> Reply:
        place, number = path.removeprefix(PATH), len(self.calls)
        call = Call(place, time.time())
        self.calls.append(call)
        fault = self._fault(place)
        if fault is not None:
            self.faults[fault] += 1
        match fault:
            case "hung":
                await self._is_kind.wait()
                raise ConnectionResetError
            case "slow":
                await asyncio.sleep(self._dice.uniform(*SLOW_S))
            case "cut off":
                raise ConnectionResetError
            case _:
                await asyncio.sleep(self._dice.uniform(*LATENCY_S))
        if fault in STATUSES:
            return Reply({}, STATUSES[fault], {"Retry-After": "1"} if fault == "429" else {})
        if fault == "unreadable":
            return Reply("<html>")
        call.is_answered = True
        found = {"displayName": {"text": str(number)}, "location": {"latitude": 1.0, "longitude": 2.0}}
        return Reply(found, cut=fault == "cut off amid the body")

    def _fault(self, place: str) -> str | None:
        if self.is_down:
            return "503"
        return self._pick(LASTING, zlib.crc32(place.encode()) / 2**32) or (
            None if self._is_kind.is_set() else self._pick(PASSING, self._dice.random())
        )

    @staticmethod
    def _pick(shares: dict[str, float], lot: float) -> str | None:
        for name, share in shares.items():
            lot -= share
            if lot < 0:
                return name
        return None
