"""The embedded PostgreSQL: starts on nothing, is shared, survives the death of whoever started it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from shared.db.embedded import EmbeddedPostgres
from shared.db.embedded_settings import server_settings
from shared.db.embedded_site import SHARED_PLACE, SOCKET_PATH_BYTES_MAX, find_site, wheel_programs
from shared.errors import DatabaseUnavailable

SETTINGS = {"fsync": "off"}
LATIN = os.fsdecode("größe".encode("latin-1"))
"""A name that is not UTF-8, as one that is UTF-8 is to a process whose locale is C."""
OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from shared.db.embedded import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"}) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

KILLED_AT_ITS_START = f"""
import os
from shared.db.embedded import EmbeddedPostgres
EmbeddedPostgres._wait_until_ready = lambda self, process: os.kill(os.getpid(), 9)
{OTHER_PROCESS}"""


@pytest.fixture
def folder(postgres_folder: Path, request: pytest.FixtureRequest) -> Path:
    """Of this test alone, and short."""
    return postgres_folder / f"{abs(hash(request.node.nodeid)):x}"


@asynccontextmanager
async def other_process(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Another process that uses the server of the folder, and its address; ends when its standard input does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, str(folder), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    yield process, (await process.stdout.readline()).decode().strip()
    process.stdin.close()
    await process.wait()


async def ask(url: str, question: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(question)
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None


async def is_up(url: str) -> bool:
    try:
        return await ask(url, "SELECT 1") == 1
    except psycopg.OperationalError:
        return False


async def test_it_makes_its_folder_keeps_its_data_and_stops_on_leaving(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        url = server.url
        await ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
    assert not await is_up(url)
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 7
        assert await ask(server.url, "SHOW server_encoding") == "UTF8"
        assert await ask(server.url, "SHOW fsync") == "off"


async def test_its_buffers_are_a_share_of_the_memory_unless_it_is_told_otherwise(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        size = "SELECT pg_size_bytes(current_setting('shared_buffers'))"
        assert await ask(server.url, size) == int(server_settings()["shared_buffers"].removesuffix("MB")) * 2**20
    async with EmbeddedPostgres(folder, settings=SETTINGS | {"shared_buffers": "16MB"}) as server:
        assert await ask(server.url, "SHOW shared_buffers") == "16MB"


async def test_it_listens_on_no_network_and_only_its_user_can_reach_its_socket(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await ask(server.url, "SHOW listen_addresses") == ""
        sockets = Path(str(await ask(server.url, "SHOW unix_socket_directories")))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


async def test_who_finds_it_running_uses_it_and_leaves_it_running(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        async with other_process(folder) as (_, url):
            assert url == server.url
        assert await is_up(server.url)


async def test_the_last_one_out_stops_it_though_another_one_started_it(folder: Path) -> None:
    async with other_process(folder) as (starter, url), EmbeddedPostgres(folder, settings=SETTINGS):
        assert starter.stdin is not None
        starter.stdin.close()
        await starter.wait()
        assert await is_up(url)
    assert not await is_up(url)


async def test_two_that_start_at_once_share_one(folder: Path) -> None:
    async with other_process(folder) as (_, first), other_process(folder) as (_, second):
        assert first == second
        assert await is_up(first)
    assert not await is_up(first)


async def test_when_its_starter_is_killed_the_next_one_takes_it_over_and_stops_it(folder: Path) -> None:
    async with other_process(folder) as (starter, url):
        starter.kill()
        await starter.wait()
        assert await is_up(url)
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert server.url == url
    assert not await is_up(url)


async def test_so_does_one_whose_starter_was_killed_before_it_answered(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS):
        pass  # the folder is there
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_AT_ITS_START, str(folder))
    assert await starter.wait() == -signal.SIGKILL
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await is_up(server.url)
    assert not await is_up(server.url)


async def test_after_a_crash_of_postgresql_itself_it_starts_again_with_all_that_was_committed(folder: Path) -> None:
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        await ask(server.url, "CREATE TABLE kept AS SELECT 7 AS number")
        pid = int((find_site(folder, None).data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        assert str(await server.ended()).startswith("PostgreSQL ended unasked; ")
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await ask(server.url, "SELECT number FROM kept") == 7


async def test_a_start_that_was_killed_half_way_does_not_hamper_the_next(folder: Path) -> None:
    unfinished = find_site(folder, None).folder / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18")
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await is_up(server.url)


async def test_a_setting_that_postgresql_refuses_is_told_in_its_own_words_and_can_be_mended(folder: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="no_such_setting"):
        await EmbeddedPostgres(folder, settings={"no_such_setting": "1"}).__aenter__()
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        assert await is_up(server.url)


@pytest.mark.parametrize("name", ["long" * 30, "with space, comma and 'quote'", "größe", LATIN])
async def test_a_folder_whose_path_cannot_be_a_socket_address_works_too(postgres_folder: Path, name: str) -> None:
    async with EmbeddedPostgres(postgres_folder / name, settings=SETTINGS) as server:
        sockets = str(await ask(server.url, "SHOW unix_socket_directories"))
        assert len(sockets) < SOCKET_PATH_BYTES_MAX
        assert await is_up(server.url)


async def test_its_short_folder_for_sockets_is_refused_when_another_user_has_it(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    site = find_site(folder / ("long" * 30), None)
    site.sockets.mkdir(mode=0o777)
    try:
        with pytest.raises(DatabaseUnavailable, match="belongs to another user"):
            await EmbeddedPostgres(folder / ("long" * 30)).__aenter__()
    finally:
        site.sockets.rmdir()


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is made is for others to read, or not."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
async def test_root_runs_it_as_nobody_in_a_place_that_nobody_can_reach_and_changes_no_permission() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs it as somebody else")
    with TemporaryDirectory(prefix=LATIN) as closed:
        Path(closed).chmod(0o700)
        folder, programs = Path(closed) / "postgres", copied_programs(Path(closed))
        place = find_site(folder, programs).folder
        try:
            for _ in range(2):
                async with EmbeddedPostgres(folder, settings=SETTINGS, programs=programs) as server:
                    assert await ask(server.url, "SHOW data_directory") == str(place / "data")
            assert SHARED_PLACE in place.parents
            assert (place / "data").stat().st_uid != 0
            assert stat.S_IMODE(Path(closed).stat().st_mode) == 0o700
        finally:
            shutil.rmtree(place)


def copied_programs(to: Path) -> Path:
    """The wheel's programs as they would be in a virtual environment in that folder."""
    package = wheel_programs().parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, to / folder.name, symlinks=True)
    return to / wheel_programs().relative_to(package.parent)
