"""A target for `gadgets` that refuses in every way PostgreSQL has, and an enricher that finds what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
from sqlalchemy import (
    ARRAY,
    CHAR,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import BIT, INET, INTERVAL, JSONB, REAL
from sqlalchemy.types import UserDefinedType

from shared.workflow import EnrichmentContext, Item, Values
from tests.support.postgres import connected
from tests.support.worker import GADGETS


class Point(UserDefinedType[str]):
    """A type that SQLAlchemy does not know."""

    def get_col_spec(self, **_: Any) -> str:
        """Its name."""
        return "point"


metadata = MetaData()
strict = Table(
    "strict",
    metadata,
    Column("code", Text, primary_key=True),
    Column("label", String(20), nullable=False),
    Column("size", Integer, CheckConstraint("size < 1000", name="size_below_1000")),
    Column("small", SmallInteger),
    Column("rating", Double),
    Column("weight", REAL),
    Column("price", Numeric(6, 2)),
    Column("open", Boolean),
    Column("seen_at", DateTime(timezone=True)),
    Column("lasts", INTERVAL),
    Column("uid", Uuid),
    Column("photo", LargeBinary),
    Column("letters", CHAR(3)),
    Column("bits", BIT(4)),
    Column("host", INET),
    Column("spot", Point),
    Column("tags", ARRAY(Text)),
    Column("extra", JSONB),
    Column("slogan", Text, unique=True),
)
LATER = """
CREATE TABLE strict_owner (name text PRIMARY KEY);
INSERT INTO strict_owner VALUES ('me');
ALTER TABLE strict
    ADD COLUMN owner text REFERENCES strict_owner DEFERRABLE INITIALLY DEFERRED,
    ADD COLUMN place integer UNIQUE DEFERRABLE INITIALLY DEFERRED;
CREATE FUNCTION strict_before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE NEW.label
        WHEN 'raise' THEN RAISE EXCEPTION 'the trigger does not like it';
        WHEN 'raise U0001' THEN RAISE EXCEPTION 'an error of their own' USING ERRCODE = 'U0001';
        WHEN 'raise 55000' THEN RAISE EXCEPTION 'not in this state' USING ERRCODE = '55000';
        WHEN 'raise 0A000' THEN RAISE EXCEPTION 'not for such rows' USING ERRCODE = '0A000';
        WHEN 'divide' THEN NEW.size := 1 / 0;
        WHEN 'no table' THEN EXECUTE 'SELECT * FROM strict_nowhere';
        ELSE NULL;
    END CASE;
    RETURN NEW;
END $$;
CREATE TRIGGER strict_before BEFORE INSERT OR UPDATE ON strict FOR EACH ROW EXECUTE FUNCTION strict_before();
CREATE FUNCTION strict_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.label = 'raise later' THEN RAISE EXCEPTION 'not at the end either'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER strict_later AFTER INSERT OR UPDATE ON strict DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION strict_later();
"""
"""What is checked by a trigger, or at the end of the transaction alone."""
strict.append_column(Column("owner", Text))
strict.append_column(Column("place", Integer))
STRICT = replace(GADGETS, target=strict, enricher="tests.support.strict:enrich")
FOUND: dict[str, Mapping[str, Any]] = {}
"""What the enricher finds, by name of the gadget."""


async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
    """Finds what `FOUND` says, or values that the target takes."""
    name = item.data["name"]
    return {"code": name, "label": "good", **FOUND.get(name, {})}


def create_strict(url: str) -> None:
    """The table, with what SQLAlchemy cannot declare."""
    early = strict.to_metadata(MetaData())
    for later in ("owner", "place"):
        early._columns.remove(early.c[later])
    with connected(url) as connection:
        early.create(connection)
    with psycopg.connect(url) as connection:
        connection.execute(LATER)
