"""Migrating a database that is somebody's already: with tables, partitions and locks that are none of the project's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from shared.db.engine import Database, connect
from shared.db.migrate import LOCK_KEY, VERSION_TABLE, alembic_config, migrate
from shared.db.partitions import DAY_SIZE, EPOCH, create_partition
from shared.errors import DatabaseUnavailable, DatabaseUnfit, WorkflowError
from shared.registry import Registry
from tests.support.eventually import eventually
from tests.support.postgres import connected
from tests.support.shops import columns, execute, not_waiting, shops

pytestmark = pytest.mark.postgres_versions


DROP_PARTITIONS = """DO $$ DECLARE partition regclass; BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'status_event'::regclass LOOP
        EXECUTE format('DROP TABLE %s', partition);
    END LOOP;
END $$"""
APPEND = """INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)
    VALUES (nextval('status_event_position'), 1, 'shops', 'curate', '', '', '{}', '{}', '{}')"""


def versions(url: str, table: str) -> list[str]:
    with connected(url) as connection:
        return list(connection.scalars(text(f"SELECT version_num FROM {table}")))


def test_who_migrates_by_alembic_too_keeps_a_version_of_their_own(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT their PRIMARY KEY)")
    execute(empty_database_url, "INSERT INTO alembic_version VALUES ('0003')")
    for _ in range(2):
        migrate(empty_database_url, Registry(shops()))
    assert versions(empty_database_url, "alembic_version") == ["0003"]
    assert "resource" in columns(empty_database_url, "status_batch")


def test_the_version_that_earlier_ones_noted_under_the_name_of_alembic_goes_on(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(
        empty_database_url,
        f"ALTER TABLE {VERSION_TABLE} RENAME TO alembic_version;"
        f"ALTER TABLE alembic_version RENAME CONSTRAINT {VERSION_TABLE}_pkc TO alembic_version_pkc",
    )
    migrate(empty_database_url, Registry(shops()))
    assert versions(empty_database_url, VERSION_TABLE)
    # The name is free for who comes later.
    execute(empty_database_url, "CREATE TABLE alembic_version (n text CONSTRAINT alembic_version_pkc PRIMARY KEY)")
    migrate(empty_database_url, Registry(shops()))


def test_a_table_of_a_name_that_the_machinery_needs_is_named(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE event_log (id integer)")
    with pytest.raises(DatabaseUnfit, match=r'"event_log" already exists: .*search_path'):
        migrate(empty_database_url, Registry(shops()))
    assert columns(empty_database_url, "event_log") == {"id"}


def test_a_schema_that_is_not_there_is_named(empty_database_url: str) -> None:
    with pytest.raises(DatabaseUnfit, match='schema "nowhere" does not exist'):
        migrate(empty_database_url, Registry(shops("nowhere")))


async def test_a_schema_that_the_address_names_holds_what_is_new(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE SCHEMA curation; CREATE TABLE event_log (id integer)")
    execute(empty_database_url, "CREATE TABLE shop_scan (shop_id integer PRIMARY KEY, found text)")
    url = f"{empty_database_url}{'&' if '?' in empty_database_url else '?'}options=-csearch_path%3Dcuration,public"
    for _ in range(2):
        migrate(url, Registry(shops()))
    found = """SELECT to_regclass('status_event') = to_regclass('curation.status_event')
        AND to_regclass('curation.shop_scan') IS NULL AND current_setting('timezone') = 'UTC'"""
    async with Database(url) as database, database.transaction() as pooled:
        assert await (await pooled.execute(found)).fetchone() == (True,)
    async with await connect(url, name="test") as pinned:
        assert await (await pinned.execute(found)).fetchone() == (True,)


def test_a_reader_of_hours_is_not_waited_for(empty_database_url: str) -> None:
    with connected(empty_database_url) as connection:
        command.upgrade(alembic_config(connection), "0006")
    with psycopg.connect(empty_database_url) as reader:
        reader.execute("SELECT FROM status_event")
        with not_waiting(), pytest.raises(DatabaseUnavailable, match="holds a lock"):
            migrate(empty_database_url, Registry(shops()))
    migrate(empty_database_url, Registry(shops()))


BOUNDS = """DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET statement_timeout = 1000', current_database());
    IF current_setting('server_version_num')::int >= 170000 THEN
        EXECUTE format('ALTER DATABASE %I SET transaction_timeout = 1000', current_database());
    END IF;
    EXECUTE format('ALTER DATABASE %I SET default_tablespace = pg_default', current_database());
    EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', current_database(), 'repeatable read');
END $$"""
WAITING = """SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted"""


async def test_what_a_database_sets_for_its_users_does_not_bind_migrations(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        execute(empty_database_url, BOUNDS)
        migrations = [asyncio.to_thread(migrate, empty_database_url, Registry(shops())) for _ in range(2)]
        tasks = [asyncio.create_task(migration) for migration in migrations]
        await eventually(lambda: holder.execute(WAITING).fetchone() == (2,))
        holder.execute("SELECT pg_sleep(1.1)")
    await asyncio.gather(*tasks)
    assert "resource" in columns(empty_database_url, "status_batch")


def test_partitions_that_others_attached_are_left_alone(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(
        empty_database_url,
        "CREATE TABLE status_event_default PARTITION OF status_event DEFAULT;"
        "CREATE TABLE status_event_of_old PARTITION OF status_event FOR VALUES FROM (1) TO (2)",
    )
    migrate(empty_database_url, Registry(shops()))


def test_a_migration_that_is_refused_leaves_the_log_a_partition_to_go_on_in(empty_database_url: str) -> None:
    """As after days in which nobody kept the partitions."""
    migrate(empty_database_url, Registry())
    some_day = (datetime.now(UTC).date() - EPOCH - timedelta(days=3)).days
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(DROP_PARTITIONS)
        create_partition(connection, some_day)
        connection.execute("SELECT setval('status_event_position', %s)", [some_day * DAY_SIZE])
        connection.execute("CREATE TABLE shop (id integer PRIMARY KEY)")
        with pytest.raises(WorkflowError):
            migrate(empty_database_url, Registry(shops()))
        connection.execute(APPEND)


def test_an_earlier_version_leaves_alone_what_a_later_one_has_migrated(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'; DROP TABLE shop")
    with pytest.raises(DatabaseUnfit, match="a later version of this project has migrated it"):
        migrate(empty_database_url, Registry(shops()))
    assert versions(empty_database_url, VERSION_TABLE) == ["9999"]
    assert not columns(empty_database_url, "shop")
