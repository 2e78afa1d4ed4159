"""One real PostgreSQL for the whole run, and a fresh, migrated database for each test that asks for `database_url`.

`--postgres=embedded` (the default) starts the one from the wheel, `--postgres=system` the machine's own programs, and
`--postgres=postgresql://...` uses a server that runs already. A test's database is a copy of a template that was
migrated once, so it costs some hundredths of a second: in memory, that is; its three hundred files take ten times as
much processor time on a disk.
"""

from __future__ import annotations

import os
import shutil
import uuid
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.pool import NullPool

from shared.db.embedded import EmbeddedPostgres, create_database
from shared.db.engine import driver_url
from shared.db.migrate import migrate
from shared.registry import load_registry

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_size": "512MB",
}
"""Nothing of a test's data needs to outlive a crash of the machine, and its log shall not fill the memory."""
MEMORY = Path("/dev/shm")  # noqa: S108 - what is in there has names of its own
MEMORY_BYTES_MIN = 6 * 2**30
"""With less than this free in it, as in most containers, a folder is on the disk after all."""
VERSION_MIN = 14
SYSTEM_PROGRAMS = Path("/usr/lib/postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--postgres`."""
    default = os.environ.get("TEST_POSTGRES", "embedded")
    parser.addoption("--postgres", type=_server, default=default, help="embedded, system, or the URL of a server")


def _server(text: str) -> str:
    if text not in ("embedded", "system") and "://" not in text:
        raise ArgumentTypeError(f"{text!r} is neither embedded nor system, nor the URL of a server")
    return text


def system_programs() -> Path | None:
    """The newest PostgreSQL that the machine brings and we support."""
    found = (folder for folder in SYSTEM_PROGRAMS.glob("*/bin") if folder.parent.name.isdecimal())
    usable = [folder for folder in found if int(folder.parent.name) >= VERSION_MIN and (folder / "postgres").exists()]
    return max(usable, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def short_folder(prefix: str = "curation-") -> Iterator[Path]:
    """A folder for a PostgreSQL, in memory where there is room; short, since a socket's address has little."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    with TemporaryDirectory(prefix=prefix, dir=MEMORY if in_memory else None) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """One for the whole run."""
    with short_folder() as folder:
        yield folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url(request: pytest.FixtureRequest, postgres_folder: Path) -> AsyncIterator[str]:
    """The address of the server, in it the database `postgres`."""
    choice: str = request.config.getoption("--postgres")
    async with AsyncExitStack() as stack:
        if "://" in choice:
            yield choice
            return
        programs = system_programs() if choice == "system" else None
        if choice == "system" and programs is None:
            pytest.skip(f"no PostgreSQL {VERSION_MIN} or newer below {SYSTEM_PROGRAMS}")
        server = EmbeddedPostgres(postgres_folder / "postgres", settings=SETTINGS, programs=programs)
        await stack.enter_async_context(server)
        yield server.url_of("postgres")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_database(postgres_url: str) -> AsyncIterator[str]:
    """The name of a database that was migrated, and is only copied from then on."""
    name = f"template_{uuid.uuid4().hex}"
    await create_database(postgres_url, name)
    migrate(other_database(postgres_url, name), load_registry())
    yield name
    await _drop(postgres_url, name)


@pytest_asyncio.fixture
async def database_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """The address of this test's own database, migrated and without a row."""
    name = f"test_{uuid.uuid4().hex}"
    await create_database(postgres_url, name, template=template_database)
    yield other_database(postgres_url, name)
    await _drop(postgres_url, name)


@pytest_asyncio.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The address of a database of this test's own, without a table."""
    name = f"empty_{uuid.uuid4().hex}"
    await create_database(postgres_url, name)
    yield other_database(postgres_url, name)
    await _drop(postgres_url, name)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of SQLAlchemy's, in a transaction."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def other_database(url: str, name: str) -> str:
    """The address of another database of the same server."""
    return make_url(driver_url(url)).set(database=name).render_as_string(hide_password=False)


async def _drop(url: str, name: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
