"""The numbers of a process, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from urllib.request import urlopen

from shared.metrics import Metrics, MetricsServer, metrics_parts
from tests.support.eventually import DEADLINE_S


async def scrape(server: MetricsServer) -> list[str]:
    """The samples, without their descriptions."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    text = await asyncio.to_thread(lambda: urlopen(url, timeout=DEADLINE_S).read().decode())
    return [line for line in text.splitlines() if not line.startswith("#")]


async def test_numbers_are_those_of_the_moment_they_are_asked_for() -> None:
    metrics, held = Metrics(), set[int]()
    metrics.gauge("items_held", "Held.", held.__len__, resource="places")
    metrics.gauge("items_held", "Held.", lambda: 7, resource="parcels")
    metrics.counter("items_done", "Done.", lambda: 3)
    async with MetricsServer(metrics=metrics, listen="127.0.0.1:0") as server:
        samples = ['items_held{resource="places"} 0.0', 'items_held{resource="parcels"} 7.0', "items_done_total 3.0"]
        assert await scrape(server) == samples
        held.add(1)
        assert (await scrape(server))[0] == 'items_held{resource="places"} 1.0'


def test_nobody_is_served_where_nobody_asked() -> None:
    assert not metrics_parts(Metrics(), None)
