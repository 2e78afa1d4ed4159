"""Many replicas of the service: each reads the log itself, or one relays it to all over NATS.

`python -m benchmarks.watch_backbone [--replicas 1 4 8] [--commits 100] [--seconds 10]`: for each number of replicas, a
watcher at each, and in the same run both ways by turns: from COMMIT to the watchers, what PostgreSQL's processes
worked and what its connections were. What the writer alone costs PostgreSQL is measured first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.bed import RESOURCE, Bed, database, service, stub
from benchmarks.report import doing, table
from benchmarks.watch_entries import APPEND
from curation.v1 import curation_pb2 as pb
from tests.support.nats import nats_server

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
NUMBERED = APPEND.format(items=1).replace("i.ones\nFROM", "ARRAY[{number}]\nFROM")
"""An entry whose attempt is its number."""


async def main(replicas: list[int], commits_per_s: int, seconds: float) -> None:
    """Prints a row for each."""
    async with database() as url, nats_server() as nats:
        rows = [await _row(url, 0, "", commits_per_s, seconds)]
        for count in replicas:
            for nats_url in ("", nats.url):
                rows.append(await _row(url, count, nats_url, commits_per_s, seconds))
                doing("   ".join(rows[-1]))
    head = ("p50 ms", "p99 ms", "PostgreSQL, ms a commit", "transactions a commit", "connections")
    table(("replicas", "backbone", *head), rows, texts=2)


async def _row(url: str, replicas: int, nats_url: str, commits_per_s: int, seconds: float) -> tuple[str, ...]:
    settings: Any = {"CURATION_NATS_URL": nats_url} if nats_url else {}
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(service(url, **settings)) for _ in range(replicas)]
        beds = [await bed for bed in starting]  # one behind the other: two cores start no eight at once
        writing = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url))
        before = await _load(writing)
        latencies = await _latencies(beds, writing, commits_per_s, seconds)
        after = await _load(writing)
    total = int(commits_per_s * seconds)
    cuts = statistics.quantiles(latencies, n=100) if latencies else [0.0] * 99
    cpu_s, transactions = ((b - a) / total for a, b in zip(before[:2], after[:2], strict=True))
    numbers = (cuts[49] * 1e3, cuts[98] * 1e3, cpu_s * 1e3, transactions, after[2])
    return f"{replicas}", "NATS" if nats_url else "none", *(f"{number:.2f}" for number in numbers)


async def _latencies(
    beds: list[Bed], writing: psycopg.AsyncConnection[Any], commits_per_s: int, seconds: float
) -> list[float]:
    """Of each entry at each watcher."""
    sent: dict[int, float] = {}
    latencies: list[float] = []
    total = int(commits_per_s * seconds)

    async def watch(call: Any) -> None:
        seen = 0
        while seen < total:
            message = await call.read()
            now = time.perf_counter()
            latencies.extend(now - sent[event.attempt] for event in message.events.events)
            seen += len(message.events.events)

    async with AsyncExitStack() as stack:
        calls = []
        for bed in beds:
            channel = await stack.enter_async_context(bed.channel())
            call = stub(channel).WatchStatus(pb.WatchStatusRequest(resource=RESOURCE, skip_snapshot=True))
            stack.callback(call.cancel)
            await call.read()  # it has begun
            calls.append(call)
        async with asyncio.timeout(seconds + 30), asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(watch(call))
            began = time.perf_counter()
            for number in range(1, total + 1):
                await asyncio.sleep(began + number / commits_per_s - time.perf_counter())
                await writing.execute(NUMBERED.format(number=number))
                await writing.execute("SELECT pg_notify('curation', 'places')")
                sent[number] = time.perf_counter()
                await writing.commit()
    return latencies


async def _load(connection: psycopg.AsyncConnection[Any]) -> tuple[float, int, int]:
    """What PostgreSQL's processes have worked, in seconds; transactions so far; connections."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.commit()
    cursor = await connection.execute(
        """SELECT pg_backend_pid(), xact_commit + xact_rollback, numbackends - 1
           FROM pg_stat_database WHERE datname = current_database()"""
    )
    row = await cursor.fetchone()
    assert row is not None
    await connection.commit()
    parent = _stat(row[0])[1]
    return sum(_worked_s(parent)), row[1], row[2]


def _worked_s(parent: int) -> Iterator[float]:
    """The postmaster with its dead children, and those that live."""
    yield sum(_stat(parent)[11:15]) * TICK_S
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (stat := _stat(int(folder.name)))[1:2] == [parent]:
            yield sum(stat[11:13]) * TICK_S


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/pid/stat behind the name; the state is 0. Empty when the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0, *map(int, fields[1:])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    asyncio.run(main(options.replicas, options.commits, options.seconds))
