"""Runs other queues, each in an environment of its own under `.cache/peers`, on a database of its own.

What cannot be installed is left out, and the reason is said.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from benchmarks.report import doing
from shared.db.embedded import create_database

SCRIPTS = Path(__file__).parent / "peers"
CACHE = Path(__file__).parents[1] / ".cache" / "peers"
PYTHONS = ("python3.14", "python3.13", "python3.12")
"""Oban for Python needs 3.12."""
PACKAGES = ("pgqueuer==1.6.0", "oban==0.7.0", "dbos==3.4.0", "asyncpg", "uvloop", "psycopg[binary,pool]")
NODE_PACKAGES = ("graphile-worker@0.17.3", "pg@8")
RUN_S = 180.0
INSTALL_S = 300.0


class PeerMissing(Exception):
    """It cannot be installed here, or does not run."""


@dataclass(frozen=True, slots=True)
class Peers:
    """What could be installed."""

    python: Path | None
    node: Path | None
    """The folder of `node_modules`."""

    async def run(self, url: str, peer: str, *arguments: object) -> dict[str, Any]:
        """Runs one script of `benchmarks/peers`, on a database made anew. Raises `PeerMissing`."""
        if peer.endswith(".mjs"):
            command, folder = ["node"], self.node
        else:
            command, folder = [str(self.python)], SCRIPTS
        if folder is None or (command != ["node"] and self.python is None):
            raise PeerMissing(f"{peer} is not installed")
        environment = {**os.environ, "PEER_URL": await _fresh(url)}
        said = await _say([*command, str(SCRIPTS / peer), *map(str, arguments)], folder, environment, RUN_S)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found


async def install() -> Peers:
    """Installs what is not installed yet."""
    return Peers(await _installed(_python), await _installed(_node))


async def _installed(way: Any) -> Path | None:
    try:
        found: Path = await way()
    except (PeerMissing, OSError) as error:
        doing(f"left out: {error}")
        return None
    return found


async def _python() -> Path:
    folder = CACHE / "python"
    program = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        await _say([await _new_python(), "-m", "venv", "--clear", str(folder)], CACHE, None, INSTALL_S)
        await _say([str(program), "-m", "pip", "install", "--quiet", *PACKAGES], CACHE, None, INSTALL_S)
        (folder / ".installed").touch()
    return program


async def _new_python() -> str:
    CACHE.mkdir(parents=True, exist_ok=True)
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python"))
    for name in (*PYTHONS, *map(str, pyenv)):
        try:
            await _say([name, "-c", "import sys; assert sys.version_info >= (3, 12)"], CACHE, None, INSTALL_S)
        except (PeerMissing, OSError):
            continue
        return name
    raise PeerMissing("queues in Python: there is no Python 3.12 or newer")


async def _node() -> Path:
    folder = CACHE / "node"
    if not (folder / ".installed").exists():
        if shutil.which("npm") is None:
            raise PeerMissing("graphile-worker: there is no npm")
        folder.mkdir(parents=True, exist_ok=True)
        await _say(["npm", "install", "--silent", "--prefix", str(folder), *NODE_PACKAGES], folder, None, INSTALL_S)
        (folder / ".installed").touch()
    return folder


async def _fresh(url: str) -> str:
    address = make_url(url)
    other = address.set(database="postgres").render_as_string(hide_password=False)
    await _drop(other)
    await create_database(other, "peer")
    return address.set(database="peer").render_as_string(hide_password=False)


async def _drop(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("DROP DATABASE IF EXISTS peer WITH (FORCE)")


async def _say(command: list[str], folder: Path, environment: dict[str, str] | None, timeout_s: float) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise PeerMissing(f"{command[-2:]} took longer than {timeout_s} s") from None
    if process.returncode:
        raise PeerMissing(f"{' '.join(command)}: {err.decode(errors='replace')[-600:]}")
    return out.decode()
