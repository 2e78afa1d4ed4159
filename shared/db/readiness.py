"""What a process makes sure of before it starts: its database is there, new enough, writable and migrated.

Otherwise it would try for ever, or end at its first statement, with an error that names a table and not the remedy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.errors import InsufficientPrivilege

from shared.db.access import GRANT, Access, check_access
from shared.db.engine import driver_url, session_options
from shared.db.errors import database_errors
from shared.db.models import machinery
from shared.db.partitions import LOCK_TIMEOUT
from shared.db.sequences import check_sequences
from shared.db.table_check import check_items, check_tables
from shared.errors import DatabaseUnavailable, DatabaseUnfit
from shared.lifecycle import Part
from shared.thread import in_own_thread
from shared.workflow import Workflow

log = logging.getLogger(__name__)

VERSION_MIN = 14
CONNECT_TIMEOUT_S = 5
RETRY_S = 0.5


class DatabaseReady(Part):
    """The first part of a process: ready once its database is as the process needs it."""

    def __init__(self, *, url: str, workflows: Iterable[Workflow], access: Access, timeout_s: float) -> None:
        """A database that cannot be reached is waited for, `timeout_s` at most."""
        super().__init__()
        self._url, self._timeout_s, self._workflows, self._access = url, timeout_s, tuple(workflows), access

    async def _run(self) -> None:
        clock = asyncio.get_running_loop()
        give_up_at_s, waits = clock.time() + self._timeout_s, False
        while not self.stopping.is_set():
            try:
                # In a thread of its own: a server that never answers must not keep the process from ending.
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
            connection.execute(LOCK_TIMEOUT)
            tables = [table for workflow in self._workflows for table in (workflow.source, workflow.target)]
            try:
                check_tables(connection, [*machinery.tables.values(), *tables])
                check_items(connection, self._workflows)
                check_access(connection, self._workflows, self._access)
                check_sequences(connection)
            except InsufficientPrivilege as error:  # of a schema, or of some columns of a table
                raise DatabaseUnfit(f"{error.diag.message_primary}: {GRANT}") from error


def connect_checked(url: str) -> psycopg.Connection[Any]:
    """A connection to a server that can serve.

    Raises:
        DatabaseUnavailable: it cannot be reached; the message says why, and where it was looked for.
        DatabaseUnfit: it is too old, a standby, read-only, or keeps text in another encoding than UTF-8.
    """
    try:
        connection = psycopg.connect(driver_url(url), connect_timeout=CONNECT_TIMEOUT_S, options=session_options(url))
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error).partition("\n")[0]) from error
    try:
        version = connection.info.server_version // 10_000
        if version < VERSION_MIN:
            raise DatabaseUnfit(f"PostgreSQL {version} is too old: {VERSION_MIN} or newer is needed")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseUnfit(f"the database keeps text as {encoding}: create one WITH ENCODING 'UTF8'")
        asked = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool, current_user"
        standby, read_only, user = connection.execute(asked).fetchone() or (False, False, "")
        if standby:
            raise DatabaseUnfit("the database is a standby, which cannot be written to: name the primary")
        if read_only:
            raise DatabaseUnfit(f"default_transaction_read_only is on for {user}: nothing can be written, turn it off")
    except BaseException:
        connection.close()
        raise
    return connection
