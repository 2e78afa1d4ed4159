"""Brings a database to what this version needs: the machinery's tables by Alembic, then the tables of each workflow.

Everything happens in one transaction under one advisory lock: processes that start at once wait for one another, and
one that dies half-way leaves nothing. `python -m shared.db.migrate` does it for the database at `DATABASE_URL`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from psycopg.errors import DuplicateTable, InsufficientPrivilege, InvalidSchemaName
from sqlalchemy import Column, Connection, Table, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import sort_tables

from shared.db.access import WORKER, check_plan
from shared.db.engine import driver_url, session_options
from shared.db.errors import database_errors, driver_error
from shared.db.indexes import set_indexes
from shared.db.partitions import LOCK_TIMEOUT, UNBOUNDED, keep_partitions
from shared.db.readiness import connect_checked
from shared.db.sequences import advance_sequences
from shared.db.storage import set_storage
from shared.db.table_check import check_items
from shared.errors import DatabaseUnfit, WorkflowError
from shared.program import run_program
from shared.registry import Registry, load_registry
from shared.settings import DatabaseSettings
from shared.workflow import Workflow

LOCK_KEY = 0x63757261
"""Advisory lock of all migrations of this project in a database."""
VERSION_TABLE = "curation_version"
"""Where Alembic notes the version of the machinery's tables; others may use its usual name in the same database."""
OWN_TABLESPACE = """SELECT set_config('default_tablespace', '', true) FROM pg_database d
    JOIN pg_tablespace t ON t.oid = d.dattablespace
    WHERE d.datname = current_database() AND t.spcname = current_setting('default_tablespace')"""
"""Where it is the default by name, PostgreSQL makes no partitioned table; it is the default without, too."""
REMEDIES: Mapping[type[psycopg.Error], str] = {
    InsufficientPrivilege: "migrate as the owner of the database",
    InvalidSchemaName: "create it",
    DuplicateTable: "rename it, or name a schema for what is new: DATABASE_URL=...?options=-csearch_path%3Dcuration",
}
"""What somebody who has a database already may have to do first."""


def migrate(url: str, registry: Registry) -> None:
    """Creates what is missing; doing it again changes nothing. Never drops or alters what a workflow's author owns.

    To a table that is there, only columns of the machinery that a later version brought are added, and to a source the
    storage parameters that nobody has set; indexes of the machinery are replaced where an earlier version made others.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        DatabaseUnfit: it is too old, a standby, not this user's to change, or has other tables of these names; a
            workflow's table is there, but not as it is declared; a later version of this project has migrated it.
        WorkflowError: a workflow's table is there, but lacks a column that it declares.
    """
    connect_checked(url).close()
    engine = create_engine(
        make_url(driver_url(url)).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"options": session_options(url)},
    )
    try:
        with database_errors(), engine.begin() as connection:
            _migrate(connection, registry)
    except (ProgrammingError, psycopg.ProgrammingError) as error:
        cause = driver_error(error)
        if not isinstance(cause, psycopg.Error) or type(cause) not in REMEDIES:
            raise
        raise DatabaseUnfit(f"{cause.diag.message_primary}: {REMEDIES[type(cause)]}") from error
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise DatabaseUnfit("a later version of this project has migrated it: migrate with that one") from error


def _migrate(connection: Connection, registry: Registry) -> None:
    connection.execute(text(UNBOUNDED))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    connection.execute(text(LOCK_TIMEOUT))
    connection.execute(text(OWN_TABLESPACE))
    _adopt_version(connection)
    command.upgrade(alembic_config(connection), "head")
    for workflow in registry.values():
        _create_tables(connection, workflow)
        set_indexes(connection, workflow)
        set_storage(connection, workflow.source)
    driver = connection.connection.driver_connection
    assert driver is not None
    check_items(driver, registry.values())
    for workflow in registry.values():
        with suppress(InsufficientPrivilege):  # whoever works with it is asked at start
            check_plan(driver, workflow, WORKER.statement(workflow))
    # The last steps: they move sequences, which no rollback takes back.
    advance_sequences(driver)
    keep_partitions(driver, retention_days=None)


def _adopt_version(connection: Connection) -> None:
    """Earlier versions of this project noted theirs under Alembic's own name, alone in their database."""
    of_earlier = "to_regclass('alembic_version') IS NOT NULL AND to_regclass('status_event') IS NOT NULL"
    if connection.scalar(text(f"SELECT {of_earlier} AND to_regclass('{VERSION_TABLE}') IS NULL")):
        connection.execute(text(f"ALTER TABLE alembic_version RENAME TO {VERSION_TABLE}"))
        connection.execute(
            text(f"ALTER TABLE {VERSION_TABLE} RENAME CONSTRAINT alembic_version_pkc TO {VERSION_TABLE}_pkc")
        )


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, without a file: where the steps are, and the connection to run them on."""
    config = Config()
    config.set_main_option("script_location", "shared:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config


def _create_tables(connection: Connection, workflow: Workflow) -> None:
    for table in sort_tables([workflow.source, workflow.target]):
        there = _columns(connection, table)
        missing = [column for column in table.columns if column.name not in there]
        if not there:
            table.create(connection)
        elif any("machinery" not in column.info or not column.nullable for column in missing):
            names = ", ".join(column.name for column in missing)
            raise WorkflowError(
                workflow.resource,
                f"table {table.fullname!r} is there without the declared columns {names}: add them to it",
            )
        else:
            _add_columns(connection, table, missing)


def _add_columns(connection: Connection, table: Table, columns: Sequence[Column[Any]]) -> None:
    """Columns of the machinery that are new and may be NULL: they take a moment, however large the table."""
    operations = Operations(MigrationContext.configure(connection))
    for column in columns:
        operations.add_column(table.name, Column(column.name, column.type), schema=table.schema)


def _columns(connection: Connection, table: Table) -> set[str]:
    """The columns that the database has, by name alone: their types may be none that SQLAlchemy knows."""
    name = connection.dialect.identifier_preparer.format_table(table)
    statement = (
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
    )
    return set(connection.scalars(text(statement), {"name": name}))


def run(settings: DatabaseSettings) -> None:
    """Migrates the database that the settings name."""
    migrate(settings.database_url, load_registry())


if __name__ == "__main__":
    sys.exit(run_program("shared.db.migrate", DatabaseSettings, run))
