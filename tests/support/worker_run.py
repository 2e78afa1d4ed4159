"""A run with real workers: traffic over the API, watchers, and faults of everything; then all of it is checked.

What was promised to watchers is checked as in `stream_run`; what happened to items, by replaying the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.db.engine import connect
from shared.machine import CLAIM, COMPLETE, FAIL, FIND_NOTHING, POSTPONE, RELEASE, RESCUE, RETRY
from tests.support.audit import audit
from tests.support.crew import Crew, running_crew
from tests.support.faults import NETWORK_FAULTS, PROCESS_FAULTS, Fault, misbehave
from tests.support.history import History
from tests.support.ledger import Ledger
from tests.support.operator_faults import OPERATOR_FAULTS
from tests.support.promises import check
from tests.support.receipts import note, unreceipted
from tests.support.replicas import Replicas, running_replicas
from tests.support.stream_run import Watching, table_of, together
from tests.support.traffic import Traffic
from tests.support.worker_faults import API_FAULTS, CREW_FAULTS, KILLS
from workflows.places import workflow

PROCESSES = {name: fault for name, fault in PROCESS_FAULTS.items() if not name.startswith("PostgreSQL")}
POSTGRES = {name: fault for name, fault in PROCESS_FAULTS.items() if name.startswith("PostgreSQL killed")}
SETTLE_S = 150.0
"""After the faults, until nothing is queued or under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """How much of it."""

    seconds: float
    """At least; three times as long at most, until the kills are done."""
    kills: int
    """Of workers."""
    postgres_kills: int
    workers: int = 4
    items: int = 600
    curators: int = 3
    pause_s: float = 0.1
    """Of each curator after each batch, about."""
    seed: int = 1


@dataclass(slots=True)
class WorkerOutcome:
    """What came of a run."""

    load: WorkerLoad
    crew: Crew
    history: History
    ledger: Ledger
    faults: Counter[str]
    reasons: Mapping[str, int]
    """Why items ended as failed, and how many did."""
    received: int
    """Events, over all watchers."""
    violations: Sequence[object]

    def table(self) -> str:
        """The counts, to print and to keep."""
        kinds, calls = self.ledger.kinds, self.crew.api
        accounts = self.ledger.accounts.values()
        rows = {
            "seconds of load": int(self.load.seconds),
            "batches acknowledged": len(self.history.writes),
            "commits in the log": len(self.history.log),
            "events in the log": kinds.total(),
            "claims": kinds[CLAIM],
            "- given back": kinds[RELEASE],
            "- put off while the API was down": kinds[POSTPONE],
            "- rescued from dead workers": kinds[RESCUE],
            "- to be tried again": kinds[RETRY],
            "- completed with values": kinds[COMPLETE],
            "- completed, nothing found": kinds[FIND_NOTHING],
            "- failed": kinds[FAIL],
            "- taken away by users": kinds[CLAIM] - sum(kinds[kind] for kind in _ENDS),
            "calls to the API": len(calls.calls),
            **{f"- {name}": number for name, number in sorted(calls.faults.items())},
            "items": len(accounts),
            **{
                f"- {name} at the end": number
                for name, number in sorted(Counter(account.queue_status for account in accounts).items())
            },
            **{f"- failed: {name}": number for name, number in self.reasons.items()},
            "starts of workers": self.crew.starts,
            "watchers": len(self.history.watchers),
            "events received": self.received,
            "faults": self.faults.total(),
            **{f"- {name}": number for name, number in sorted(self.faults.items())},
            "violations": len(self.violations),
        }
        return table_of(rows)


_ENDS = (RELEASE, POSTPONE, RESCUE, RETRY, COMPLETE, FIND_NOTHING, FAIL)


