"""Migrations: they lead to what the models say, whoever runs them, however often."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.base import ischema_names

from shared.db.migrate import migrate
from shared.db.models import Xid8, machinery
from shared.db.storage import INDEX_SETTINGS, TABLE_SETTINGS, set_storage
from shared.errors import DatabaseUnavailable, WorkflowError
from shared.registry import Registry, load_registry
from tests.support.postgres import connected
from tests.support.shops import columns, execute, not_waiting, shops

pytestmark = pytest.mark.postgres_versions


def storage(url: str, table: str) -> dict[str, str]:
    """Its storage parameters."""
    with connected(url) as connection:
        statement = """SELECT coalesce(jsonb_object_agg(option_name, option_value), '{}')
                       FROM pg_class, pg_options_to_table(reloptions) WHERE oid = CAST(:table AS regclass)"""
        return dict(connection.scalar(text(statement), {"table": table}))


def indexes(url: str, table: str) -> set[str]:
    """The definitions of its indexes."""
    with connected(url) as connection:
        return set(
            connection.scalars(text("SELECT indexdef FROM pg_indexes WHERE tablename = :table"), {"table": table})
        )


def test_migrated_from_empty_a_database_equals_the_models(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)
    migrate(empty_database_url, Registry())
    with connected(empty_database_url) as connection:
        # Partitions are made as the log grows; no model names them.
        options = {"include_name": lambda name, kind, _: kind != "table" or name in machinery.tables}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), machinery) == []


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url, load_registry())
    before = columns(empty_database_url, "status_event")
    migrate(empty_database_url, load_registry())
    assert columns(empty_database_url, "status_event") == before


def test_columns_that_the_machinery_has_come_to_need_are_added(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, "ALTER TABLE shop DROP COLUMN scan_event")
    execute(empty_database_url, "INSERT INTO shop (id) VALUES (1)")
    migrate(empty_database_url, Registry(shops()))
    assert "scan_event" in columns(empty_database_url, "shop")


EARLIER_INDEXES = """
DROP INDEX {schema}.ix_{prefix}shop_scan_turn, {schema}.ix_{prefix}shop_scan_run_at,
    {schema}.ix_{prefix}shop_scan_failure;
CREATE INDEX ix_{prefix}shop_scan_turn ON {schema}.shop (scan_turn, id)
    WHERE scan_status = 'queued' AND scan_run_at IS NULL;
CREATE INDEX ix_{prefix}shop_scan_run_at ON {schema}.shop (scan_run_at)
    WHERE scan_status = 'queued' AND scan_run_at IS NOT NULL;
CREATE INDEX ix_{prefix}shop_scan_worker ON {schema}.shop (scan_worker) WHERE scan_status = 'processing';
CREATE INDEX ix_{prefix}shop_scan_failure ON {schema}.shop (scan_failure, id, scan_batch) WHERE scan_status = 'failed';
CREATE INDEX the_author_has ON {schema}.shop (id) WHERE scan_status = 'failed';
INSERT INTO {schema}.shop (id, status, scan_status, scan_turn, scan_run_at, scan_failure, scan_worker)
VALUES (1, 'Selected', 'queued', 1, NULL, NULL, NULL), (2, 'Selected', 'queued', 2, now(), 7, NULL),
       (3, 'Selected', 'processing', 3, NULL, 7, 5), (4, 'Selected', 'completed', 4, NULL, NULL, NULL),
       (5, 'Selected', 'failed', 5, NULL, 7, NULL), (6, 'New', NULL, NULL, NULL, NULL, NULL),
       (7, 'Selected', 'processing', 3, NULL, NULL, 5), (8, 'Selected', 'processing', 3, NULL, NULL, 6)
