"""A run: writers, watchers of all kinds and faults on a site of real processes; gives the history for the checker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc.aio

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from shared.db.log import LogIdentity
from shared.db.token import decode_token, encode_token
from tests.support.faults import NETWORK_FAULTS, PROCESS_FAULTS, misbehave
from tests.support.history import EVERYTHING, History, Selection
from tests.support.promises import Violation, check
from tests.support.recorders import CHANNEL, AsyncClient, BareStream, PlainClient, Recorder
from tests.support.replicas import Replicas, running_replicas
from tests.support.traffic import Traffic

GERMAN = 'country = "DE"'
SETTLE_S = 90.0
"""After the faults, until everybody has everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of it."""

    seconds: float
    items: int = 300
    curators: int = 2
    workers: int = 2
    dawdlers: int = 2
    pause_s: float = 0.05
    """Of each writer after each write, about."""
    copies: int = 1
    """Of the set of watchers."""
    followers: int = 2
    """Who follow batches to their end, one after another."""
    fault_pause_s: float | None = None
    """Between two faults of processes, and a quarter of it between two of the network; None for no faults."""
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    history: History
    violations: Sequence[Violation]
    received: int
    """Events, over all watchers."""
    faults: Counter[str]
    followed: Sequence[pb.BatchProgress]
    """The last numbers that were told of each batch that was followed."""

    def table(self, load: Load) -> str:
        """The counts, to print and to keep."""
        streams = [stream for _, stream in self.history.streams()]
        rows = {
            "seconds of load": int(load.seconds),
            "commits in the log": len(self.history.log),
            "events in the log": len(self.history.positions),
            "writes acknowledged": len(self.history.writes),
            "watchers": len(self.history.watchers),
            "streams that they opened": len(streams),
            "of these with a snapshot": sum(stream.with_snapshot for stream in streams),
            "events received": self.received,
            "batches followed to their end": len(self.followed),
            "faults": self.faults.total(),
            **{f"- {name}": number for name, number in sorted(self.faults.items())},
            "violations": len(self.violations),
        }
        return table_of(rows)


@dataclass(slots=True)
class Watching:
    """Who watches a site, and the traffic that they watch."""

    site: Replicas
    keys: Sequence[UUID]
    log: LogIdentity
    traffic: Traffic
    recorders: list[Recorder] = field(default_factory=list)
    followed: list[pb.BatchProgress] = field(default_factory=list)
    following: set[int] = field(default_factory=set)
    """Batches that are not done, as far as those know who follow them."""
    last: int = 0
    """The position of the last change, once it is made."""

    def everybody(self, copy: int, *, with_the_slowest: bool = True) -> list[Recorder]:
        """A set of watchers; the last key is in each one's selection. The slowest needs half a minute to catch up."""
        one, other = self.site.ports if copy % 2 else reversed(self.site.ports)
        some = [*map(str, self.keys[:20]), str(self.keys[-1])]
        ids, few = pb.ItemIds(ids=some), Selection(frozenset(some))
        german = Selection(frozenset(map(str, self.keys[2::3])))
        start = encode_token(self.log.id, self.log.pruned_through)

        def bare(
            name: str, selection: Selection = EVERYTHING, *, of: Sequence[int] = (one, other), **options: Any
        ) -> Recorder:
            return BareStream(f"{name} {copy}", self.log.id, of, selection=selection, **options)

        return [
            bare("everything", of=[one]),
            bare("from now on", of=[other], skip_snapshot=True),
            bare("from the beginning", resume_token=start),
            bare("some by id", few, ids=ids),
            bare("some by filter", german, filter=GERMAN, skip_snapshot=True),
            bare("by a status that changes", Selection(statuses=frozenset({"New"})), filter='status = "New"'),
            bare("without reports", Selection(skip_progress=True), skip_progress=True),
            bare("slow", pause_s=0.05, resume_token=start),
            *([bare("very slow", pause_s=0.3, skip_snapshot=True)] if with_the_slowest else []),
            bare("hopping", hops_after=20, resume_token=start),
            bare("hopping by id", few, hops_after=5, ids=ids),
            AsyncClient(f"client {copy}", self.log.id, one),
            AsyncClient(f"client by id {copy}", self.log.id, other, selection=few, ids=some, skip_snapshot=True),
            PlainClient(f"plain client {copy}", self.log.id, other),
            PlainClient(f"plain client by filter {copy}", self.log.id, one, selection=german, filter=GERMAN),
        ]

    async def follower(self, number: int) -> None:
        """Follows one batch after another to its end; the log says whether all of it came."""
        ports = [self.site.ports[number % 2], self.site.ports[(number + 1) % 2]]
        while True:
            batch, token = await self.traffic.batches.get()
            fields: dict[str, Any] = {"batch_id": str(batch), "end_when_done": True}
            if batch % 2:
                fields["resume_token"] = token
            following = BareStream(f"batch {batch}", self.log.id, ports, selection=Selection(batch=batch), **fields)
            following.watcher.to_the_end = False
            self.recorders.append(following)
            self.following.add(batch)
            await following.run()
            self.following.discard(batch)
            self.followed.append(following.progress[-1])

    async def settle(self) -> None:
        """Lets the workers finish, makes one last change that concerns everybody, and waits until all have it."""
        self.traffic.busy = False
        while self.traffic.writers or await self.site.unfinished() or not self.traffic.batches.empty():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.site.ports[0]}", options=CHANNEL) as channel:
            stub = pb_grpc.CurationServiceStub(channel)
            for status in ("Selected", "New"):
                token = (await self.traffic.set_status(stub, status, self.keys[-1:])).resume_token
        self.last = decode_token(token, self.log.id)
        while self.late:  # noqa: ASYNC110 - across processes
            await asyncio.sleep(0.05)

    @property
    def late(self) -> list[str]:
        """Who does not have the last change."""
        return [each.watcher.name for each in self.recorders if each.watcher.to_the_end and each.reached < self.last]


