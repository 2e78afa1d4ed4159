"""What an error of PostgreSQL means: the database is away for a while, or its tables are not as they were.

SQLAlchemy and the driver say it in many ways; the rest of the code knows `DatabaseUnavailable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.errors import (
    CheckViolation,
    FeatureNotSupported,
    InsufficientPrivilege,
    InvalidColumnReference,
    InvalidSchemaName,
    InvalidSqlStatementName,
    LockNotAvailable,
    QueryCanceled,
    ReadOnlySqlTransaction,
    UndefinedColumn,
    UndefinedTable,
)
from sqlalchemy import exc

from shared.errors import DatabaseUnavailable, StatementCanceled

_CHANGES = (UndefinedTable, UndefinedColumn, InvalidColumnReference, InvalidSchemaName, InsufficientPrivilege)
"""A table, a column, the unique index of the target's key, a schema or a right is gone that was there at the start."""
_LOG = "status_event"
"""No row of the log breaks a rule; an error of its checks means that its partition of today is gone."""


@contextmanager
def database_errors() -> Iterator[None]:
    """Turns "PostgreSQL is not there", in any of its forms, into `DatabaseUnavailable`; lets the rest pass."""
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseUnavailable("no database connection was free in time") from error
    except (exc.DBAPIError, psycopg.Error) as error:
        if (unavailable := _unavailable(error)) is None:
            raise
        raise unavailable from error


def is_outdated(error: Exception) -> bool:
    """Whether only a new connection helps.

    It does where columns have got other types since a statement was prepared, where the driver has dropped all prepared
    statements, as it does after some errors, and where the server has become a standby or lets its sessions only read.
    """
    cause = driver_error(error)
    if isinstance(cause, InvalidSqlStatementName | ReadOnlySqlTransaction):
        return True
    return isinstance(cause, FeatureNotSupported) and cause.diag.source_function == "RevalidateCachedQuery"


def changed_table(error: Exception) -> str | None:
    """What a table lacks that it had at the start, in PostgreSQL's words: whoever changes it may not be done.

    None for other errors, and where a trigger met it.
    """
    cause = driver_error(error)
    if isinstance(cause, CheckViolation):
        is_change = cause.diag.table_name == _LOG
    elif isinstance(cause, _CHANGES):
        is_change = not met_in_trigger(cause) and not breaks_policy(cause)
    else:
        return None
    return cause.diag.message_primary if is_change else None


def met_in_trigger(error: psycopg.Error) -> bool:
    """Whether an error, of whatever kind, came up inside a trigger: PostgreSQL then names the function."""
    return bool(error.diag.context)


def breaks_policy(error: psycopg.Error) -> bool:
    """Whether a row is not as a policy of its table allows (row level security): no right of the user is lacking."""
    return isinstance(error, InsufficientPrivilege) and error.diag.source_function == "ExecWithCheckOptions"


def was_refused(error: Exception) -> bool:
    """Whether the server has answered that a statement failed: then it is certain that it has done nothing."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
    return isinstance(cause, psycopg.Error) and cause.diag.severity_nonlocalized == "ERROR"


def in_a_line(error: BaseException) -> str:
    """What is wrong with the database, for a log: what the driver said, without what it quotes."""
    if isinstance(error, TimeoutError):
        return "no answer in time"  # its cause is that somebody was cancelled, which says nothing
    cause = error.__cause__ or error
    said, _, _ = str(cause).partition("\n")
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__


def driver_error(error: BaseException | None) -> BaseException | None:
    """The driver's error, whether SQLAlchemy has wrapped it or not."""
    return error.orig if isinstance(error, exc.DBAPIError) else error


def _unavailable(error: exc.DBAPIError | psycopg.Error) -> DatabaseUnavailable | None:
    """What callers are told; None for other errors. The network is not blamed for what the server gave up on."""
    cause = driver_error(error)
    match cause:
        case ReadOnlySqlTransaction():
            return DatabaseUnavailable("the database lets nobody write now")
        case QueryCanceled():
            return StatementCanceled()
        case LockNotAvailable():
            return DatabaseUnavailable("another transaction holds a lock for too long")
        case _ if is_outdated(error):
            return DatabaseUnavailable("a table was changed meanwhile")
        case psycopg.OperationalError() if was_refused(cause):
            return DatabaseUnavailable(f"the database gave up on it ({type(cause).__name__})")
        case psycopg.OperationalError():
            return DatabaseUnavailable("the database cannot be reached")
        case _ if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return DatabaseUnavailable("the database cannot be reached")
    return None
