"""A process whose environment is wrong says so in one line, without a password, and ends with an exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

import curation_service.__main__ as service
import enrichment_worker.__main__ as worker
import shared.db.migrate as migration
from curation_service.settings import ServiceSettings
from enrichment_worker.settings import WorkerSettings
from shared.db.access import WORKER
from shared.db.migrate import migrate
from shared.db.readiness import DatabaseReady, connect_checked
from shared.errors import DatabaseUnavailable, DatabaseUnfit
from shared.program import FAILED, SETTINGS_WRONG, run_program
from shared.registry import Registry, load_registry
from shared.settings import DatabaseSettings
from tests.support.eventually import eventually
from tests.support.postgres import other_database
from tests.support.proxy import proxied
from tests.support.roles import as_role, new_roles
from tests.support.standby import primary_and_standby

PROGRAMS: dict[str, Callable[[], int]] = {
    "curation_service": lambda: run_program("curation_service", ServiceSettings, service.run),
    "enrichment_worker": lambda: run_program("enrichment_worker", WorkerSettings, worker.run),
    "shared.db.migrate": lambda: run_program("shared.db.migrate", DatabaseSettings, migration.run),
}
NOWHERE = "postgresql://somebody:s3cret@127.0.0.1:1/curation"
EVERY = pytest.mark.parametrize("program", PROGRAMS)
pytestmark = pytest.mark.usefixtures("logging_as_before")
LONG_RUNNING = pytest.mark.parametrize("program", ["curation_service", "enrichment_worker"])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a program in an environment; gives its exit code and the one line that it must have said."""

    def run(program: str, **environment: str) -> tuple[int, str]:
        for name in [name for name in os.environ if name.startswith(("CURATION_", "DATABASE_URL"))]:
            monkeypatch.delenv(name)
        for name, value in {"CURATION_START_TIMEOUT_S": "0", "CURATION_LISTEN": "127.0.0.1:0", **environment}.items():
            monkeypatch.setenv(name, value)
        code = PROGRAMS[program]()
        (line,) = capfd.readouterr().err.splitlines()
        assert "s3cret" not in line
        return code, line

    return run


Told = Callable[..., tuple[int, str]]


@EVERY
@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": "s3cret"}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": "mysql://somebody:s3cret@host/name"}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": "postgresql://somebody:s3cret@host:port/name"}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": f"{NOWHERE}?colour=blue"}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": "postgresql://somebody:s3cret@host:65536/name"}, "DATABASE_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": "postgresql:///name?port=0"}, "DATABASE_URL is no address of PostgreSQL"),
        (
            {"DATABASE_URL": NOWHERE, "CURATION_START_TIMEOUT_S": "ten"},
            "CURATION_START_TIMEOUT_S='ten' input",
        ),
        ({"DATABASE_URL": NOWHERE, "CURATION_START_TIMEOUT_S": "-1"}, "input should be greater than or equal to 0"),
        ({"DATABASE_URL": NOWHERE, "CURATION_START_TIMEOUT_S": "inf"}, "CURATION_START_TIMEOUT_S='inf'"),
        ({"DATABASE_URL": NOWHERE, "CURATION_LOG_LEVEL": "loud"}, "CURATION_LOG_LEVEL='loud' input should be 'DEBUG'"),
        ({"DATABASE_URL": NOWHERE, "CURATION_LISTEN_URL": "s3cret"}, "CURATION_LISTEN_URL is no address of PostgreSQL"),
        ({"DATABASE_URL": NOWHERE, "CURATION_METRICS_LISTEN": "9000"}, "is no address to listen on, `host:port`"),
        ({"CURATION_LOG_FORMAT": "xml"}, "CURATION_LOG_FORMAT='xml'"),
    ],
)
def test_a_wrong_setting_is_named(program: str, environment: dict[str, str], problem: str, told: Told) -> None:
    code, line = told(program, **environment)
    assert code == SETTINGS_WRONG
    assert line.startswith(f"{program}: SETTINGS_INVALID: ")
    assert problem in line


