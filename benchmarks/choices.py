"""What was chosen for the worker and its tables, beside what was not: each is a setting that can be changed.

`python -m benchmarks.choices [--items 100000] [--rounds 3]`, by turns in one run: drains by size of a commit, number of
connections, what is claimed ahead, and without prepared statements; drains by fillfactor of the source table; pick-up
by notification and by polling alone, and what an idle worker costs.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from statistics import median

import psycopg

from benchmarks.bed import database
from benchmarks.drain import drain, drain_queued
from benchmarks.pickup import pickup
from benchmarks.report import doing, table
from benchmarks.samples import fill, queue
from benchmarks.worker import worker

DRAINS = {
    "as it is: 2,000 results to a commit, 2 connections for commits, 8,000 items ahead": {},
    "100 results to a commit": {"CURATION_FLUSH_SIZE": "100"},
    "1,000 results to a commit": {"CURATION_FLUSH_SIZE": "1000"},
    "300 results to a commit": {"CURATION_FLUSH_SIZE": "300"},
    "1 connection for commits": {"CURATION_COMMITS_AT_ONCE": "1"},
    "3 connections for commits": {"CURATION_COMMITS_AT_ONCE": "3"},
    "4,000 items ahead": {"CURATION_CLAIM_AHEAD_MAX": "4000"},
    "500 items ahead": {"CURATION_CLAIM_AHEAD_MAX": "500"},
    "nothing prepared": {"CURATION_PREPARE_THRESHOLD": "none"},
}
"""Settings of the worker."""
FILLFACTORS = (100, 85, 70, 50)
"""Of the source table; 70 is what migrating sets."""
DEAF = "postgresql://nobody@127.0.0.1:1/nowhere"
"""Where no notification is heard."""
POLLS_S = (0.1, 1.0)
PICKUPS = 50
IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Pass:
    """Samples from the batch to the last completion."""

    queued_s: float
    drained_per_s: float
    table_mb: float


async def main(items: int, rounds: int) -> None:
    """Prints the tables."""
    async with database(durable=True) as url:
        await drains(url, items, rounds)
        await fillfactors(url, items, rounds)
        await pickups(url)


async def drains(url: str, items: int, rounds: int) -> None:
    """By settings of the worker."""
    taken: dict[str, list[float]] = {name: [] for name in DRAINS}
    for _ in range(rounds):
        for name, settings in DRAINS.items():
            taken[name].append((await drain(url, items, **settings)).per_s)
            doing(f"  {name}: {taken[name][-1]:,.0f}/s")
    first = taken[next(iter(DRAINS))]
    table(
        (f"a drain of {items:,}", "items/s", "of as it is"),
        (
            (name, f"{median(rates):,.0f}", f"{median(a / b for a, b in zip(rates, first, strict=True)):.2f}")
            for name, rates in taken.items()
        ),
    )


async def fillfactors(url: str, items: int, rounds: int) -> None:
    """By how full PostgreSQL fills the pages of the source table."""
    passes: dict[int, list[Pass]] = {fillfactor: [] for fillfactor in FILLFACTORS}
    for _ in range(rounds):
        for fillfactor in FILLFACTORS:
            passes[fillfactor].append(await _pass(url, items, fillfactor))
            doing(f"  fillfactor {fillfactor}: {passes[fillfactor][-1]}")
    table(
        ("fillfactor", "batch, ms", "drain, items/s", "table afterwards, MB"),
        (
            (
                str(fillfactor),
                f"{median(each.queued_s for each in found) * 1e3:,.0f}",
                f"{median(each.drained_per_s for each in found):,.0f}",
                f"{median(each.table_mb for each in found):,.0f}",
            )
            for fillfactor, found in passes.items()
        ),
    )


async def _pass(url: str, items: int, fillfactor: int) -> Pass:
    await fill(url, items)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"ALTER TABLE samples SET (fillfactor = {fillfactor})".encode())
        await connection.execute("VACUUM FULL samples")
        await connection.execute("VACUUM ANALYZE samples")
        began_s = time.perf_counter()
        await queue(url)
        queued_s = time.perf_counter() - began_s
        drained = await drain_queued(url, items)
        row = await (await connection.execute("SELECT pg_relation_size('samples')")).fetchone()
        assert row is not None
        return Pass(queued_s, drained.per_s, int(row[0]) / 1e6)


async def pickups(url: str) -> None:
    """By notification, and by polling alone."""
    ways: dict[str, dict[str, str]] = {"notified, and polled every 1 s: as it is": {}} | {
        f"polled every {poll_s:g} s": {"CURATION_LISTEN_URL": DEAF, "CURATION_POLL_S": str(poll_s)}
        for poll_s in POLLS_S
    }
    lines = []
    for name, settings in ways.items():
        took_ms = await pickup(url, PICKUPS, **settings)
        lines.append((name, f"{median(took_ms):,.1f}", f"{await _idle(url, **settings):,.1f}"))
        doing(f"  {lines[-1]}")
    table(("pick-up", "p50 ms", "idle, ms of a core a second"), lines)


async def _idle(url: str, **settings: str) -> float:
    """What a worker takes that has nothing to do."""
    async with worker(url, **settings) as running:
        await asyncio.sleep(1)
        before_s = running.cpu_s
        await asyncio.sleep(IDLE_S)
        return (running.cpu_s - before_s) / IDLE_S * 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.items, options.rounds))
