"""`barrels`: a few items, and workers that crash with some in hand; they use the statements of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import BigInteger, Column, MetaData, Table

from enrichment_worker.lane import Lane
from enrichment_worker.strays import release_strays
from shared.db.claim import claim, follow_up
from shared.db.engine import Connection, Database, connect
from shared.db.finish import Result, finish
from shared.db.sessions import beat, close_session, open_session
from shared.failure import Failure
from shared.machine import COMPLETE, FAIL, RETRY
from shared.table import transition_table
from shared.workflow import Curation, Item, Limits, QueueColumns, Workflow, item_columns

CURATION = Curation(
    initial="New",
    transitions={
        "New": ("Scan", "Weigh", "Archived"),
        "Scan": ("New", "Weigh", "Archived"),
        "Weigh": ("Scan", "Archived"),
        "Archived": ("New",),
    },
    triggers=frozenset({"Scan", "Weigh"}),
)
QUEUE = QueueColumns.named("check")
METADATA = MetaData()
BARRELS = Workflow(
    resource="barrels",
    source=Table("barrels", METADATA, Column("id", BigInteger, primary_key=True), *item_columns(CURATION, QUEUE)),
    target=Table(
        "barrel_contents",
        METADATA,
        Column("barrel", BigInteger, primary_key=True, autoincrement=False),
        Column("version", BigInteger, nullable=False),
    ),
    target_key="barrel",
    curation=CURATION,
    queue=QUEUE,
    enricher="tests.support.barrels:never",
    limits=Limits(attempts_max=3),
)
TABLE = transition_table(BARRELS)
COUNT = 4
"""Items of a schedule."""
CROWD = 3
"""Workers."""
EXPIRY_S = 3600.0
"""No session expires by itself."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all examples share: a database with the tables of barrels."""

    runner: asyncio.Runner
    database: Database
    """Of the service."""
    connections: Sequence[Connection]
    """Of the workers."""


@contextmanager
def running_bench(url: str) -> Iterator[Bench]:
    """On a database with the tables of barrels."""
    with asyncio.Runner() as runner:
        connections = [runner.run(connect(url, name="worker")) for _ in range(CROWD)]
        database = Database(url)
        yield Bench(runner, database, connections)
        runner.run(database.__aexit__(None, None, None))
        for connection in connections:
            runner.run(connection.close())


@dataclass(slots=True)
class Crashable:
    """One worker: its session, and what it believes to hold."""

    session: int
    lane: Lane = field(default_factory=lambda: Lane(BARRELS, TABLE, ahead_max=100))
    held: list[Item] = field(default_factory=list)
    is_silent: bool = False
    """It has not beaten for too long."""
    in_doubt: bool = False
    """A claim may have been committed without its knowing."""

    @classmethod
    async def start(cls, connection: Connection) -> Self:
        """A new one."""
        return cls(
            await open_session(connection, host="h", version="1", resources=[BARRELS.resource], expiry_s=EXPIRY_S)
        )

    async def claim(self, connection: Connection, limit: int, *, heard: bool = True) -> Sequence[Item]:
        """Takes items. A claim that is not `heard` was committed, and its answer lost."""
        if self.in_doubt:
            await release_strays(connection, self.lane, session=self.session)
        claimed = await claim(connection, BARRELS, TABLE, session=self.session, limit=limit)
        self.in_doubt = not heard
        if heard and claimed.items:
            self.held += claimed.items
            await follow_up(connection, BARRELS, session=self.session, settled=self.lane.settled)
            self.lane.settled.clear()
            self.lane.take(claimed.items, claimed.position, now_s=0.0)
            self.lane.take_back()  # there is no runner
        return claimed.items

    def result(self, index: int, trigger: str, *, later: bool) -> Result:
        """How the attempt at one that it holds ends; it holds it no more."""
        item = self.held.pop(index % len(self.held))
        self.lane.settle([item], now_s=0.0)
        return result(item, trigger, later=later)

    async def beat(self, connection: Connection) -> bool:
        """Says that it lives; False when it was taken for dead."""
        return await beat(connection, self.session, in_flight=len(self.held), done=0, failed=0)

    async def fall_silent(self, connection: Connection) -> None:
        """Beats no more, and has not for too long."""
        self.is_silent = True
        await connection.execute("UPDATE worker_session SET expiry_s = 0 WHERE id = %s", (self.session,))

    async def drain(self, connection: Connection) -> None:
        """Ends in order: gives back what it has, and closes its session."""
        await finish(connection, BARRELS, TABLE, [result(item, "release") for item in self.held])
        await close_session(connection, self.session)


def result(item: Item, trigger: str, *, later: bool = False) -> Result:
    """How an attempt ends. What is saved says under which version it was claimed."""
    error = f"barrel {item.key} leaks" if trigger in (RETRY, FAIL) else None
    return Result(
        item,
        trigger,
        error=error,
        failure=None if error is None else Failure.of("the barrels", "Leak", error),
        # At a time of its own, as in `_let_time_pass` of the schedule.
        delay_s=EXPIRY_S if later else 1e-6 * (item.key % 1000 - 1000),
        values={"barrel": item.key, "version": item.version} if trigger == COMPLETE else None,
    )


async def only_new_barrels(connection: Connection) -> list[int]:
    """Adds some that nothing has happened to; there are no others. Returns their keys."""
    for table in ("barrels", "workflow_state", "failure_group"):
        await connection.execute(f"DELETE FROM {table}".encode())
    cursor = await connection.execute(
        """INSERT INTO barrels (id) SELECT coalesce((SELECT max(barrel) FROM barrel_contents), 0) + n
           FROM generate_series(1, %s) n RETURNING id""",
        (COUNT,),
    )
    return [key for (key,) in await cursor.fetchall()]


async def contents(connection: Connection, keys: Sequence[int]) -> Mapping[int, int]:
    """What is saved, by item: the version under which it was claimed."""
    cursor = await connection.execute(
        "SELECT barrel, version FROM barrel_contents WHERE barrel = ANY(%s)", (list(keys),)
    )
    return dict(await cursor.fetchall())
