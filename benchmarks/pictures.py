"""Draws the pictures of the page on performance, of figures measured in the same run.

`python -m benchmarks.pictures`: throughput by batch size, latency of the stream, and growth, into docs/pictures. What
draws is matplotlib, in an environment of its own under `.cache/pictures`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import batch_update, growth, watch_latency
from benchmarks.bed import add_places, database, service

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "pictures"
MATPLOTLIB = "matplotlib==3.11.2"
BATCHES = (10, 100, 1_000, 10_000, 100_000)
TABLES = (10_000, 100_000, 1_000_000)


async def measured() -> dict[str, Any]:
    """The curves, each as its points."""
    latency = await watch_latency.measured(watch_latency.Pace(100, 10, 10), durable=True)
    async with database(durable=True) as url, service(url) as bed:
        await add_places(url, 1, 2 * max(BATCHES))
        rows = [await batch_update.measured(bed, "SelectedForDeepScan", size, rounds=5) for size in BATCHES]
    return {
        "throughput": {
            "BatchUpdateStatus": [(size, size / row.ours * 1e3) for size, row in zip(BATCHES, rows, strict=True)],
            "bare UPDATE": [(size, size / row.floor * 1e3) for size, row in zip(BATCHES, rows, strict=True)],
        },
        "latency": {
            name: [(cut * 1e3, n / 10) for n, cut in enumerate(statistics.quantiles(values, n=1000), 1)]
            for name, values in latency.items()
        },
        "growth": {
            name: list(zip(TABLES, costs, strict=True))
            for name, costs in (await growth.measured(TABLES, 15, growth.of_rows)).items()
        },
    }


def main() -> None:
    """Measures and draws."""
    program = CACHE / "bin" / "python"
    if not (CACHE / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True)
        subprocess.run([str(program), "-m", "pip", "install", "--quiet", MATPLOTLIB], check=True)
        (CACHE / ".installed").touch()
    curves = json.dumps(asyncio.run(measured()))
    drawing = [str(program), str(Path(__file__).with_name("draw.py")), str(ROOT / "docs" / "pictures")]
    subprocess.run(drawing, input=curves, text=True, check=True)


if __name__ == "__main__":
    main()
