"""A long, steady run: batches, retries, pauses and watchers on services and workers that nobody harms.

Looks at what every process holds and at the size of every table, all along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.db.engine import Connection, connect
from shared.db.queue import count_queue
from shared.db.ring import ENTRY_WEIGHT
from shared.db.tail import ITEMS_MAX
from tests.support.crew import running_crew
from tests.support.eventually import eventually_async
from tests.support.leaks import Held
from tests.support.recorders import BareStream
from tests.support.replicas import Replicas, running_replicas
from tests.support.sizes import Sizes
from tests.support.stream_run import Watching, together
from tests.support.traffic import Traffic
from workflows.places import workflow

WAYS: Sequence[dict[str, Any]] = (
    {},
    {"skip_snapshot": True},
    {"filter": 'country = "DE"'},
    {"filter": 'status = "New"'},
)
"""To watch."""
_FILL = """
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, from_queue, to_queue,
                          batch, worker, items, versions, attempts, errors, run_ats)
SELECT nextval('status_event_position'), 1, 'places', 'retry', 'SelectedForDeepScan', 'SelectedForDeepScan',
       'processing', 'queued', n, n, ARRAY[%(key)s::text], ARRAY[n], ARRAY[n], ARRAY['places API answered 503 ' || n],
       ARRAY[now()]
FROM generate_series(1000, 1000 + %(count)s) n"""
"""As large as entries of one item are."""
FILL_S = 600.0
"""So long may the first look at all items take."""
SAMPLES = 60
WARM_SHARE = 0.2
"""Of the run, before the first sample: pools fill, caches too."""
WARM_PACE = 10.0
"""So many times as fast meanwhile, or the events that services keep for the next watcher would fill all along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakLoad:
    """How much of it."""

    seconds: float
    items: int = 5_000
    workers: int = 2
    curators: int = 2
    watchers: int = 20
    pause_s: float = 0.3
    """Of each curator after each batch, about."""
    seed: int = 1


@dataclass(slots=True)
class SoakOutcome:
    """What came of it."""

    held: Held
    """What the processes held, by second."""
    names: list[str]
    """Of the processes."""
    sizes: Sizes
    calls: int
    batches: int
    received: int
    unasked: list[str]
    """What the workers that ended by themselves have said."""

    def table(self) -> str:
        """What it was, to print and to keep."""
        counts = f"{self.batches:,} batches, {self.calls:,} calls to the API, {self.received:,} events received"
        return "\n\n".join([counts, self.held.table(self.names, of="second"), self.sizes.table()])


class Forgetful(BareStream):
    """Counts what it is told, and keeps no more than the last of it."""

    def told(self, part: object, token: str) -> None:
        super().told(part, token)
        del self.watcher.streams[:-1]
        del self.watcher.streams[-1].messages[:-1]
        self._same.clear()
        self.progress.clear()


async def soak(folder: Path, load: SoakLoad) -> SoakOutcome:
    """Runs it."""
    async with (
        running_replicas(folder, items=load.items, CURATION_STREAM_AGE_MAX_S="60") as (site, keys),
        running_crew(site, load.workers, seed=load.seed) as crew,
    ):
        traffic = Traffic(lambda: site.url, site.ports, keys, seed=load.seed, cancels=0.05)
        watching = Watching(site, keys, await site.log_identity(), traffic)
        watching.recorders += [_watcher(watching, number) for number in range(load.watchers)]
        pids = [replica.process.pid for replica in site.replicas if replica.process is not None]
        pids += [(await crew.ready(hand)).pid for hand in crew.hands]
        held, sizes = Held(pids), Sizes()
        async with await connect(site.url, name="soak") as connection:
            # So that what services remember of the log is full from the beginning, and grows no more.
            await connection.execute(_FILL, {"key": str(keys[0]), "count": ITEMS_MAX // ENTRY_WEIGHT})
            # The target, too, has the rows that it will have.
            await traffic.scan_all()
            await eventually_async(lambda: _is_scanned(connection), within_s=FILL_S)
        async with together(_background(watching, load)):
            await _look(site, traffic, held, sizes, load)
            traffic.busy = False
            crew.api.be_kind()
        names = [f"service {n}" for n in range(len(site.replicas))] + [f"worker {n}" for n in range(load.workers)]
        return SoakOutcome(
            held=held,
            names=names,
            sizes=sizes,
            calls=len(crew.api.calls),
            batches=len(traffic.writes),
            received=sum(each.received_count for each in watching.recorders),
            unasked=crew.unasked,
        )


async def _look(site: Replicas, traffic: Traffic, held: Held, sizes: Sizes, load: SoakLoad) -> None:
    clock = asyncio.get_running_loop().time
    began_s = clock()
    traffic.pace = WARM_PACE
    async with await connect(site.url, name="soak") as connection:
        for number in range(SAMPLES + 1):
            due_s = load.seconds * (WARM_SHARE + (1 - WARM_SHARE) * number / SAMPLES)
            await asyncio.sleep(max(0.0, due_s - (clock() - began_s)))
            traffic.pace = 1.0
            held.sample(clock() - began_s)
            await sizes.sample(connection, clock() - began_s)


async def _is_scanned(connection: Connection) -> bool:
    return not (await count_queue(connection, workflow)).ready


def _watcher(watching: Watching, number: int) -> Forgetful:
    return Forgetful(f"watcher {number}", watching.log.id, watching.site.ports, **WAYS[number % len(WAYS)])


def _background(watching: Watching, load: SoakLoad) -> list[Coroutine[Any, Any, None]]:
    traffic = watching.traffic
    return [
        *(traffic.curator(number, load.pause_s) for number in range(load.curators)),
        traffic.retrier(10.0),
        traffic.operator(30.0),
        *(recorder.run() for recorder in watching.recorders),
    ]
