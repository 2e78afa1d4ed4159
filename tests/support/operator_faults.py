"""What an operator does to a database while everything runs on it, each way by its name; nothing ends by it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psycopg

from shared.db.migrate import migrate
from shared.errors import DatabaseUnavailable
from shared.registry import load_registry
from tests.support.faults import ReplicaFault, moment
from tests.support.replicas import Replica, Replicas

TABLES = ("places_staging", "local_businesses", "status_event", "status_batch", "worker_claim", "worker_session")


def done(*statements: str, pause_s: float = 0.1) -> ReplicaFault:
    """Each statement by itself, on a table of chance where it names none; `pause_s` at most after each.

    Who is the victim of a deadlock, or loses its server to another fault, leaves it at that.
    """

    async def fault(site: Replicas, _: Replica, dice: random.Random) -> None:
        table = dice.choice(TABLES)
        with suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(site.url, autocommit=True) as connection:
                for statement in statements:
                    await connection.execute(statement.format(table=table).encode())
                    await moment(dice, pause_s)

    return fault


async def migrated_by_two(site: Replicas, _: Replica, __: random.Random) -> None:
    """Each of them waits for the other one, or for a lock, and gives up."""
    migrations = [asyncio.to_thread(migrate, site.url, load_registry()) for _ in range(2)]
    for result in await asyncio.gather(*migrations, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, DatabaseUnavailable):
            raise result


def signaled(function: str, names: Sequence[str]) -> ReplicaFault:
    """All connections of one name, as the server calls them."""

    async def fault(site: Replicas, _: Replica, dice: random.Random) -> None:
        site.cuts_s.append(time.time())
        who = f"FROM pg_stat_activity WHERE application_name = '{dice.choice(names)}'"
        await done(f"SELECT {function}(pid) {who}")(site, _, dice)

    return fault


WORKER = tuple(f"curation worker, {part}" for part in ("claiming", "completing", "on errands", "beating", "listening"))
SERVICE = ("curation service", "curation tail", "curation tail, behind", "curation log keeper")
OPERATOR_FAULTS: Mapping[str, ReplicaFault] = {
    "connections ended by pg_terminate_backend": signaled("pg_terminate_backend", [*WORKER, *SERVICE]),
    # Whose call was canceled is not to try again: workers and the tail are nobody's call.
    "statements ended by pg_cancel_backend": signaled("pg_cancel_backend", [*WORKER, "curation tail"]),
    "a table locked": done("BEGIN", "LOCK TABLE {table}", "ROLLBACK", pause_s=3.0),
    "a table rewritten": done("VACUUM FULL {table}"),
    "indexes made anew": done("REINDEX TABLE CONCURRENTLY {table}", "ANALYZE {table}"),
    "columns added and dropped": done(
        "ALTER TABLE {table} ADD IF NOT EXISTS mark uuid NOT NULL DEFAULT gen_random_uuid()",
        "ALTER TABLE {table} DROP mark",
    ),
    "the type of a column changed": done(
        "ALTER TABLE places_staging ALTER name TYPE varchar(500)", "ALTER TABLE places_staging ALTER name TYPE text"
    ),
    "migrated again by two at once": migrated_by_two,
}
