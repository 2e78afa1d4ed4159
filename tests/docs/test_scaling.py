"""What the page on scaling says of a distribution key, read from the statements that run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from psycopg import AsyncConnection, AsyncCursor, sql

from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.engine import Connection
from shared.db.finish import Result, finish
from shared.db.log import append_progress
from shared.db.prepared import Prepared
from shared.db.sessions import rescue
from shared.machine import curate_trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.docs.pages import ROOT
from tests.support.parcels import PARCELS

TABLE = transition_table(PARCELS)
KEY = UUID(int=1)
BATCH = NewBatch(status="Scan")
RESULTS = [Result(Item(KEY, 1, 1, {}), "complete", values={"code": "1"}), Result(Item(KEY, 1, 1, {}), "retry")]
"""Not all complete: the statement that does most."""
Run = Callable[[Connection], Awaitable[Any]]
StatementOf = Callable[[Run], Awaitable[str]]
STATEMENTS: dict[str, Run] = {
    "set a status, by key": lambda c: curate(
        c, PARCELS, TABLE, CurateCall(trigger=curate_trigger("Scan"), keys=[KEY], batch=BATCH)
    ),
    "set a status, by filter": lambda c: curate(
        c, PARCELS, TABLE, CurateCall(trigger=curate_trigger("Scan"), where=sql.SQL("s.name = ''"), batch=BATCH)
    ),
    "claim": lambda c: claim(c, PARCELS, TABLE, session=1, limit=1, from_turn=0.0),
    "finish": lambda c: finish(c, PARCELS, TABLE, RESULTS),
    "report progress": lambda c: append_progress(c, PARCELS, [(KEY, 1, "asking", 0.5)]),
    "rescue": lambda c: rescue(c, PARCELS, TABLE),
}
BY_KEY = re.compile(
    r'JOIN "parcels" s ON s\."id" = \w+\.key'
    r'|FROM "parcels" s WHERE s\."id" = ANY'
    r'|UPDATE "parcels" s\s+SET (?:(?!\bWHERE\b).)*WHERE s\."id" = \w+\.key',
    re.DOTALL,
)
ANY_WAY = re.compile(r'(?:FROM|JOIN|UPDATE)\s+"parcels"')
WRITES = re.compile(r'INSERT INTO "?(\w+)"?')


class Composed(Exception):
    """The statement is there, and shall not run."""


@pytest.fixture
async def statement_of(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StatementOf]:
    """Gives the statement that names the source table, which does not run."""
    execute, run_prepared = AsyncCursor.execute, Prepared.run
    found: list[str] = []

    def look_at(statement: str) -> None:
        if ANY_WAY.search(statement):
            found.append(statement)
            raise Composed

    async def record(cursor: AsyncCursor[Any], statement: Any, *args: Any, **options: Any) -> Any:
        text = statement.as_string() if isinstance(statement, sql.Composable) else statement
        look_at(text.decode() if isinstance(text, bytes) else text)
        return await execute(cursor, statement, *args, **options)

    async def record_prepared(statement: Prepared, *args: Any) -> Any:
        look_at(statement.text.decode())
        return await run_prepared(statement, *args)

    async def statement_of(run: Run) -> str:
        with suppress(Composed):
            await run(connection)
        (statement,) = found
        return statement

    async with await AsyncConnection.connect(database_url) as connection:
        monkeypatch.setattr(AsyncCursor, "execute", record)
        monkeypatch.setattr(Prepared, "run", record_prepared)
        yield statement_of


@pytest.mark.parametrize("name", STATEMENTS)
async def test_the_page_says_how_often_a_statement_goes_by_the_key_and_what_else_it_writes(
    name: str, statement_of: StatementOf
) -> None:
    statement = await statement_of(STATEMENTS[name])
    by_key = len(BY_KEY.findall(statement))
    searches = len(ANY_WAY.findall(statement)) - by_key
    writes = ["the target" if table == PARCELS.target.name else f"`{table}`" for table in WRITES.findall(statement)]
    row = f"| {name} | {by_key} | {searches} | {', '.join(writes) or 'nothing'} |"
    assert row in (ROOT / "docs" / "scaling.md").read_text(), row


@pytest.mark.parametrize("name", STATEMENTS)
async def test_rows_of_different_items_are_never_joined(name: str, statement_of: StatementOf) -> None:
    """Other than by the key, the source is read alone: never beside another relation that has items."""
    rest = BY_KEY.sub("", await statement_of(STATEMENTS[name]))
    assert not re.search(r'JOIN\s+"parcels"|"parcels"\s+s\s*(?:,|JOIN)', rest)
