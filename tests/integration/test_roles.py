"""Who migrates, serves and works may be roles of their own, with the rights that each needs."""

from __future__ import annotations

import asyncio

import grpc
import psycopg
import pytest

from shared.db.access import SERVICE, WORKER, Access
from shared.db.migrate import migrate
from shared.db.partitions import Kept, keep_partitions
from shared.db.readiness import DatabaseReady
from shared.errors import DatabaseUnfit
from shared.registry import Registry
from tests.support.batches import everything, update
from tests.support.roles import as_role, new_roles
from tests.support.service import add_parcels, refused, running_service
from tests.support.shops import shops

pytestmark = pytest.mark.postgres_versions

PROGRAMS = pytest.mark.parametrize("access", [SERVICE, WORKER], ids=["service", "worker"])
TOMORROWS = "SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'status_event'::regclass"


async def test_what_a_member_makes_of_the_log_is_its_owners(empty_database_url: str) -> None:
    with new_roles(empty_database_url, "owner", "member") as (owner, member):
        with psycopg.connect(empty_database_url) as connection:
            connection.execute(f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT {owner} TO {member}")
        await asyncio.to_thread(migrate, as_role(empty_database_url, owner), Registry(shops()))
        with psycopg.connect(as_role(empty_database_url, member)) as connection:
            (tomorrows,) = connection.execute(TOMORROWS).fetchone() or ("",)
            connection.execute(f"DROP TABLE {tomorrows}")
            assert keep_partitions(connection, retention_days=None) == Kept(created=1, dropped=0)
        with psycopg.connect(as_role(empty_database_url, owner)) as connection:
            connection.execute("ALTER TABLE status_event ADD later text")  # as the next migration may


async def test_what_a_policy_of_the_source_does_not_allow_is_refused(database_url: str) -> None:
    with new_roles(database_url, "service") as (role,), psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            f"""GRANT CREATE ON SCHEMA public TO {role};
            GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
            GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}""".encode()
        )
        async with running_service(as_role(database_url, role)) as service:
            await add_parcels(service.database, {}, {})
            connection.execute("""ALTER TABLE parcels ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
                CREATE POLICY few ON parcels USING (true) WITH CHECK (status <> 'Selected' OR name = 'parcel 1')""")
            before = await everything(service.database)
            for numbers in ((2,), (1, 2)):
                refusal = await refused(service.stub.BatchUpdateStatus(update("Selected", *numbers)))
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TABLE_REFUSED")
                assert "row-level security policy" in refusal.message
            assert await everything(service.database) == before
            assert (await service.stub.BatchUpdateStatus(update("Selected", 1))).batch.changed_count == 1


@PROGRAMS
async def test_to_change_the_columns_of_items_is_enough_and_one_of_them_less_is_named(
    access: Access, empty_database_url: str
) -> None:
    workflow = shops()
    await asyncio.to_thread(migrate, empty_database_url, Registry(workflow))

    async def start(user: str) -> None:
        url = as_role(empty_database_url, user)
        async with DatabaseReady(url=url, workflows=[workflow], access=access, timeout_s=0):
            pass

    with new_roles(empty_database_url, "program") as (user,), psycopg.connect(empty_database_url) as connection:
        connection.autocommit = True
        tables = {**access.tables, "shop": "SELECT", "shop_scan": access.target or "SELECT"}
        for table, acts in tables.items():
            connection.execute(f"GRANT {acts} ON {table} TO {user}")
        for sequence, acts in access.sequences.items():
            connection.execute(f"GRANT {acts} ON SEQUENCE {sequence} TO {user}")
        connection.execute(f"GRANT UPDATE ({', '.join(workflow.machinery_columns)}) ON shop TO {user}")
        await start(user)
        connection.execute(f"REVOKE UPDATE (scan_error) ON shop FROM {user}")
        with pytest.raises(DatabaseUnfit, match="permission denied for table shop: connect as who migrated, or grant"):
            await start(user)
