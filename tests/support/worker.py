"""A worker in this process, on a real PostgreSQL and with a real HTTP server to call; `gadgets` is what it enriches.

A test says what the API answers, queues gadgets, starts a worker, and waits for what the database says. Every wait is
for a mark of a probe, and ends with the error of the worker's part that died, if one did.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

from enrichment_worker.app import open_means, worker_parts
from enrichment_worker.settings import WorkerSettings
from shared.lifecycle import Part
from shared.probe import Probe
from shared.table import transition_table
from shared.workflow import Curation, EnrichmentContext, Item, Limits, QueueColumns, Values, Workflow, item_columns
from tests.support.postgres import connected

metadata = MetaData()
curation = Curation(initial="New", transitions={"New": ("Wanted",), "Wanted": ("New",)}, triggers=frozenset({"Wanted"}))
queue = QueueColumns.named("lookup")
gadgets = Table(
    "gadgets",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    *item_columns(curation, queue),
)
widgets = Table(
    "widgets",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    *item_columns(curation, queue),
)
gadget_details = Table(
    "gadget_details",
    metadata,
    Column("code", Text, primary_key=True),
    Column("label", String(20), nullable=False),
    Column("size", Integer),
)
GADGETS = Workflow(
    resource="gadgets",
    source=gadgets,
    target=gadget_details,
    target_key="code",
    curation=curation,
    queue=queue,
    enricher="tests.support.worker:enrich",
    limits=Limits(attempts_max=3, timeout_s=20, concurrency=8, backoff_s=0.01, backoff_max_s=0.02),
)
WIDGETS = replace(GADGETS, resource="widgets", source=widgets, api=GADGETS.api)
"""They call the API of the gadgets."""


async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
    """Asks the API for the gadget's details, and saves what it answers."""
    await context.progress("asking", 0.5)
    response = await context.http.get(f"{context.settings['API_URL']}/{item.data['name']}?key=s3cret")
    response.raise_for_status()
    values: Values | None = response.json()
    return values


