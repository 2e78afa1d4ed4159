"""Draws the pictures of the page on performance, of figures measured in the same run.

`python -m benchmarks.pictures [throughput] [latency] [growth]`: into docs/pictures, all where none is named. What
draws is matplotlib, in an environment of its own under `.cache/pictures`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks import batch_update, growth, growth_rows, watch_latency
from benchmarks.bed import add_places, database, service

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "pictures"
MATPLOTLIB = "matplotlib==3.11.2"
BATCHES = (10, 100, 1_000, 10_000, 100_000)
TABLES = (10_000, 100_000, 1_000_000, 10_000_000)
Curves = dict[str, list[tuple[float, float]]]
"""Points by name."""


async def throughput() -> Curves:
    """Items a second by size of the batch."""
    async with database(durable=True) as url, service(url) as bed:
        await add_places(url, 1, 2 * max(BATCHES))
        rows = [await batch_update.measured(bed, "SelectedForDeepScan", size, rounds=5) for size in BATCHES]
    return {
        "BatchUpdateStatus": [(size, size / row.ours * 1e3) for size, row in zip(BATCHES, rows, strict=True)],
        "bare UPDATE": [(size, size / row.floor * 1e3) for size, row in zip(BATCHES, rows, strict=True)],
    }


async def latency() -> Curves:
    """For each share of the events within how many milliseconds they came."""
    latencies = await watch_latency.measured(watch_latency.Pace(100, 10, 10), durable=True)
    return {
        name: [(cut * 1e3, n / 10) for n, cut in enumerate(statistics.quantiles(values, n=1000), 1)]
        for name, values in latencies.items()
    }


async def grown() -> Curves:
    """Milliseconds by rows of the table."""
    costs = await growth.measured(TABLES, 15, partial(growth_rows.of_rows, in_order=True))
    return {name: list(zip(TABLES, by_size, strict=True)) for name, by_size in costs.items()}


PICTURES = {"throughput": throughput, "latency": latency, "growth": grown}


def main(names: list[str]) -> None:
    """Measures and draws."""
    program = CACHE / "bin" / "python"
    if not (CACHE / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True)
        subprocess.run([str(program), "-m", "pip", "install", "--quiet", MATPLOTLIB], check=True)
        (CACHE / ".installed").touch()
    curves = json.dumps({name: asyncio.run(PICTURES[name]()) for name in names or PICTURES})
    drawing = [str(program), str(Path(__file__).with_name("draw.py")), str(ROOT / "docs" / "pictures")]
    subprocess.run(drawing, input=curves, text=True, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
