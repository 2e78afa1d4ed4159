"""The rights that the page on roles grants are those that are needed: with them all goes, and each is missed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import grpc.aio
import psycopg
import pytest

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from shared.db.access import SERVICE, WORKER, check_access
from shared.db.migrate import migrate
from shared.errors import DatabaseUnfit
from shared.registry import load_registry
from tests.docs.pages import ROOT, blocks
from tests.docs.system import add_places, running_system
from tests.docs.test_workers import run_all
from tests.support.roles import as_role, new_roles
from tests.support.worker import Api, Reply

pytestmark = pytest.mark.postgres_versions

PAGE = ROOT / "docs" / "operate" / "roles.md"
STATEMENTS = [line for block in blocks(PAGE, "sql") for line in block.text.replace("\n    ", " ").splitlines()]
GRANT = re.compile(r"GRANT ([A-Z, ]+) ON (?:SEQUENCE )?([a-z_, ]+) TO curation_(\w+);")
GRANTED = [
    (role, table, act)
    for acts, tables, role in GRANT.findall("\n".join(STATEMENTS))
    for table in tables.split(", ")
    for act in acts.split(", ")
]
ROLES = ("owner", "service", "worker", "reader")
ACCESS = {"service": SERVICE, "worker": WORKER}
ITEM = "00000000-0000-0000-0000-000000000001"


@dataclass(frozen=True, slots=True)
class Granted:
    """A database that the page's owner has migrated, with all that the page grants; the roles by the page's words."""

    url: str
    names: Mapping[str, str]

    def run(self, statement: str) -> None:
        """As the superuser, with `curation_service` and so on for the roles."""
        with psycopg.connect(self.url) as connection:
            connection.execute(re.sub(r"\bcuration_(\w+)", lambda found: self.names[found[1]], statement))

    def url_of(self, role: str) -> str:
        """The address for one of them."""
        return as_role(self.url, self.names[role])


@pytest.fixture
def granted(empty_database_url: str) -> Iterator[Granted]:
    with new_roles(empty_database_url, *ROLES) as names:
        granted = Granted(empty_database_url, dict(zip(ROLES, names, strict=True)))
        created, statements = STATEMENTS[: len(ROLES)], STATEMENTS[len(ROLES) :]
        assert created == [f"CREATE ROLE curation_{role} LOGIN;" for role in ROLES]
        granted.run(statements[0])
        migrate(granted.url_of("owner"), load_registry())
        for statement in statements[1:]:
            granted.run(statement)
        yield granted


async def test_with_the_rights_of_the_page_all_goes(granted: Granted, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(_: str) -> Reply:
        return Reply(status=400)

    api = Api()
    api.answer = refuse
    await add_places(granted.url)
    granted.run("ALTER TABLE places_staging ENABLE ROW LEVEL SECURITY")
    async with AsyncExitStack() as stack:
        key = {"GOOGLE_PLACES_API_KEY": "test"}
        environment = {"GOOGLE_PLACES_URL": await stack.enter_async_context(api.serve()), **key}
        urls = {"worker_url": granted.url_of("worker"), "read_url": granted.url_of("reader")}
        system = running_system(granted.url_of("service"), load_registry(), environment, **urls)
        address = await stack.enter_async_context(system)
        told = await run_all([line.split() for line in LINES], address)
        assert "7 items, 7 changed, 7 queued" in told["retry places --batch 1"]
        stub = pb_grpc.CurationServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(address)))
        await read_all(stub)
        denied = [record for record in caplog.records if "denied" in record.getMessage()]
        assert {record.name for record in denied} <= {"curation_service.log_keeper"}
        for _, table, act in [each for each in GRANTED if each[0] == "reader"]:
            granted.run(f"REVOKE {act} ON {table} FROM curation_reader")
            with pytest.raises(grpc.aio.AioRpcError, match=f"permission denied for table {table}"):
                await read_all(stub)
            granted.run(f"GRANT {act} ON {table} TO curation_reader")


LINES = (
    "set places SelectedForDeepScan --filter id:*",
    "watch places --batch 1",
    f"why places {ITEM}",
    "workers",
    "workflows",
    "failures places",
    "pause places --reason r",
    "resume places --reason r",
    "retry places --batch 1",
)


async def read_all(stub: pb_grpc.CurationServiceAsyncStub) -> None:
    """What a standby is asked for."""
    for resource in load_registry():
        await stub.CountItems(pb.CountItemsRequest(resource=resource, filter='queue_status = "processing"'))
    await stub.GetItem(pb.GetItemRequest(resource="places", id=ITEM))


@pytest.mark.parametrize("role", ACCESS)
async def test_a_right_that_the_page_grants_and_a_role_has_not_is_named_at_start(role: str, granted: Granted) -> None:
    def check() -> None:
        with psycopg.connect(granted.url_of(role)) as connection:
            check_access(connection, load_registry().values(), ACCESS[role])

    await asyncio.to_thread(check)
    for _, table, act in [each for each in GRANTED if each[0] == role]:
        granted.run(f"REVOKE {act} ON {table} FROM curation_{role}")
        with pytest.raises(DatabaseUnfit, match=f'the user {granted.names[role]} may not {act} "?{table}"?:'):
            await asyncio.to_thread(check)
        granted.run(f"GRANT {act} ON {table} TO curation_{role}")
