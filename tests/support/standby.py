"""A PostgreSQL with a streaming standby, both from the wheel."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from shared.db.embedded import EmbeddedPostgres, create_database
from shared.db.embedded_site import find_site
from shared.db.migrate import migrate
from shared.registry import load_registry
from tests.support.postgres import SETTINGS, other_database


@asynccontextmanager
async def primary_and_standby(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The addresses of a migrated database on the one and on the other."""
    unique = uuid.uuid4().hex[:8]
    async with EmbeddedPostgres(folder / f"primary-{unique}", settings=SETTINGS) as primary:
        url = primary.url_of("test")
        await create_database(primary.url_of("postgres"), "test")
        await asyncio.to_thread(migrate, url, load_registry())
        await _copy(primary.url_of("postgres"), folder / f"standby-{unique}")
        async with EmbeddedPostgres(folder / f"standby-{unique}", settings=SETTINGS) as standby:
            yield url, other_database(standby.url_of("postgres"), "test")


async def _copy(url: str, folder: Path) -> None:
    """A copy of the server that follows it once started."""
    site = find_site(folder, None)
    site.make_private(site.data)
    sockets = make_url(url).query["host"]
    options = ["--host", str(sockets), "--port", "5432", "--username", "postgres", "--checkpoint", "fast"]
    process = await asyncio.create_subprocess_exec(
        site.programs / "pg_basebackup",
        *options,
        "--pgdata",
        site.data,
        "--write-recovery-conf",
        "--no-sync",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd=site.folder,
        **site.credentials,
    )
    assert await process.wait() == 0
