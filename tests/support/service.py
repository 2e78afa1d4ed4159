"""The service in this process, on a real PostgreSQL and a real socket, with the stock client of gRPC in front of it.

`parcels` are what it curates. Every RPC goes over the wire, so that a test sees what a caller sees.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from grpc_status import rpc_status
from sqlalchemy import cast, func, insert, literal, select, text

from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.app import open_database, open_reads, service_parts
from curation_service.server import Server
from curation_service.settings import ServiceSettings
from shared.db.engine import Database
from shared.lifecycle import Part
from shared.registry import Registry
from shared.workflow import Workflow
from tests.support.eventually import DEADLINE_S
from tests.support.parcels import PARCELS, parcels

WAIT_S = DEADLINE_S
CLIENT_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""What is too big is for the server to say."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as its caller reads it."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    fields: tuple[tuple[str, str], ...]
    items: tuple[tuple[str, str, str], ...]
    """Reason, id and description of each item refused."""


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads the details of an error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # it has what a Call has
    assert status is not None, f"{error} has no details"
    info, bad, failed = ErrorInfo(), BadRequest(), PreconditionFailure()
    _unpack(status.details, info, bad, failed)
    assert info.domain == "curation"
    return Refusal(
        code=error.code(),
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple((v.field, v.description) for v in bad.field_violations),
        items=tuple((v.type, v.subject, v.description) for v in failed.violations),
    )


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that answers."""

    database: Database
    parts: Sequence[Part]
    server: Server
    address: str
    channel: grpc.aio.Channel
    stub: pb_grpc.CurationServiceAsyncStub


@asynccontextmanager
async def running_service(
    database_url: str, *, workflow: Workflow = PARCELS, beside: Sequence[Workflow] = (), **settings: Any
) -> AsyncIterator[RunningService]:
    """A service for `parcels` on any free port, with a client; `settings` are those of `ServiceSettings`.

    The tables of the workflows `beside` are the caller's to make.
    """
    chosen = ServiceSettings(**{"DATABASE_URL": database_url, "listen": "127.0.0.1:0", "grace_s": 0, **settings})
    async with workflow_database(open_database(chosen), workflow) as database, AsyncExitStack() as stack:
        reads = await stack.enter_async_context(open_reads(chosen, database))
        parts = service_parts(chosen, Registry(workflow, *beside), database, reads)
        for part in parts:
            await stack.enter_async_context(part)
        server = parts[-1]
        assert isinstance(server, Server)
        address = f"127.0.0.1:{server.port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS))
        yield RunningService(database, parts, server, address, channel, pb_grpc.CurationServiceStub(channel))


@pytest_asyncio.fixture
async def service(database_url: str) -> AsyncIterator[RunningService]:
    """A service with the settings it comes with."""
    async with running_service(database_url) as running:
        yield running


async def refused(call: Awaitable[object]) -> Refusal:
    """The error that a call must end in."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


@asynccontextmanager
async def workflow_database(database: Database, workflow: Workflow) -> AsyncIterator[Database]:
    """The database with the tables of a workflow."""
    async with database:
        async with database.core() as connection:
            await connection.run_sync(workflow.source.metadata.create_all)
        yield database


def parcel_database(url: str) -> AbstractAsyncContextManager[Database]:
    """The database with the tables of `parcels`."""
    return workflow_database(Database(url), PARCELS)


async def add_parcels(database: Database, *rows: Mapping[str, Any]) -> list[uuid.UUID]:
    """Saves parcels, each with a name and an id of its own unless it brings one. Returns their keys."""
    filled = [{"id": uuid.UUID(int=n), "name": f"parcel {n}", **row} for n, row in enumerate(rows, 1)]
    async with database.core() as connection:
        for row in filled:
            await connection.execute(insert(parcels).values(row))
    return [row["id"] for row in filled]


async def add_many(database: Database, count: int, **values: Any) -> None:
    """Saves parcels with the keys 1 to `count`, alike in the rest."""
    n, columns = func.generate_series(1, count).column_valued("n"), parcels.c
    alike = [literal(value, columns[name].type) for name, value in values.items()]
    rows = select(cast(func.lpad(func.to_hex(n), 32, "0"), columns.id.type), func.concat("parcel ", n), *alike)
    async with database.core() as connection:
        await connection.execute(insert(parcels).from_select(["id", "name", *values], rows))


async def all_parcels(database: Database) -> list[dict[str, Any]]:
    """The table as it is, by key."""
    async with database.core() as connection:
        return [row._asdict() for row in await connection.execute(select(parcels).order_by(parcels.c.id))]


async def somebody_waits_for_a_lock(
    database: Database, *, waiting: bool = True, relation: str | None = None, count: int = 1
) -> None:
    """Returns once PostgreSQL says that a transaction waits for another's lock; or, not `waiting`, that none does.

    With `relation`, for a lock of that table; `count` says how many must wait at least.
    """
    statement = text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        " AND (CAST(:relation AS text) IS NULL OR relation = CAST(:relation AS regclass))"
    ).bindparams(relation=relation)
    async with asyncio.timeout(WAIT_S), database.core() as connection:
        while (int(await connection.scalar(statement) or 0) >= count) != waiting:  # noqa: ASYNC110 - PostgreSQL has no event for it
            await asyncio.sleep(0.01)


def _unpack(details: Any, *messages: Message) -> None:
    for detail in details:
        for message in messages:
            detail.Unpack(message)
