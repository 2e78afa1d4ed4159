"""What the worker's benchmarks enrich: `samples`, rows of some 500 bytes, and enrichers that call nobody.

Their keys are in the order in which they were made, as those of other queues' jobs are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import psycopg
from sqlalchemy import Column, DateTime, Float, MetaData, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Connection, connect
from shared.db.migrate import migrate
from shared.machine import curate_trigger
from shared.registry import Registry
from shared.table import transition_table
from shared.workflow import Curation, EnrichmentContext, Item, Limits, QueueColumns, Values, Workflow, item_columns

curation = Curation(initial="New", transitions={"New": ("Scan",), "Scan": ("New",)}, triggers=frozenset({"Scan"}))
metadata = MetaData()
samples = Table(
    "samples",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("uuidv7()")),
    Column("payload", JSONB, nullable=False),
    *item_columns(curation, QueueColumns.named("scan")),
)
sample_facts = Table(
    "sample_facts",
    metadata,
    Column("sample", Uuid, primary_key=True),
    Column("name", Text),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("raw", JSONB),
    Column("seen_at", DateTime(timezone=True), server_default=func.now()),
)
at_once = Workflow(
    resource="samples",
    source=samples,
    target=sample_facts,
    target_key="sample",
    curation=curation,
    queue=QueueColumns.named("scan"),
    enricher="benchmarks.samples:find_at_once",
)
"""Its enricher does nothing, so that what is measured is the worker."""
slowly = replace(at_once, enricher="benchmarks.samples:find_slowly", limits=Limits(concurrency=400))
"""Its enricher waits, as for an external API."""
telling = replace(at_once, enricher="benchmarks.samples:find_when")
"""Its enricher finds when it was called."""
FOUND = {"name": "a name", "latitude": 48.1, "longitude": 11.6, "raw": {"a": 1}}
CALL_S = 0.2
QUEUED_AT_ONCE = 100_000


async def find_at_once(item: Item, _: EnrichmentContext) -> Values:
    """Finds the same in every sample."""
    return {"sample": item.key, **FOUND}


async def find_slowly(item: Item, _: EnrichmentContext) -> Values:
    """Finds it after a while."""
    await asyncio.sleep(CALL_S)
    return {"sample": item.key, **FOUND}


async def find_when(item: Item, _: EnrichmentContext) -> Values:
    """Finds the time of the call, by a clock that all processes of the machine share."""
    return {"sample": item.key, "latitude": time.monotonic()}


async def fill(url: str, count: int) -> None:
    """So many new samples in tables made anew; nothing of earlier ones is left."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("DROP TABLE IF EXISTS samples, sample_facts")
        await asyncio.to_thread(migrate, url, Registry(at_once))
        await connection.execute("TRUNCATE status_event, status_batch, workflow_state")
        await connection.execute(
            "INSERT INTO samples (payload) SELECT jsonb_build_object('name', repeat('x', 400), 'n', n)"
            " FROM generate_series(1, %s) n",
            [count],
        )
        await connection.execute("VACUUM ANALYZE samples")


async def queue(url: str, keys: Sequence[UUID] | None = None) -> int:
    """Sets the trigger status on samples, new ones unless keys are given, in batches of 100,000 as users may.

    Returns the position in the log of the last batch.
    """
    async with await connect(url, name="benchmark") as connection:
        keys, position = await new_samples(connection) if keys is None else keys, 0
        for start in range(0, len(keys), QUEUED_AT_ONCE):
            position = await queue_batch(connection, keys[start : start + QUEUED_AT_ONCE]) or position
        return position


async def new_samples(connection: Connection) -> list[UUID]:
    """The keys of those that were never queued."""
    return [
        key for (key,) in await (await connection.execute("SELECT id FROM samples WHERE status = 'New'")).fetchall()
    ]


async def queue_batch(connection: Connection, keys: Sequence[UUID]) -> int | None:
    """Sets it on these, in a batch that is committed when this returns. Returns its position in the log."""
    call = CurateCall(trigger=curate_trigger("Scan"), keys=keys, batch=NewBatch(status="Scan"))
    return (await curate(connection, at_once, transition_table(at_once), call)).position
