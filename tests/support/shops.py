"""`shops`: a workflow whose tables a test may have made otherwise, and a look at what the database has of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

from shared.workflow import Curation, QueueColumns, Workflow, item_columns
from tests.support.postgres import connected

CURATION = Curation(initial="New", transitions={"New": ("Selected",), "Selected": ()}, triggers=frozenset({"Selected"}))
QUEUE = QueueColumns.named("scan")


def shops(schema: str | None = None, *, key_type: type[TypeEngine[Any]] = Integer) -> Workflow:
    tables = MetaData(schema=schema)
    return Workflow(
        resource="shops",
        source=Table("shop", tables, Column("id", key_type, primary_key=True), *item_columns(CURATION, QUEUE)),
        target=Table("shop_scan", tables, Column("shop_id", Integer, primary_key=True), Column("found", Text)),
        target_key="shop_id",
        curation=CURATION,
        queue=QUEUE,
        enricher="tests.nowhere:enrich",
    )


@contextmanager
def not_waiting() -> Iterator[None]:
    """Migrating gives up a lock that somebody holds at once, not after seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("migrate", "partitions"):
            patch.setattr(f"shared.db.{module}.LOCK_TIMEOUT", "SET LOCAL lock_timeout = '0.2s'")
        yield


def columns(url: str, table: str) -> set[str]:
    """Its columns; none when there is no such table."""
    with connected(url) as connection:
        statement = "SELECT column_name FROM information_schema.columns WHERE table_name = :table"
        return set(connection.scalars(text(statement), {"table": table}))


def execute(url: str, statement: str) -> None:
    with connected(url) as connection:
        connection.execute(text(statement))
