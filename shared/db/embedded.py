"""A real PostgreSQL in a folder of its own, for whoever has no `DATABASE_URL` yet: `async with EmbeddedPostgres(...)`.

Several processes may use one folder. Each holds a lock while it does, which the kernel drops when the process dies,
however it dies: the first one in starts the server, the last one out stops it, and a server whose starter was killed
is simply found running. The server listens on a Unix socket that only its own user can reach, and on no network.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from shared.db.embedded_settings import ALLOCATOR, server_settings
from shared.db.embedded_site import Site, find_site
from shared.errors import DatabaseUnavailable

START_TIMEOUT_S = 120.0
"""How long it may take until it answers; after a crash it first replays what it had not written."""
STOP_TIMEOUT_S = 30.0
"""How long it may take to stop, open connections cut off; then it is stopped as by a crash, which loses nothing."""
POLL_S = 0.01
WATCH_S = 0.5
"""Between two looks whether the server that is used still runs."""
DATABASE = "curation"
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class EmbeddedPostgres:
    """The server of one folder; entering returns when it answers, leaving when nobody needs it or it has stopped.

    Args:
        folder: where it lives; made when it is not there.
        settings: of PostgreSQL, by name. They count when this process is the one that starts it.
        programs: the folder of `initdb` and `postgres`; those of the wheel when None.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] = NO_SETTINGS, programs: Path | None = None
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._programs = programs
        self._site: Site | None = None
        self._use: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the database `curation`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The address of another of its databases."""
        assert self._site is not None, "not started"
        sockets = _running_sockets(self._site) or self._site.sockets
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(sockets), safe='')}&port=5432"

    async def __aenter__(self) -> Self:
        """Raises `DatabaseUnavailable` with the end of the server's own log when it cannot start."""
        self._site = site = await asyncio.to_thread(find_site, self._folder, self._programs)
        async with _alone(site):
            self._use = _lock_file(site, "use")
            await _locked(self._use, fcntl.LOCK_SH)
            try:
                if not await self._answers():
                    await asyncio.to_thread(_initialize, site)
                    self._process = _start(site, self._settings)
                    await self._wait_until_ready(self._process)
                await create_database(self.url_of("postgres"), DATABASE, if_missing=True)
            except BaseException:
                await self._leave(site)
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._site is not None, "not started"
        async with _alone(self._site):
            await self._leave(self._site)

    async def ended(self) -> DatabaseUnavailable:
        """Returns when the server has ended, though somebody uses it, and says so."""
        assert self._site is not None, "not started"
        while not self._has_ended(self._site):  # noqa: ASYNC110 - who did not start it gets no event
            await asyncio.sleep(WATCH_S)
        return _failure(self._site, "PostgreSQL ended unasked")

    def _has_ended(self, site: Site) -> bool:
        return self._process.poll() is not None if self._process else not _is_another(site)

    async def _leave(self, site: Site) -> None:
        """Gives up the use of the server, and stops it when that was the last one."""
        assert self._use is not None
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            await self._stop(site)
        finally:
            os.close(self._use)
            self._use = None

    async def _answers(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self.url_of("postgres"), connect_timeout=10)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert self._site is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._answers():
                    # A server whose starter was killed may still replay its log; ours ends then, and that one is used.
                    if process.poll() is not None and not _is_another(self._site, process.pid):
                        raise _failure(self._site, "PostgreSQL ended at its start")
                    await asyncio.sleep(POLL_S)
            if process.poll() is not None:
                self._process = None
        except TimeoutError:
            raise _failure(self._site, f"PostgreSQL did not answer within {START_TIMEOUT_S} s") from None

    async def _stop(self, site: Site) -> None:
        process, pid = self._process, _running_pid(site)
        if process is None and (pid is None or not await self._answers()):
            return  # no server of ours, and a number that is left over may be any process's
        for number in (signal.SIGINT, signal.SIGQUIT):
            if process is not None:
                process.send_signal(number)
            elif pid is not None:
                os.kill(pid, number)
            if await _eventually(partial(self._has_ended, site), STOP_TIMEOUT_S):
                return
        raise _failure(site, f"PostgreSQL (process {pid}) does not stop")