async def run_workers(folder: Path, load: WorkerLoad) -> WorkerOutcome:
    """Runs it.

    Raises `TimeoutError` when items do not come to an end in time, or not everybody hears of it.
    """
    settings = {"CURATION_HEARTBEAT_S": "0.2", "CURATION_STREAM_AGE_MAX_S": "30", "CURATION_GRACE_S": "2"}
    faults: Counter[str] = Counter()
    async with (
        running_replicas(folder, items=load.items, **settings) as (site, keys),
        running_crew(site, load.workers, seed=load.seed) as crew,
    ):
        async with await connect(site.url, name="receipts") as connection:
            await note(connection)
        # The last key is the runner's own.
        traffic = Traffic(lambda: site.url, site.ports, keys[:-1], seed=load.seed, cancels=0.3)
        watching = Watching(site, keys, await site.log_identity(), traffic)
        watching.recorders += watching.everybody(0, with_the_slowest=False)
        async with together(_background(watching, load)):
            await _trouble(site, crew, load, faults)
            await _settle(watching, crew)
        await crew.stop()
        ledger = Ledger(workflow.curation.initial, attempts_max=workflow.limits.attempts_max)
        async with await connect(site.url, name="audit") as connection:
            wrong = [
                *await audit(connection, workflow, ledger),
                *await unreceipted(connection, crew.api, ledger, site.cuts_s),
            ]
            cursor = await connection.execute(_REASONS)
            reasons = {f"{kind}, {message}": count for kind, message, count in await cursor.fetchall()}
        log = await site.log()
    recorders = watching.recorders
    history = History(log, traffic.writes, [each.watcher for each in recorders], frozenset(map(str, keys)))
    return WorkerOutcome(
        load=load,
        crew=crew,
        history=history,
        ledger=ledger,
        faults=faults,
        reasons=reasons,
        received=sum(each.received_count for each in recorders),
        violations=[*wrong, *check(history), *crew.unasked],
    )


_REASONS = """
SELECT g.kind, g.message, count(*) FROM places_staging s JOIN failure_group g ON g.id = s.deep_scan_failure
WHERE s.deep_scan_status = 'failed' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""


async def _settle(watching: Watching, crew: Crew) -> None:
    """No more faults, no more passing errors: everything comes to an end."""
    crew.api.be_kind()
    try:
        async with asyncio.timeout(SETTLE_S):
            await watching.settle()
    except TimeoutError:
        unfinished = await watching.site.unfinished()
        raise TimeoutError(f"late: {watching.late}; unfinished: {len(unfinished)}, {unfinished[:5]}") from None


async def _trouble(site: Replicas, crew: Crew, load: WorkerLoad, counts: Counter[str]) -> None:
    """Faults of all kinds at once, until there were enough of each and the time is over."""
    clock = asyncio.get_running_loop().time
    began_s = clock()

    def going(name: str | None = None, count: int = 0) -> bool:
        spent_s = clock() - began_s
        if spent_s > 3 * load.seconds:
            return False
        return counts[name] < count if name is not None else spent_s < load.seconds or not enough()

    def enough() -> bool:
        return counts[_KILL] >= load.kills and counts[_POSTGRES_KILL] >= load.postgres_kills

    def cause(
        on: Any, victims: Sequence[Any], faults: Mapping[str, Fault[Any, Any]], pause_s: float, *limit: Any
    ) -> None:
        running = partial(going, *limit)
        work = misbehave(on, victims, faults, counts, seed=load.seed, pause_s=pause_s, going=running)
        group.create_task(work)

    async with asyncio.TaskGroup() as group:
        each_s, each_postgres_s = load.seconds / load.kills, load.seconds / load.postgres_kills
        cause(crew, crew.hands, KILLS, each_s / 2, _KILL, load.kills)
        cause(site, site.replicas, POSTGRES, each_postgres_s / 2, _POSTGRES_KILL, load.postgres_kills)
        cause(crew, crew.hands, CREW_FAULTS, 1.0)
        cause(crew, crew.hands, API_FAULTS, 4.0)
        cause(site, site.replicas, PROCESSES, 6.0)
        cause(site, site.replicas, NETWORK_FAULTS, 2.0)
        cause(site, site.replicas, OPERATOR_FAULTS, 2.0)


(_KILL,), (_POSTGRES_KILL,) = KILLS, POSTGRES


def _background(watching: Watching, load: WorkerLoad) -> list[Coroutine[Any, Any, None]]:
    traffic = watching.traffic
    return [
        *(traffic.curator(number, load.pause_s) for number in range(load.curators)),
        traffic.retrier(2.0),
        traffic.operator(5.0),
        *(watching.follower(number) for number in range(2)),
        *(recorder.run() for recorder in watching.recorders),
    ]
