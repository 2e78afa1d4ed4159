"""A tail on a PostgreSQL whose transaction ids, of 32 bits, are about to begin anew after four billion."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.db.database_tail import DatabaseTail
from shared.db.embedded import EmbeddedPostgres, create_database
from shared.db.embedded_site import find_site
from shared.db.engine import Connection, connect
from shared.db.migrate import migrate
from shared.registry import load_registry
from tests.support.eventually import eventually
from tests.support.log import arrive, curate_in, open_transaction, read_all, update, versions
from tests.support.postgres import SETTINGS
from tests.support.service import add_parcels, parcel_database

IDS = 2**32
STATUSES_OF = 1 << 20
"""Transactions whose ends a file of `pg_xact` says: two bits for each."""


@asynccontextmanager
async def server_before(next_id: int, folder: Path) -> AsyncIterator[str]:
    """The address of a migrated database on a server that gives this transaction id next, or soon."""
    async with (
        EmbeddedPostgres(folder, settings=SETTINGS) as server,
        await connect(server.url_of("postgres"), name="freezer") as freezer,
    ):
        await freezer.execute("VACUUM (FREEZE)")  # what earlier ids have written must not look like the future
    site = find_site(folder, None)
    ends = site.data / "pg_xact" / f"{next_id // STATUSES_OF:04X}"
    ends.write_bytes(bytes(STATUSES_OF // 4))
    os.chown(ends, site.credentials.get("user", -1), site.credentials.get("group", -1))
    process = await asyncio.create_subprocess_exec(
        site.programs / "pg_resetwal", "-x", str(next_id), site.data, cwd=site.folder, **site.credentials
    )
    assert await process.wait() == 0
    async with EmbeddedPostgres(folder, settings={**SETTINGS, "autovacuum": "off"}) as server:
        await create_database(server.url_of("postgres"), "test")
        await asyncio.to_thread(migrate, server.url_of("test"), load_registry())
        yield server.url_of("test")


async def drawn_id(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_current_xact_id()::text::bigint")).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_tail_goes_on_where_transaction_ids_begin_anew(postgres_folder: Path) -> None:
    async with (
        server_before(IDS - 500, postgres_folder / f"ids-{uuid.uuid4().hex[:8]}") as url,
        parcel_database(url) as database,
        await connect(url, name="writer") as writer,
        DatabaseTail(url=url, direct_url=url) as tail,
    ):
        await add_parcels(database, {}, {}, {})
        while await drawn_id(writer) < IDS - 10:
            pass
        start = tail.position
        async with open_transaction(database) as late:
            await curate_in(late, "Selected", 1)
            assert await drawn_id(late) < IDS
            while await drawn_id(writer) < IDS:
                pass
            await update(database, "Selected", 2)
            await eventually(lambda: tail.lag_s > 0)
            assert tail.position == start
            await late.commit()
        await arrive(tail, await update(database, "Selected", 3))
        entries = await read_all(tail, start)
        assert versions(entries) == [(1, 2), (2, 2), (3, 2)]
        assert entries[0].xid < IDS < entries[1].xid