async def run(folder: Path, load: Load, **settings: str) -> Outcome:
    """Runs it; `settings` are more variables of the services' environment.

    Raises `TimeoutError` when not everybody has everything in time, and what a watcher raised.
    """
    settings = settings | {
        "CURATION_HEARTBEAT_S": "0.2",
        "CURATION_STREAM_AGE_MAX_S": str(max(2.0, load.seconds / 5)),
        "CURATION_GRACE_S": "2",
    }
    faults: Counter[str] = Counter()
    async with running_replicas(folder, items=load.items, **settings) as (site, keys):
        # The last key is the runner's own.
        traffic = Traffic(lambda: site.url, site.ports, keys[:-1], seed=load.seed)
        run = Watching(site, keys, await site.log_identity(), traffic)
        run.recorders += [each for copy in range(load.copies) for each in run.everybody(copy)]
        async with together(_background(run, load)):
            await _trouble(site, load, faults)
            try:
                async with asyncio.timeout(SETTLE_S):
                    await run.settle()
            except TimeoutError:
                unfinished = await site.unfinished()
                told = f"late: {run.late}; unfinished: {unfinished}; still followed: {run.following}"
                raise TimeoutError(told) from None
        log = await site.log()
    history = History(log, traffic.writes, [each.watcher for each in run.recorders], frozenset(map(str, keys)))
    received = sum(each.received_count for each in run.recorders)
    return Outcome(history, check(history), received, faults, run.followed)


async def _trouble(site: Replicas, load: Load, counts: Counter[str]) -> None:
    clock = asyncio.get_running_loop().time
    until_s = clock() + load.seconds
    if load.fault_pause_s is None:
        await asyncio.sleep(load.seconds)
        return
    async with asyncio.TaskGroup() as group:
        for seed, (faults, pause_s) in enumerate(
            [(PROCESS_FAULTS, load.fault_pause_s), (NETWORK_FAULTS, load.fault_pause_s / 4)], load.seed
        ):
            group.create_task(
                misbehave(
                    site, site.replicas, faults, counts, seed=seed, pause_s=pause_s, going=lambda: clock() < until_s
                )
            )


def _background(run: Watching, load: Load) -> list[Coroutine[Any, Any, None]]:
    traffic = run.traffic
    return [
        *(traffic.curator(number, load.pause_s) for number in range(load.curators)),
        *(traffic.worker(load.pause_s) for _ in range(load.workers)),
        *(traffic.dawdler(load.pause_s) for _ in range(load.dawdlers)),
        traffic.rescuer(),
        *(run.follower(number) for number in range(load.followers)),
        *(recorder.run() for recorder in run.recorders),
    ]


def table_of(counts: Mapping[str, int]) -> str:
    """As Markdown has it."""
    lines = [f"| {name} | {number:,} |" for name, number in counts.items()]
    return "\n".join(["| what | count |", "| --- | ---: |", *lines])


@asynccontextmanager
async def together(work: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """All of it, until the block is left; the block is left when one of them fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