@pytest.mark.parametrize(
    ("program", "environment", "problem"),
    [
        ("curation_service", {"CURATION_LISTEN": "127.0.0.1:65536"}, "CURATION_LISTEN='127.0.0.1:65536' is no address"),
        ("curation_service", {"CURATION_POOL_SIZE": "0"}, "CURATION_POOL_SIZE='0' input should be greater than"),
        ("curation_service", {"CURATION_READ_URL": "s3cret"}, "CURATION_READ_URL is no address of PostgreSQL"),
        ("curation_service", {"CURATION_NATS_URL": "nats://a:1,s3cret"}, "CURATION_NATS_URL is no address of NATS"),
        ("curation_service", {"CURATION_NATS_URL": "nats://a:s3cret"}, "CURATION_NATS_URL is no address of NATS"),
        ("curation_service", {"CURATION_NATS_URL": "nats://"}, "CURATION_NATS_URL is no address of NATS"),
        (
            "curation_service",
            {"CURATION_TLS_CERTIFICATE_FILE": "a"},
            "CURATION_TLS_KEY_FILE=None must be set with CUR",
        ),
        ("curation_service", {"CURATION_TLS_KEY_FILE": "a"}, "CURATION_TLS_KEY_FILE='a' must be set with CURATION_TLS"),
        (
            "curation_service",
            {"CURATION_TLS_CLIENT_CA_FILE": "a"},
            "CURATION_TLS_CLIENT_CA_FILE='a' needs CURATION_TL",
        ),
        ("enrichment_worker", {"CURATION_EXPIRY_S": "6"}, "CURATION_EXPIRY_S='6' must be at least twice"),
    ],
)
def test_so_is_one_of_a_single_program(program: str, environment: dict[str, str], problem: str, told: Told) -> None:
    code, line = told(program, DATABASE_URL=NOWHERE, **environment)
    assert (code, problem in line) == (SETTINGS_WRONG, True), line


def test_a_certificate_that_is_not_there_is_named(told: Told) -> None:
    files = {f"CURATION_TLS_{name}_FILE": "/no/such/certificate.key" for name in ("CERTIFICATE", "KEY")}
    code, line = told("curation_service", DATABASE_URL=NOWHERE, **files)
    assert (code, "CERTIFICATE_UNUSABLE: " in line, "/no/such/certificate.key" in line) == (FAILED, True, True), line


@EVERY
@pytest.mark.parametrize(
    ("url", "problem"),
    [(NOWHERE, "Connection refused"), ("postgresql://u:s3cret@nowhere.invalid/x", "'nowhere.invalid'")],
)
def test_a_database_that_cannot_be_reached_is_said_to_be_so(program: str, url: str, problem: str, told: Told) -> None:
    code, line = told(program, DATABASE_URL=url)
    assert code == FAILED
    assert f"{program}: DATABASE_UNAVAILABLE: " in line
    assert problem in line


@EVERY
def test_a_database_that_the_server_does_not_have_is_named(program: str, database_url: str, told: Told) -> None:
    code, line = told(program, DATABASE_URL=other_database(database_url, "no_such"))
    assert (code, 'database "no_such" does not exist' in line) == (FAILED, True), line


@LONG_RUNNING
def test_a_database_that_was_not_migrated_is_refused_with_the_remedy(
    program: str, empty_database_url: str, told: Told
) -> None:
    code, line = told(program, DATABASE_URL=empty_database_url)
    assert code == FAILED
    assert "DATABASE_UNFIT: the database lacks " in line
    assert "python -m shared.db.migrate" in line


@LONG_RUNNING
def test_a_database_that_lacks_the_tables_of_a_workflow_is_refused(
    program: str, empty_database_url: str, told: Told
) -> None:
    migrate(empty_database_url, Registry())
    code, line = told(program, DATABASE_URL=empty_database_url)
    assert (code, "the database lacks" in line) == (FAILED, True), line


@pytest.fixture
def weak_url(database_url: str) -> Iterator[str]:
    """The database as a user who has no rights in it."""
    with new_roles(database_url, "weak") as (name,):
        yield as_role(database_url, name)


@EVERY
def test_a_user_without_rights_is_named(program: str, weak_url: str, told: Told) -> None:
    code, line = told(program, DATABASE_URL=weak_url)
    assert code == FAILED
    assert "DATABASE_UNFIT: " in line
    assert "may not SELECT" in line or "permission denied" in line


@EVERY
def test_a_user_for_whom_the_database_is_read_only_is_named(program: str, database_url: str, told: Told) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on")
        user = connection.info.user
    code, line = told(program, DATABASE_URL=database_url)
    assert (code, f"DATABASE_UNFIT: default_transaction_read_only is on for {user}" in line) == (FAILED, True), line


def test_a_worker_for_what_nobody_declares_is_refused(database_url: str, told: Told) -> None:
    code, line = told("enrichment_worker", DATABASE_URL=database_url, CURATION_RESOURCES="placos")
    assert (code, "no resource 'placos'; there are: local_businesses, places" in line) == (FAILED, True), line


@pytest.mark.parametrize(
    ("program", "variable"),
    [
        ("curation_service", "CURATION_LISTEN"),
        ("curation_service", "CURATION_METRICS_LISTEN"),
        ("enrichment_worker", "CURATION_METRICS_LISTEN"),
    ],
)
def test_an_address_that_is_taken_is_named(program: str, variable: str, database_url: str, told: Told) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = told(program, DATABASE_URL=database_url, **{variable: address})
    assert (code, f"ADDRESS_UNAVAILABLE: cannot listen on {address}: " in line) == (FAILED, True), line


