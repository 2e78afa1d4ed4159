"""The memory of an import: a million rows through `curation_cli`'s COPY, which sends them one by one.

`python -m benchmarks.import_rows [--rows 1000000]`. The goal is constant memory: as much as for a tenth of the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from uuid import UUID

from benchmarks.bed import database
from benchmarks.report import at_most, result, table
from curation_cli import data

WORK = "from benchmarks.import_rows import imported; import sys; imported(sys.argv[1], int(sys.argv[2]))"


def imported(url: str, rows: int) -> None:
    """Imports so many rows, none of which is there; prints seconds, and the most that was held in memory."""
    row = next(data.place_rows())

    def made() -> Iterator[data.PlaceRow]:
        for number in islice(count(), rows):
            yield row._replace(
                id=UUID(int=rows << 64 | number), external_id=f"{rows}-{number}", code=f"{rows}-{number}"
            )

    began_s = time.perf_counter()
    data.__dict__["place_rows"] = made
    assert data.import_places(url, on_progress=lambda _: None) == rows
    took_s = time.perf_counter() - began_s
    peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    result(json.dumps({"rows": rows, "per_s": rows / took_s, "peak_mib": peak_kib / 1024}))


async def main(rows: int) -> None:
    """Prints the table."""
    imports: list[dict[str, float]] = []
    async with database(durable=True) as url:
        for some in (rows // 100, rows // 10, rows):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WORK, url, str(some)), stdout=asyncio.subprocess.PIPE
            )
            told, _ = await process.communicate()
            assert process.returncode == 0
            imports.append(json.loads(told))
    table(
        ("rows", "a second", "MiB at most"),
        ((f"{each['rows']:,}", f"{each['per_s']:,.0f}", f"{each['peak_mib']:.0f}") for each in imports),
        texts=0,
    )
    at_most("memory for all beside a tenth", imports[-1]["peak_mib"] / imports[-2]["peak_mib"], 1.1, " times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().rows))
