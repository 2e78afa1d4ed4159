"""How long the set-up with a PostgreSQL of its own takes to be ready, on a data folder that is there.

`python -m benchmarks.start [--rounds 5]`: PostgreSQL, migrations, the service until it says that it serves, and a
worker. The goal is 3 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import at_most, result
from curation_cli.up import Setup, started

GOAL_S = 3.0


async def main(rounds: int) -> None:
    """Prints the median and the longest."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    taken: list[float] = []
    with TemporaryDirectory(prefix="curation-") as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - PostgreSQL does not run as root, and must reach its folder
        setup = Setup(folder=Path(folder), port=0, environment=environment)
        async with started(setup):
            pass  # makes the data folder
        for _ in range(rounds):
            began_s = time.perf_counter()
            async with started(setup):
                taken.append(time.perf_counter() - began_s)
    median = statistics.median(taken)
    result(f"Ready after {median:.2f} s, at the longest of {rounds} after {max(taken):.2f} s.\n")
    at_most("ready", median, GOAL_S, " s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args().rounds))
