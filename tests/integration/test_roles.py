"""Who migrates, serves and works may be roles of their own, with the rights that each needs."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from shared.db.migrate import migrate
from shared.db.partitions import Kept, keep_partitions
from shared.registry import Registry
from tests.support.roles import as_role, new_roles
from tests.support.shops import shops

pytestmark = pytest.mark.postgres_versions

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
