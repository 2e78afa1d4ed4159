"""A database whose rows came without its sequences, as by logical replication: refused, until migrating mends it."""

from __future__ import annotations

import psycopg
import pytest

from shared.db.access import WORKER
from shared.db.migrate import migrate
from shared.db.readiness import DatabaseReady
from shared.db.sequences import check_sequences
from shared.errors import DatabaseUnfit
from shared.registry import Registry
from tests.support.roles import as_role, new_roles

pytestmark = pytest.mark.postgres_versions

BATCH = "INSERT INTO status_batch (resource, status) VALUES ('places', 'New') RETURNING id"
SESSION = "INSERT INTO worker_session (host, version, resources) VALUES ('here', '1', '{}') RETURNING id"
EVENT = (
    "INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)"
    " VALUES (nextval('status_event_position'), 1, 'places', '', '', '', '{}', '{}', '{}') RETURNING position"
)
CLAIM = (
    "INSERT INTO worker_claim (position, resource, session)"
    " VALUES (nextval('status_event_position'), 'places', 0) RETURNING position"
)


async def start(url: str) -> None:
    """As far as a process makes sure of its database."""
    async with DatabaseReady(url=url, workflows=[], access=WORKER, timeout_s=0):
        pass


@pytest.mark.parametrize(
    ("sequence", "draws"),
    [
        ("status_batch_id_seq", [BATCH]),
        ("worker_session_id_seq", [SESSION]),
        ("status_event_position", [EVENT]),
        ("status_event_position", [CLAIM]),
        ("status_event_position", [CLAIM, EVENT]),
        ("status_event_position", [EVENT, CLAIM]),
    ],
)
async def test_a_sequence_that_is_behind_its_table_is_refused_until_migrating_moves_it_on(
    sequence: str, draws: list[str], database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        newest = [connection.execute(draw.encode()).fetchone() for _ in range(3) for draw in draws][-1]
        await start(database_url)
        (before,) = connection.execute(f"SELECT last_value - 2 FROM {sequence}".encode()).fetchone() or (None,)
        connection.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {before}".encode())
        with pytest.raises(DatabaseUnfit, match=f"{sequence} is behind its table"):
            await start(database_url)
        migrate(database_url, Registry())
        await start(database_url)
        added = connection.execute(draws[0].encode()).fetchone()
        assert newest is not None
        assert added == (newest[0] + 1,)


async def test_positions_that_connections_draw_ahead_are_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER SEQUENCE status_event_position CACHE 20")
        with pytest.raises(DatabaseUnfit, match="ALTER SEQUENCE status_event_position CACHE 1"):
            await start(database_url)
        connection.execute("ALTER SEQUENCE status_event_position CACHE 1")
    await start(database_url)


def test_who_may_draw_from_a_sequence_sees_that_it_is_behind_and_others_do_not_ask(database_url: str) -> None:
    with new_roles(database_url, "worker") as (role,), psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
        connection.execute(EVENT.encode())
        connection.execute("SELECT setval('status_event_position', 1)")
        with psycopg.connect(as_role(database_url, role), autocommit=True) as worker:
            check_sequences(worker)
            connection.execute(f"GRANT USAGE ON SEQUENCE status_event_position TO {role}".encode())
            with pytest.raises(DatabaseUnfit, match="status_event_position is behind its table"):
                check_sequences(worker)