async def test_a_database_of_another_encoding_is_refused(postgres_url: str) -> None:
    name = f"ascii_{uuid.uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(DatabaseUnfit, match="keeps text as SQL_ASCII"):
            await asyncio.to_thread(connect_checked, other_database(postgres_url, name))
        await connection.execute(f"DROP DATABASE {name}")


async def test_a_standby_is_refused(tmp_path: Path) -> None:
    async with primary_and_standby(tmp_path) as (_, standby):
        with pytest.raises(DatabaseUnfit, match="is a standby"):
            await asyncio.to_thread(connect_checked, standby)


@asynccontextmanager
async def server_of(version: str) -> AsyncIterator[str]:
    """Greets as such a PostgreSQL would, and says no more."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        status = b"server_version\x00" + version.encode() + b"\x00"
        writer.write(b"R\x00\x00\x00\x08\x00\x00\x00\x00")
        writer.write(b"S" + (len(status) + 4).to_bytes(4) + status)
        writer.write(b"Z\x00\x00\x00\x05I")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield f"postgresql://u@127.0.0.1:{server.sockets[0].getsockname()[1]}/x?sslmode=disable&gssencmode=disable"
    server.close()


@pytest.mark.parametrize(
    ("version", "problem"),
    [("13.23", "PostgreSQL 13 is too old: 14 or newer"), ("14.0", "keeps text as None")],
    ids=["too old", "old enough"],
)
async def test_a_server_that_is_too_old_is_refused_and_of_others_more_is_asked(version: str, problem: str) -> None:
    async with server_of(version) as url:
        with pytest.raises(DatabaseUnfit, match=problem):
            await asyncio.to_thread(connect_checked, url)


def ready(url: str, timeout_s: float) -> DatabaseReady:
    return DatabaseReady(url=url, workflows=load_registry().values(), access=WORKER, timeout_s=timeout_s)


async def test_a_database_that_comes_later_is_waited_for(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with proxied(database_url) as (proxy, url):
        proxy.refuse()
        part = ready(url, 30)
        starting = asyncio.create_task(part.__aenter__())
        await eventually(lambda: "waiting for the database" in caplog.text)
        await proxy.accept()
        await starting
        await part.stop()


@pytest.mark.parametrize("answer_bytes", [100, 520, 600, 700])
async def test_so_is_one_that_goes_while_it_is_looked_at(
    answer_bytes: int, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(database_url) as (proxy, url):
        proxy.cut_after(answer_bytes)
        async with ready(url, 30) as part:
            assert "waiting for the database" in caplog.text
            assert not part.stopping.is_set()
            assert proxy.accepted_count == 2


async def test_so_is_a_log_that_somebody_has_locked(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.readiness.LOCK_TIMEOUT", "SET LOCAL lock_timeout = '0.1s'")
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE status_event")
        part = ready(database_url, 30)
        starting = asyncio.create_task(part.__aenter__())
        await eventually(lambda: "another transaction holds a lock for too long" in caplog.text)
        holder.rollback()
        await starting
        await part.stop()


async def test_who_waits_for_a_database_says_so_once_and_stops_when_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.readiness.RETRY_S", 0.01)
    attempts: list[asyncio.StreamWriter] = []

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        part = ready(f"postgresql://u@{address}/x?sslmode=disable&gssencmode=disable", 3600)
        starting = asyncio.create_task(part.__aenter__())
        await eventually(lambda: len(attempts) > 3)
        await part.stop()
        await starting
    assert caplog.text.count("waiting for the database") == 1


async def test_a_database_is_not_waited_for_beyond_the_limit() -> None:
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        async with ready(NOWHERE, 0.01):
            pass


async def test_a_server_that_does_not_answer_is_given_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.db.readiness.CONNECT_TIMEOUT_S", 2)  # libpq takes nothing less
    async with proxied(database_url) as (proxy, url):
        proxy.stall()
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            async with ready(url, 0):
                pass


@EVERY
def test_the_exit_code_is_that_of_the_process(program: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", program], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (SETTINGS_WRONG, "")
    assert done.stderr == f"{program}: SETTINGS_INVALID: DATABASE_URL is not set\n"


def test_a_worker_that_may_open_too_few_files_for_its_attempts_says_so() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "DATABASE_URL": NOWHERE,
        "CURATION_START_TIMEOUT_S": "0",
    }
    few = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-m", "enrichment_worker"]
    done = subprocess.run(few, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert "attempts may run at once, but only 64 files be open (ulimit -Hn)" in done.stderr
