"""A table that was there before its workflow is held against the declaration, where statements rely on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.errors import OperationalError, QueryCanceled
from sqlalchemy import Column, Text

from shared.db.access import SERVICE, WORKER, Access, check_plan
from shared.db.migrate import migrate
from shared.db.prepared import Prepared
from shared.db.readiness import DatabaseReady
from shared.db.table_check import check_items
from shared.errors import DatabaseUnfit
from shared.registry import Registry
from shared.workflow import Workflow
from tests.support.shops import execute, shops

pytestmark = pytest.mark.postgres_versions


AS_ENUM = """CREATE TYPE word AS ENUM ('New');
    ALTER TABLE shop ALTER status DROP DEFAULT, ALTER status TYPE word USING status::word"""


def named_shops() -> Workflow:
    workflow = shops()
    workflow.source.append_column(Column("name", Text, nullable=False))
    return workflow


@pytest.fixture
def migrated_url(empty_database_url: str) -> str:
    migrate(empty_database_url, Registry(named_shops()))
    return empty_database_url


@pytest.fixture
def connection(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_url) as connection:
        yield connection


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("ALTER TABLE shop ALTER name DROP NOT NULL", '"shop".name may be NULL'),
        ("ALTER TABLE shop ALTER version DROP NOT NULL", '"shop".version may be NULL'),
        ("ALTER TABLE shop DROP CONSTRAINT shop_pkey", '"shop".id is the key, and is not unique'),
        ("ALTER TABLE shop_scan DROP CONSTRAINT shop_scan_pkey", '"shop_scan".shop_id is the key'),
        (
            "ALTER TABLE shop_scan DROP CONSTRAINT shop_scan_pkey, ADD UNIQUE (shop_id) DEFERRABLE",
            '"shop_scan".shop_id is the key',
        ),
        (
            "ALTER TABLE shop_scan DROP CONSTRAINT shop_scan_pkey, ADD PRIMARY KEY (shop_id, found)",
            '"shop_scan".shop_id is the key',
        ),
        ("ALTER TABLE shop ALTER id TYPE text", '"shop".id is of type text, and is declared as INTEGER'),
        (
            AS_ENUM,
            '"shop".status is of type word, and is declared as TEXT',
        ),
        ("ALTER TABLE shop ALTER scan_status TYPE char(12)", '"shop".scan_status reads with or without spaces behind'),
    ],
)
def test_what_a_declaration_says_and_the_table_does_not_hold_is_named(
    change: str, problem: str, migrated_url: str
) -> None:
    execute(migrated_url, change)
    with pytest.raises(DatabaseUnfit, match=re.escape(problem)):
        migrate(migrated_url, Registry(named_shops()))


@pytest.mark.parametrize("made", ["char(6)", "padded"])
def test_a_key_that_reads_with_or_without_spaces_behind_is_named(made: str, empty_database_url: str) -> None:
    workflow = shops(key_type=Text)
    migrate(empty_database_url, Registry(workflow))
    execute(empty_database_url, f"CREATE DOMAIN padded AS char(6); ALTER TABLE shop ALTER id TYPE {made}")
    with pytest.raises(DatabaseUnfit, match=r'"shop"\.id reads with or without spaces .*: ALTER its type to TEXT'):
        migrate(empty_database_url, Registry(workflow))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE shop ALTER id TYPE numeric, ALTER version TYPE integer, ALTER status TYPE varchar(20)",
        "CREATE DOMAIN word AS text NOT NULL; ALTER TABLE shop ALTER name DROP NOT NULL, ALTER name TYPE word",
        "ALTER TABLE shop_scan DROP CONSTRAINT shop_scan_pkey, ADD UNIQUE (shop_id) INCLUDE (found)",
        "ALTER TABLE shop RENAME TO shop_0; CREATE VIEW shop AS SELECT * FROM shop_0",
        "ALTER TABLE shop ADD note text NOT NULL; ALTER TABLE shop_scan ALTER found SET NOT NULL",
    ],
)
def test_what_statements_do_not_rely_on_may_differ(change: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute(change)
    check_items(connection, [named_shops()])


@pytest.mark.parametrize(
    ("workflows", "problem"),
    [
        (
            [named_shops(), replace(shops("public"), resource="stores")],
            '\'stores\', "public"."shop", is that of',
        ),
        ([replace(shops(), target=shops("public").source, target_key="id")], "'shops', \"shop\", is that of"),
    ],
)
def test_one_table_by_two_names_is_known_for_one(workflows: list[Workflow], problem: str, migrated_url: str) -> None:
    with pytest.raises(DatabaseUnfit, match=problem):
        migrate(migrated_url, Registry(*workflows))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "ALTER TABLE shop_scan DROP found, ADD found text GENERATED ALWAYS AS ('x') STORED",
            'cannot insert a non-DEFAULT value into column "found"',
        ),
        (
            "ALTER TABLE shop DROP status, ADD status text GENERATED ALWAYS AS ('New') STORED NOT NULL",
            'column "status" can only be updated to DEFAULT',
        ),
        ("ALTER TABLE shop_scan ALTER found TYPE inet USING NULL", 'column "found" is of type inet but expression is'),
        ("ALTER TABLE shop ALTER status TYPE varchar(3)", "value too long for type character varying(3)"),
        ("CREATE RULE told AS ON UPDATE TO shop DO ALSO SELECT NEW.id", "DO ALSO rules are not supported"),
        ("CREATE RULE told AS ON INSERT TO shop_scan DO ALSO SELECT NEW.shop_id", "ON CONFLICT clause cannot be used"),
        ("ALTER TABLE shop RENAME TO s; CREATE VIEW shop AS SELECT DISTINCT * FROM s", 'cannot update view "shop"'),
        (
            "ALTER TABLE shop RENAME TO s; CREATE MATERIALIZED VIEW shop AS SELECT * FROM s",
            "cannot lock rows in materi",
        ),
    ],
)
def test_what_postgresql_will_not_do_with_a_table_it_says_itself(change: str, problem: str, migrated_url: str) -> None:
    execute(migrated_url, change)
    with pytest.raises(DatabaseUnfit, match=f"the tables of 'shops' cannot be worked with: .*{re.escape(problem)}"):
        migrate(migrated_url, Registry(named_shops()))


@pytest.mark.parametrize("access", [SERVICE, WORKER], ids=["service", "worker"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("ALTER TABLE shop ALTER name DROP NOT NULL", "may be NULL"),
        ("CREATE RULE told AS ON UPDATE TO shop DO INSTEAD NOTHING", "cannot perform UPDATE RETURNING"),
    ],
)
async def test_a_process_does_not_start_on_such_a_table(
    change: str, problem: str, access: Access, migrated_url: str
) -> None:
    await asyncio.to_thread(execute, migrated_url, change)
    with pytest.raises(DatabaseUnfit, match=problem):
        async with DatabaseReady(url=migrated_url, workflows=[named_shops()], access=access, timeout_s=0):
            pass


@pytest.mark.parametrize(("table", "column"), [("shop", "name"), ("shop_scan", "found"), ("worker_claim", "items")])
async def test_nor_where_a_column_is_lacking_of_source_target_or_machinery(
    table: str, column: str, migrated_url: str
) -> None:
    await asyncio.to_thread(execute, migrated_url, f"ALTER TABLE {table} DROP {column}")
    with pytest.raises(DatabaseUnfit, match=f'the database lacks "{table}".{column}: run'):
        async with DatabaseReady(url=migrated_url, workflows=[named_shops()], access=SERVICE, timeout_s=0):
            pass


@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [
        ("pg_terminate_backend(pg_backend_pid())", OperationalError),
        ("pg_cancel_backend(pg_backend_pid())", QueryCanceled),
    ],
)
def test_a_plan_that_is_not_come_to_says_nothing_of_the_tables(
    meanwhile: str, error: type[psycopg.Error], migrated_url: str
) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            f"""CREATE FUNCTION planned() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            $$BEGIN PERFORM {meanwhile}, pg_sleep(60); RETURN 1; END$$""".encode()
        )
        with pytest.raises(error):
            check_plan(connection, named_shops(), Prepared.of(b"SELECT planned()"))
