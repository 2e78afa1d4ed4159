"""The settings that a database and a role get where a pooler drops those of the sessions."""

from __future__ import annotations

import re
import uuid

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from enrichment_worker.completer import LOCK_S
from shared.db.engine import connect
from tests.docs.pages import ROOT, blocks

SQL = next(block.text for block in blocks(ROOT / "docs/operate/in-front.md", "sql") if block.title == "pooled.sql")
PLANNING = {"plan_cache_mode", "jit", "random_page_cost", "work_mem"}


async def test_a_pooled_session_has_by_the_page_what_a_direct_one_asks_for(database_url: str) -> None:
    names = re.findall(r"SET (\w+) =", SQL)
    assert set(names) > PLANNING
    url, worker = make_url(database_url), f"worker_{uuid.uuid4().hex}"
    shown = sql.SQL("SELECT {}").format(
        sql.SQL(", ").join(sql.SQL("current_setting({})").format(sql.Literal(name)) for name in names)
    )
    pooled_sql = SQL.replace("DATABASE curation", f"DATABASE {url.database}").replace("curation_worker", worker)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
        await owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(worker)))
        try:
            await owner.execute(pooled_sql.encode())
            pooled_url = url.set(username=worker).render_as_string(hide_password=False)
            async with await psycopg.AsyncConnection.connect(pooled_url) as pooled:
                has = await (await pooled.execute(shown)).fetchone()
            options = f"-c lock_timeout={int(LOCK_S * 1000)} -c idle_in_transaction_session_timeout=60s"
            async with await connect(database_url, name="direct", options=options) as direct:
                assert has == await (await direct.execute(shown)).fetchone()
        finally:
            await owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(worker)))