def enrich_plainly(item: Item, context: EnrichmentContext) -> Values | None:
    """Without a call, in a thread."""
    context.progress("thinking", 1.0)  # type: ignore[unused-coroutine] # a thread cannot await
    return {"code": item.data["name"], "label": "plain"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API answers."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """The connection ends half-way through the body."""


Answer = Callable[[str], Awaitable[Reply]]


async def details(name: str) -> Reply:
    """Details that the target takes."""
    return Reply({"code": name, "label": "found", "size": 1})


class Api:
    """A local HTTP server. A test sets `answer`; the requests are counted by name."""

    def __init__(self) -> None:
        self.answer: Answer = details
        self.requests: list[str] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listens; gives its URL."""
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._converse(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ", 2)[1].decode().partition("?")[0].strip("/")
                self.requests.append(name)
                reply = await self.answer(name)
                body = json.dumps(reply.body).encode()
                headers = {"Content-Length": str(len(body)), **reply.headers}
                lines = [f"HTTP/1.1 {reply.status} X", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
                writer.write("\r\n".join(lines).encode() + (body[: len(body) // 2] if reply.cut else body))
                await writer.drain()
                if reply.cut:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class RunningWorker:
    """The parts of one worker, entered."""

    def __init__(self, probe: Probe, parts: Sequence[Part], listening: Awaitable[Any]) -> None:
        """`listening` is done once notifications are heard for the first time, which may be before this."""
        self.probe, self.parts, self.listening = probe, parts, listening
        self._watchers = [asyncio.create_task(part.ended()) for part in parts]

    async def see(self, mark: Awaitable[Any]) -> Any:
        """Awaits a mark; raises when a part dies first."""
        waiting = asyncio.ensure_future(mark)
        await asyncio.wait({waiting, *self._watchers}, return_when=asyncio.FIRST_COMPLETED)
        for watcher in self._watchers:
            if watcher.done():
                watcher.result()
        return await waiting

    async def died(self) -> None:
        """Returns never; raises what the first part to die raised."""
        await self.see(asyncio.Event().wait())

    def close(self) -> None:
        """Stops watching."""
        for watcher in self._watchers:
            watcher.cancel()


class World:
    """The database with its gadgets, and the API."""

    def __init__(self, url: str, api: Api, api_url: str) -> None:
        self.url, self.api, self.api_url = url, api, api_url
        self.workflow = GADGETS
        self.others: list[Workflow] = []
        """What workers serve besides."""
        self.table = transition_table(GADGETS)

    def limit(self, **limits: Any) -> None:
        """Changes the limits of the workflow for this test."""
        self.workflow = replace(self.workflow, limits=replace(self.workflow.limits, **limits))

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[RunningWorker]:
        """A worker; leaving drains it."""
        probe = Probe()
        listening = probe.expect("listening")
        chosen = WorkerSettings(**{"database_url": self.url, "poll_s": 0.05, **settings})
        async with AsyncExitStack() as stack:
            served = [self.workflow, *self.others]
            means = await open_means(stack, chosen, served, {"API_URL": self.api_url}, probe)
            parts = worker_parts(chosen, served, means)
            for part in parts:
                await stack.enter_async_context(part)
            running = RunningWorker(probe, parts, listening)
            stack.callback(running.close)
            yield running

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection of the test's own, in a transaction."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            yield connection

    async def queue(self, *names: str, resource: str = "gadgets") -> list[int]:
        """Adds queued gadgets, or others, in the order of their keys."""
        statement = sql.SQL("""
            INSERT INTO {table} (id, name, status, lookup_status, lookup_turn)
            SELECT coalesce((SELECT max(id) FROM {table}), 0) + n, name, 'Wanted', 'queued', n
            FROM unnest(%s::text[]) WITH ORDINALITY AS new (name, n) RETURNING id
        """).format(table=sql.Identifier(resource))
        async with self.transaction() as connection:
            cursor = await connection.execute(statement, [list(names)])
            keys = [key for (key,) in await cursor.fetchall()]
            await connection.execute("SELECT pg_notify('curation', %s)", [resource])
        return keys

    async def rows(self, table: str, order: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        async with self.transaction() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                sql.SQL("SELECT * FROM {} ORDER BY {}").format(sql.Identifier(table), sql.Identifier(order))
            )
            return await cursor.fetchall()

    async def gadgets(self) -> list[dict[str, Any]]:
        """The source rows."""
        return await self.rows("gadgets", "id")

    async def items(self) -> list[dict[str, Any]]:
        """The source rows of all that workers serve."""
        served = [self.workflow, *self.others]
        return [row for workflow in served for row in await self.rows(workflow.source.name, "id")]

    async def details(self) -> list[dict[str, Any]]:
        """The target rows."""
        return await self.rows("gadget_details", "code")

    async def idle(self, worker: RunningWorker) -> None:
        """Waits until the worker has a claim ready that is sent by the next ring. Nobody else may ring meanwhile."""
        await worker.see(worker.listening)
        heard = worker.probe.expect("heard")
        async with self.transaction() as connection:
            await connection.execute("SELECT pg_notify('curation', 'gadgets')")
        await worker.see(heard)  # a claim that was ready before is sent now
        armed = worker.probe.expect("armed")
        while not await worker.see(armed):
            armed = worker.probe.expect("armed")

    async def ended(self, worker: RunningWorker) -> list[dict[str, Any]]:
        """Waits until nothing is queued or processing; gives the source rows."""
        while True:
            flushed = worker.probe.expect("flushed")
            rows = await self.items()
            if all(row["lookup_status"] in (None, "completed", "failed") for row in rows):
                return rows
            await worker.see(flushed)


class Gate:
    """An API that answers once it is let; `asked` is set when so many calls have come."""

    def __init__(self, world: World, *, calls: int = 1) -> None:
        self.asked, self.open = asyncio.Event(), asyncio.Event()
        self._to_come = calls
        world.api.answer = self._answer

    async def _answer(self, name: str) -> Reply:
        self._to_come -= 1
        if self._to_come <= 0:
            self.asked.set()
        await self.open.wait()
        return await details(name)


def create_tables(url: str) -> None:
    """The tables of `gadgets`, in a database that has been migrated."""
    with connected(url) as connection:
        metadata.create_all(connection)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A database with the tables of `gadgets`, and an API that finds everything."""
    create_tables(database_url)
    api = Api()
    async with api.serve() as api_url:
        yield World(database_url, api, api_url)
