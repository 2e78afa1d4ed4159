"""An API that notes when it was called, by its own clock, and how many calls it had at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from shared.workflow import EnrichmentContext, Item, Values
from tests.support.worker import Reply, details


async def enrich_timed(item: Item, context: EnrichmentContext) -> Values | None:
    """Asks the API, and says when the attempt began."""
    return await _ask(item, context, monotonic())


async def enrich_by_key(item: Item, context: EnrichmentContext) -> Values | None:
    """Uses a key: what comes before the dash in the gadget's name."""
    async with context.limit(item.data["name"].partition("-")[0]):
        return await _ask(item, context, monotonic())


def enrich_plainly_by_key(item: Item, context: EnrichmentContext) -> Values | None:
    """The same in a thread, without a call."""
    key: Any = context.limit(item.data["name"].partition("-")[0])
    with key:
        return {"code": item.data["name"], "label": "plain"}


async def _ask(item: Item, context: EnrichmentContext, began_s: float) -> Values | None:
    response = await context.http.get(f"{context.settings['API_URL']}/{item.data['name']}/{began_s}")
    response.raise_for_status()
    values: Values | None = response.json()
    return values


@dataclass(slots=True)
class Calls:
    """What an API saw. `Api.answer` is `calls.answer`."""

    then: Callable[[str], Awaitable[Reply]] = details
    """What is answered, by the gadget's name."""
    times: list[tuple[str, float, float]] = field(default_factory=list)
    """Of each call: the gadget's name, when its attempt began and when it arrived, by one clock."""
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, path: str) -> Reply:
        """Notes the call, and answers it."""
        name, _, began = path.partition("/")
        self.times.append((name, float(began), monotonic()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.then(name)
        finally:
            self.at_once -= 1

    @property
    def delay_s(self) -> float:
        """The longest way of a call from the beginning of its attempt to the API."""
        return max(arrived_s - began_s for _, began_s, arrived_s in self.times)

    def most_arrived(self, period_s: float) -> int:
        """The most calls that arrived within any period of so long."""
        return _most([arrived_s for _, _, arrived_s in self.times], period_s)

    def most_begun(self, period_s: float) -> int:
        """The most attempts that began within any period of so long."""
        return _most([began_s for _, began_s, _ in self.times], period_s)


def _most(times_s: list[float], period_s: float) -> int:
    return max(sum(start_s <= at_s < start_s + period_s for at_s in times_s) for start_s in times_s)
