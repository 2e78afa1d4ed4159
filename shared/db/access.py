"""What each program is to be allowed in a database, and whether PostgreSQL takes its statements there.

Both are asked before it starts: what is lacking would show late, in the one call that needs it. The page for operators
(`docs/operate/roles.md`) grants the same, which a test holds it to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, QueryCanceled

from shared.db.curate_each import curate_statement
from shared.db.finish import finish_statement
from shared.db.models import machinery
from shared.db.prepared import Prepared
from shared.db.statement import table_name
from shared.errors import DatabaseUnfit
from shared.table import transition_table
from shared.workflow import Workflow

GRANT = "connect as who migrated, or grant it (docs/operate/roles.md)"
READ, ADD, CHANGE = "SELECT", "SELECT, INSERT", "SELECT, INSERT, UPDATE"
ALL = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a program does in a database."""

    tables: Mapping[str, str]
    """The privileges that it needs on tables of the machinery."""
    sequences: Mapping[str, str]
    """The privileges that it needs on their sequences."""
    source: str
    """The privileges that it needs on a workflow's source."""
    target: str
    """The privileges that it needs on a workflow's target; empty where it does not look at it."""
    statement: Callable[[Workflow], Prepared]
    """The statement that needs the most of a workflow's tables."""


SERVICE = Access(
    tables={
        **dict.fromkeys(machinery.tables, READ),
        **dict.fromkeys(("status_event", "batch_outcome"), ADD),
        **dict.fromkeys(("status_batch", "workflow_state"), CHANGE),
    },
    sequences={"status_event_position": "SELECT, USAGE", "status_batch_id_seq": "USAGE"},
    source="SELECT, UPDATE",
    target="",
    statement=lambda workflow: Prepared.of(curate_statement(workflow, transition_table(workflow))),
)
WORKER = Access(
    tables={
        "status_event": ADD,
        "worker_session": ALL,
        "worker_claim": "SELECT, INSERT, DELETE",
        "api_state": CHANGE,
        "call_schedule": ALL,
        "call_lease": ALL,
        "failure_group": CHANGE,
        "workflow_state": READ,
        "status_batch": READ,
    },
    sequences={"status_event_position": "USAGE"},
    source="SELECT, UPDATE",
    target=CHANGE,
    statement=lambda workflow: finish_statement(workflow, transition_table(workflow), all_complete=False),
)
_LACKING = """/* lacking */
SELECT relation, act FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (relation, act, n)
WHERE NOT CASE WHEN (SELECT relkind FROM pg_class WHERE oid = to_regclass(relation)) = 'S'
               THEN has_sequence_privilege(relation, act)
               WHEN act = 'DELETE' THEN has_table_privilege(relation, act)
               ELSE has_any_column_privilege(relation, act) END
ORDER BY n LIMIT 1"""


def check_access(connection: psycopg.Connection[Any], workflows: Iterable[Workflow], access: Access) -> None:
    """Checks that this user may do what the program does, and that PostgreSQL can. The tables must be there.

    Raises:
        DatabaseUnfit: a right is lacking, or PostgreSQL refuses a statement.
        InsufficientPrivilege, LockNotAvailable, QueryCanceled: whether it would take one could not be found out.
    """
    workflows = list(workflows)
    needed = [*access.tables.items(), *access.sequences.items()]
    for workflow in workflows:
        tables = ((workflow.source, access.source), (workflow.target, access.target))
        needed += [(table_name(table).as_string(connection), acts) for table, acts in tables if acts]
    pairs = [(relation, act) for relation, acts in needed for act in acts.split(", ")]
    lacking = connection.execute(_LACKING, [[*part] for part in zip(*pairs, strict=True)]).fetchone()
    if lacking is not None:
        relation, act = lacking
        (user,) = connection.execute("SELECT current_user").fetchone() or ("",)
        raise DatabaseUnfit(f"the user {user} may not {act} {relation}: {GRANT}")
    for workflow in workflows:
        check_plan(connection, workflow, access.statement(workflow))


def check_plan(connection: psycopg.Connection[Any], workflow: Workflow, statement: Prepared) -> None:
    """Has PostgreSQL plan a statement without running it.

    So it says itself what would make the statement fail each time, whatever the rows are: a column that it fills by
    itself, a value that it cannot cast, a rule, a view that cannot be written.

    Raises:
        DatabaseUnfit: it refuses.
        InsufficientPrivilege, LockNotAvailable, QueryCanceled: whether it would could not be found out.
    """
    try:
        with connection.transaction():
            psycopg.RawCursor(connection).execute(b"EXPLAIN " + statement.text, [None] * len(statement.names))
    except (InsufficientPrivilege, LockNotAvailable, QueryCanceled):
        raise
    except psycopg.Error as error:
        if connection.closed:
            raise
        problem = error.diag.message_primary
        raise DatabaseUnfit(f"the tables of {workflow.resource!r} cannot be worked with: {problem}") from error