"""


@pytest.mark.parametrize("schema", [None, "my"])
def test_indexes_that_an_earlier_version_made_are_replaced(empty_database_url: str, schema: str | None) -> None:
    shop = Registry(shops(schema))
    execute(empty_database_url, "CREATE SCHEMA my")
    migrate(empty_database_url, shop)
    made = indexes(empty_database_url, "shop")
    names = {"schema": schema, "prefix": "my_"} if schema else {"schema": "public", "prefix": ""}
    execute(empty_database_url, EARLIER_INDEXES.format(**names))
    migrate(empty_database_url, shop)
    assert {line for line in indexes(empty_database_url, "shop") if "the_author_has" not in line} == made
    with connected(empty_database_url) as connection:
        statement = "SELECT id, scan_turn, scan_run_at IS NOT NULL, scan_failure FROM {schema}.shop ORDER BY id"
        rows = [tuple(row) for row in connection.execute(text(statement.format(**names)))]
    assert rows == [
        (1, 1, False, None),
        (2, None, True, 7),
        (3, None, False, None),
        (4, None, False, None),
        (5, None, False, 7),
        (6, None, False, None),
        (7, None, False, None),
        (8, None, False, None),
    ]


def test_indexes_of_a_table_that_was_partitioned_are_replaced_under_their_names(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, EARLIER_INDEXES.format(schema="public", prefix=""))
    execute(
        empty_database_url,
        "ALTER TABLE shop RENAME TO shop_whole;"
        "CREATE TABLE shop (LIKE shop_whole INCLUDING ALL) PARTITION BY HASH (id);"
        "CREATE TABLE shop_0 PARTITION OF shop FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO shop SELECT * FROM shop_whole",
    )
    migrate(empty_database_url, Registry(shops()))
    made = {
        line.partition(" ON ONLY ")[0].split()[-1]: line.partition(" WHERE ")[2]
        for line in indexes(empty_database_url, "shop")
    }
    assert {name: where for name, where in made.items() if where} == {
        "shop_scan_turn_id_idx": "(scan_turn IS NOT NULL)",
        "shop_scan_run_at_idx": "(scan_run_at IS NOT NULL)",
        "shop_scan_failure_id_scan_batch_idx": "((scan_failure IS NOT NULL) AND (scan_run_at IS NULL))",
        "shop_id_idx": "(scan_status = 'failed'::text)",
    }


def test_a_table_that_somebody_has_locked_is_left_as_it_was(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    made = indexes(empty_database_url, "shop")
    execute(empty_database_url, EARLIER_INDEXES.format(schema="public", prefix=""))
    before = indexes(empty_database_url, "shop")
    with connected(empty_database_url) as connection:
        connection.execute(text("LOCK TABLE shop IN ROW EXCLUSIVE MODE"))
        with not_waiting(), pytest.raises(DatabaseUnavailable, match="holds a lock"):
            migrate(empty_database_url, Registry(shops()))
    assert indexes(empty_database_url, "shop") == before
    migrate(empty_database_url, Registry(shops()))
    assert indexes(empty_database_url, "shop") > made


def test_what_workers_have_in_hand_when_claims_come_to_say_it_is_theirs(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, EARLIER_INDEXES.format(schema="public", prefix=""))
    migrate(empty_database_url, Registry(shops()))
    migrate(empty_database_url, Registry(shops()))
    with connected(empty_database_url) as connection:
        statement = "SELECT resource, session, items FROM worker_claim ORDER BY session"
        assert [tuple(row) for row in connection.execute(text(statement))] == [
            ("shops", 5, ["3", "7"]),
            ("shops", 6, ["8"]),
        ]


def test_columns_of_the_machinery_that_a_table_cannot_get_in_a_moment_are_left_to_its_author(
    empty_database_url: str,
) -> None:
    execute(empty_database_url, "CREATE TABLE shop (id integer PRIMARY KEY, version bigint)")
    with pytest.raises(WorkflowError, match=r"'shops'.*'shop'.*status.*scan_event"):
        migrate(empty_database_url, Registry(shops()))
    assert columns(empty_database_url, "shop") == {"id", "version"}


async def test_processes_that_migrate_at_once_wait_for_one_another(empty_database_url: str) -> None:
    registry = load_registry()
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url, registry) for _ in range(4)))
    assert "resource" in columns(empty_database_url, "status_batch")


def test_the_tables_of_a_workflow_are_created(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    assert {"id", "status", "version", "scan_status"} <= columns(empty_database_url, "shop")
    assert columns(empty_database_url, "shop_scan") == {"shop_id", "found"}


def test_a_table_without_a_declared_column_is_refused_and_nothing_is_changed(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE shop_scan (shop_id integer PRIMARY KEY)")
    with pytest.raises(WorkflowError, match=r"'shops'.*'shop_scan'.*found"):
        migrate(empty_database_url, Registry(shops()))
    assert columns(empty_database_url, "shop_scan") == {"shop_id"}
    assert columns(empty_database_url, "shop") == set()


def test_a_table_with_more_columns_than_declared_is_left_as_it_is(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TABLE shop_scan (shop_id integer PRIMARY KEY, found text, note text)")
    migrate(empty_database_url, Registry(shops()))
    assert columns(empty_database_url, "shop_scan") == {"shop_id", "found", "note"}


@pytest.mark.parametrize(("schema", "prefix"), [(None, ""), ("an author's", '"an author\'s".')])
def test_a_source_is_vacuumed_early_and_has_room_on_its_pages(
    empty_database_url: str, schema: str | None, prefix: str
) -> None:
    execute(empty_database_url, 'CREATE SCHEMA "an author\'s"')
    migrate(empty_database_url, Registry(shops(schema)))
    assert storage(empty_database_url, f"{prefix}shop") == TABLE_SETTINGS
    assert storage(empty_database_url, f"{prefix}shop_scan") == {}


def test_indexes_over_all_rows_of_a_source_have_room_on_their_pages(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, 'CREATE INDEX "an author\'s" ON shop (scan_error)')
    execute(empty_database_url, "CREATE INDEX hashed ON shop USING hash (scan_error)")
    migrate(empty_database_url, Registry(shops()))
    for index in ("shop_pkey", "ix_shop_status", '"an author\'s"'):
        assert storage(empty_database_url, index) == INDEX_SETTINGS
    for index in ("hashed", "ix_shop_scan_turn", "shop_scan_pkey"):
        assert storage(empty_database_url, index) == {}


def test_storage_parameters_that_the_owner_of_a_source_has_set_are_left_as_they_are(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    execute(empty_database_url, "ALTER TABLE shop RESET (autovacuum_vacuum_cost_delay), SET (fillfactor = 90)")
    execute(empty_database_url, "ALTER INDEX shop_pkey SET (fillfactor = 80)")
    migrate(empty_database_url, Registry(shops()))
    assert storage(empty_database_url, "shop") == {**TABLE_SETTINGS, "fillfactor": "90"}
    assert storage(empty_database_url, "shop_pkey") == {"fillfactor": "80"}


def test_the_partitions_of_a_source_are_vacuumed_early_too(empty_database_url: str) -> None:
    workflow = shops()
    with connected(empty_database_url) as connection:
        workflow.source.dialect_options["postgresql"]["partition_by"] = "HASH (id)"
        workflow.source.create(connection)
        connection.execute(text('CREATE TABLE "shop 0" PARTITION OF shop FOR VALUES WITH (MODULUS 1, REMAINDER 0)'))
    migrate(empty_database_url, Registry(workflow))
    assert storage(empty_database_url, '"shop 0"') == TABLE_SETTINGS
    assert storage(empty_database_url, '"shop 0_pkey"') == INDEX_SETTINGS


def test_a_source_of_another_owner_keeps_its_storage_parameters(empty_database_url: str) -> None:
    migrate(empty_database_url, Registry(shops()))
    parameters = ", ".join(TABLE_SETTINGS)
    execute(empty_database_url, f"ALTER TABLE shop RESET ({parameters})")
    execute(empty_database_url, f"ALTER INDEX shop_pkey RESET ({', '.join(INDEX_SETTINGS)})")
    role = f"other_{uuid.uuid4().hex}"
    with connected(empty_database_url) as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"SET ROLE {role}"))
        set_storage(connection, shops().source)
        connection.execute(text("RESET ROLE"))
        connection.execute(text(f"DROP ROLE {role}"))
    assert storage(empty_database_url, "shop") == {}
    assert storage(empty_database_url, "shop_pkey") == {}


def test_a_database_that_is_not_there_is_said_to_be_unavailable(empty_database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        migrate(f"{empty_database_url}".replace("port=5432", "port=1"), Registry())
