"""What a process makes sure of before it starts: its database is there, new enough, writable and migrated.

Otherwise it would try for ever, or end at its first statement, with an error that names a table and not the remedy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import Table

from shared.db.engine import database_errors, driver_url
from shared.db.models import machinery
from shared.db.statement import table_name
from shared.errors import DatabaseUnavailable, DatabaseUnfit
from shared.lifecycle import Part
from shared.thread import in_own_thread
from shared.workflow import Workflow

log = logging.getLogger(__name__)

VERSION_MIN = 14
CONNECT_TIMEOUT_S = 5
RETRY_S = 0.5
MISSING_SHOWN = 3
_UNREADABLE = """/* unreadable */
SELECT name FROM unnest(%s::text[]) AS t (name) WHERE NOT has_table_privilege(name, 'SELECT') ORDER BY name LIMIT 1"""
_MISSING = """/* missing */
SELECT t.name, t.column_name FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (name, column_name, n)
WHERE NOT EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = to_regclass(t.name) AND a.attname = t.column_name AND NOT a.attisdropped)
ORDER BY t.n"""


class DatabaseReady(Part):
    """The first part of a process: ready once its database is as the process needs it."""

    def __init__(self, *, url: str, workflows: Iterable[Workflow], timeout_s: float) -> None:
        """A database that cannot be reached is waited for, `timeout_s` at most."""
        super().__init__()
        self._url, self._timeout_s = url, timeout_s
        self._tables = [table for workflow in workflows for table in (workflow.source, workflow.target)]

    async def _run(self) -> None:
        clock = asyncio.get_running_loop()
        give_up_at_s, waits = clock.time() + self._timeout_s, False
        while not self.stopping.is_set():
            try:
                # A server that says nothing keeps no process from ending.
                await in_own_thread(self._check, name="database check")
                break
            except DatabaseUnavailable as error:
                if clock.time() >= give_up_at_s:
                    raise
                if not waits:
                    log.warning("waiting for the database, %g s at most: %s", self._timeout_s, error)
                waits = True
            await self.pause(RETRY_S)
        self.ready()
        await self.stopping.wait()

    def _check(self) -> None:
        with database_errors(), connect_checked(self._url) as connection:
            check_tables(connection, [*machinery.tables.values(), *self._tables])
            check_rights(connection, machinery.tables.values())


def connect_checked(url: str) -> psycopg.Connection[Any]:
    """A connection to a server that can serve.

    Raises:
        DatabaseUnavailable: it cannot be reached; the message says why, and where it was looked for.
        DatabaseUnfit: it is too old, a standby, or keeps text in another encoding than UTF-8.
    """
    try:
        connection = psycopg.connect(driver_url(url), connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error).partition("\n")[0]) from error
    try:
        version = connection.info.server_version // 10_000
        if version < VERSION_MIN:
            raise DatabaseUnfit(f"PostgreSQL {version} is too old: {VERSION_MIN} or newer is needed")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseUnfit(f"the database keeps text as {encoding}: create one WITH ENCODING 'UTF8'")
        (standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (False,)
        if standby:
            raise DatabaseUnfit("the database is a standby, which cannot be written to: name the primary")
    except BaseException:
        connection.close()
        raise
    return connection


def check_tables(connection: psycopg.Connection[Any], tables: Iterable[Table]) -> None:
    """Raises `DatabaseUnfit` when the database lacks one of these tables, or a column of one."""
    declared = [(table_name(t).as_string(connection), column.name) for t in tables for column in t.columns]
    names, columns = ([*part] for part in zip(*declared, strict=True))
    missing = connection.execute(_MISSING, (names, columns)).fetchall()
    if missing:
        shown = ", ".join(f"{table}.{column}" for table, column in missing[:MISSING_SHOWN])
        more = ", ..." if len(missing) > MISSING_SHOWN else ""
        raise DatabaseUnfit(f"the database lacks {shown}{more}: run `python -m shared.db.migrate`")


def check_rights(connection: psycopg.Connection[Any], tables: Iterable[Table]) -> None:
    """Raises `DatabaseUnfit` when this user may not even read one of these tables, which are there."""
    names = [table_name(table).as_string(connection) for table in tables]
    unreadable = connection.execute(_UNREADABLE, (names,)).fetchone()
    if unreadable is not None:
        user = connection.info.user
        raise DatabaseUnfit(f"the user {user} may not read {unreadable[0]}: connect as who migrated, or grant it")
