"""What a table does not allow, told from a database that is away, and said so that a reader understands it."""

from __future__ import annotations

import logging
import re
from typing import Any

import psycopg
from sqlalchemy import Column

from enrichment_worker.lane import Lane
from shared.db.errors import breaks_policy, met_in_trigger
from shared.workflow import Values, Workflow

log = logging.getLogger(__name__)

REFUSALS = frozenset({"42804", "42846", "44000", "P0001"})
"""Wrong type, no such cast, a view's check, a trigger's own: the driver has them as `ProgrammingError`, but they are
the row's fault."""
LIMITS = "54"
"""The class of what is beyond a limit, e.g. a key too long for its index: to the driver an `OperationalError`, but
another try would not help."""
NOT_IN_STATE = "55000"
"""Another one of that kind, which triggers like to raise."""
UNSAYABLE = (TypeError, ValueError, RecursionError)
"""No value of its column, or JSON that is too deep."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, and half a surrogate pair: what JSON can say and PostgreSQL cannot keep."""


def is_refusal(error: Exception) -> bool:
    """Whether a row's values may be the cause. `UNSAYABLE` come from turning values into SQL.

    Errors of the installation (no such table, no permission) are not, unless a trigger of the target met them. An error
    code of a trigger's own belongs to no class.
    """
    if not isinstance(error, psycopg.Error):
        return isinstance(error, UNSAYABLE)
    state = error.sqlstate
    if isinstance(error, psycopg.OperationalError):
        return state is not None and (state.startswith(LIMITS) or state == NOT_IN_STATE)
    if isinstance(error, psycopg.ProgrammingError):
        return state is None or state in REFUSALS or breaks_policy(error) or met_in_trigger(error)
    return not isinstance(error, psycopg.InternalError | psycopg.InterfaceError)


def note_refusal(lane: Lane, statement: str, error: Exception, *, is_known: bool = False) -> None:
    """Counts a statement that the source does not allow, and logs it unless `is_known`; the caller tries it again.

    Raises `error` where that is not what it means.
    """
    if not isinstance(error, psycopg.Error) or not is_refusal(error):
        raise error
    lane.refused += 1
    if is_known:
        return
    message = error.diag.message_primary or str(error)
    log.error("%s does not allow a %s: %s", lane.workflow.source.name, statement, message)


def value_problem(workflow: Workflow, values: Values) -> str | None:
    """What is wrong with values before the database sees them, or None. It may hold secrets: `clean` has to follow."""
    if not workflow.value_names.issuperset(values):
        unknown = sorted(str(name) for name in values if name not in workflow.value_names)
        return f"the enricher returned columns that {workflow.target.name} does not have: {', '.join(unknown)}"
    if values.get(workflow.target_key) is None:
        return f"the enricher returned no {workflow.target_key}, which names the row of {workflow.target.name}"
    return None


def refusal(error: Exception, workflow: Workflow, values: Values) -> str:
    """Says what the target refused, and which columns may be meant where PostgreSQL does not say.

    It may hold secrets: `clean` has to follow.
    """
    text = str(error)
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        text = error.diag.message_primary
    named = getattr(getattr(error, "diag", None), "column_name", None)
    suspects = [c.name for c in workflow.value_columns if c.name in values and _is_odd(c, values[c.name])]
    where = f" (see {', '.join(suspects)})" if suspects and not named else ""
    return f"{workflow.target.name} refused the values: {text}{where}"


def _is_odd(column: Column[Any], value: Any) -> bool:
    """Whether a value does not look like its column; only a hint, as PostgreSQL casts much."""
    length = getattr(column.type, "length", None)
    if value is None:
        return False
    if isinstance(value, str) and (_UNSTORABLE.search(value) or (length is not None and len(value) > length)):
        return True
    expected = column.type.python_type
    return not isinstance(value, expected) and not (expected is float and isinstance(value, int))
