"""The pacer sleeps until the next item's time has come."""

from __future__ import annotations

import asyncio

import pytest

from enrichment_worker.lane import Lane
from enrichment_worker.pacer import Pacer
from shared.table import transition_table
from shared.workflow import Item
from tests.support.worker import GADGETS

pytestmark = pytest.mark.every_loop
ITEMS = 40
INTERVAL_S = 0.0023


class Watched(Lane):
    """Counts how often it is asked whose time has come."""

    asked = 0

    def hand_out(self, now_s: float) -> tuple[list[Item], float | None]:
        self.asked += 1
        return super().hand_out(now_s)


async def test_it_looks_a_few_times_for_each_item_and_not_over_and_over_until_its_time_has_come() -> None:
    lane = Watched(GADGETS, transition_table(GADGETS), ahead_max=0)
    now_s = asyncio.get_running_loop().time()
    terms = [(now_s + n * INTERVAL_S, now_s + 3600) for n in range(ITEMS)]
    lane.take([Item(n, 1, 1, {}) for n in range(ITEMS)], 1, now_s=now_s, terms=terms)
    async with Pacer(lane=lane, runner=None):  # type: ignore[arg-type] # nothing lapses
        for _ in range(ITEMS):
            await lane.items.get()
    assert lane.asked <= 4 * ITEMS