async def create_database(url: str, name: str, *, template: str = "template0", if_missing: bool = False) -> None:
    """Creates a database on the server at `url`; a copy of another one, if that is to be its template."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        if if_missing:
            found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            if found.rowcount:
                return
        await connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )


def _initialize(site: Site) -> None:
    """Makes the data folder, in one step as others see it: a start that was killed half-way leaves no half of one."""
    site.make_private(site.sockets)
    if (site.data / "PG_VERSION").exists():
        return
    unfinished = site.folder / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    site.make_private(unfinished)
    program = site.programs / "initdb"
    command: list[str | Path] = [
        program,
        "--pgdata",
        unfinished,
        "--username",
        "postgres",
        "--auth",
        "trust",
    ]
    command += ["--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"]
    if b"--builtin-locale" in subprocess.run([program, "--help"], capture_output=True, check=False).stdout:
        # In order of code points all the same, and every letter has its other case: `ILIKE` finds MÜNCHEN.
        command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    with site.log.open("wb") as log:
        done = subprocess.run(command, **_surroundings(site, log.fileno()), check=False)
    if done.returncode:
        raise _failure(site, "initdb failed")
    unfinished.rename(site.data)


def _start(site: Site, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the server in a session of its own: a Ctrl-C at the terminal is for us, and we tell the server."""
    given = {
        "listen_addresses": "",
        "unix_socket_directories": str(site.sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **server_settings(),
        **settings,
    }
    command: list[str | Path] = [
        site.programs / "postgres",
        "-D",
        site.data,
        *(f"--{name}={value}" for name, value in given.items()),
    ]
    with site.log.open("wb") as log:
        return subprocess.Popen[bytes](command, start_new_session=True, **_surroundings(site, log.fileno()))


def _surroundings(site: Site, log: int) -> dict[str, Any]:
    """What every program of PostgreSQL gets, and nothing of our own environment: no PGDATA, PGPORT or locale."""
    return {
        "env": {"PATH": os.defpath, "LC_ALL": "C", **ALLOCATOR},
        "cwd": site.folder,
        "stdin": subprocess.DEVNULL,
        "stdout": log,
        "stderr": log,
        "umask": 0o077,
        **site.credentials,
    }


def _pid_file(site: Site) -> list[str]:
    """The lines of `postmaster.pid`: process id, folder, start, port, folder of the socket, and so on."""
    try:
        return os.fsdecode((site.data / "postmaster.pid").read_bytes()).split("\n")
    except FileNotFoundError:
        return []


def _running_pid(site: Site) -> int | None:
    lines = _pid_file(site)
    return int(lines[0]) if lines else None


def _is_another(site: Site, own: int | None = None) -> bool:
    """Whether the folder's server is a process that lives, and not our own one."""
    pid = _running_pid(site)
    if pid is None or pid == own:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _running_sockets(site: Site) -> Path | None:
    """Where the server that has the folder listens: its starter's TMPDIR may have been another than ours."""
    lines = _pid_file(site)
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


@asynccontextmanager
async def _alone(site: Site) -> AsyncIterator[None]:
    """Nobody else starts or stops the server of this folder meanwhile."""
    lock = _lock_file(site, "start")
    try:
        await _locked(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _lock_file(site: Site, name: str) -> int:
    return os.open(site.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


async def _locked(lock: int, kind: int) -> None:
    def taken() -> bool:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if not await _eventually(taken, START_TIMEOUT_S + 2 * STOP_TIMEOUT_S):
        raise DatabaseUnavailable("another process has been starting or stopping the embedded PostgreSQL for too long")


async def _eventually(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def _failure(site: Site, what: str) -> DatabaseUnavailable:
    end = site.log.read_text(errors="replace").splitlines()[-5:] if site.log.exists() else []
    return DatabaseUnavailable("\n    ".join([f"{what}; {site.log} ends:", *end]))
