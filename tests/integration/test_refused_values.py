"""What the target refuses is the matter of one item alone, whatever it is: the others of its batch are saved."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.roles import as_role, new_roles
from tests.support.strict import FOUND, STRICT, create_strict
from tests.support.worker import World

BATCH_SIZE = 500
SURROGATE = "\ud800"
HUGE = 10**400
DEEP: list[Any] = []
for _ in range(20_000):
    DEEP = [DEEP]
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "too long": ({"label": "x" * 21, "rating": 4}, "value too long for type character varying(20) (see label)"),
    "null": (
        {"label": None, "rating": "4.5"},
        'null value in column "label" of relation "strict" violates not-null constraint',
    ),
    "nul": ({"label": "a\x00b"}, "PostgreSQL text fields cannot contain NUL (0x00) bytes (see label)"),
    "surrogate": ({"label": SURROGATE}, "surrogates not allowed (see label)"),
    "dict": ({"label": {"a": 1}}, "label takes no dict (see label)"),
    "list": ({"label": ["a"]}, "label takes no list (see label)"),
    "object": ({"label": object()}, "label takes no object (see label)"),
    "check": ({"size": 1000}, 'violates check constraint "size_below_1000"'),
    "size text": ({"size": "many"}, 'invalid input syntax for type integer: "many" (see size)'),
    "size half": ({"size": 4.7}, 'invalid input syntax for type integer: "4.7" (see size)'),
    "size nan": ({"size": float("nan")}, 'invalid input syntax for type integer: "nan" (see size)'),
    "size huge": ({"size": 2**40}, "integer out of range"),
    "size beyond": ({"size": HUGE}, "integer out of range"),
    "small huge": ({"small": 40_000}, "smallint out of range"),
    "rating beyond": ({"rating": HUGE}, "is out of range for type double precision"),
    "weight beyond": ({"weight": 1e300}, "value out of range: overflow"),
    "price beyond": ({"price": 1e6}, "numeric field overflow (see price)"),
    "price infinite": ({"price": float("inf")}, "numeric field overflow (see price)"),
    "open text": ({"open": "perhaps"}, 'invalid input syntax for type boolean: "perhaps" (see open)'),
    "no such day": ({"seen_at": "2020-02-30"}, 'field value out of range: "2020-02-30" (see seen_at)'),
    "lasts text": ({"lasts": "soon"}, 'invalid input syntax for type interval: "soon" (see lasts)'),
    "uid text": ({"uid": "x"}, 'invalid input syntax for type uuid: "x" (see uid)'),
    "letters long": ({"letters": "abcd"}, "value too long for type character(3) (see letters)"),
    "bits long": ({"bits": "10101"}, "does not match type bit(4) (see bits)"),
    "host text": ({"host": "1.2.3.400"}, 'invalid input syntax for type inet: "1.2.3.400"'),
    "spot text": ({"spot": "nowhere"}, 'invalid input syntax for type point: "nowhere"'),
    "tags mixed": ({"tags": ["a", 1]}, "cannot dump lists of mixed types"),
    "tags nul": ({"tags": ["\x00"]}, "cannot contain NUL"),
    "extra nul": ({"extra": {"a": "\x00"}}, "unsupported Unicode escape sequence"),
    "extra surrogate": ({"extra": SURROGATE}, "invalid input syntax for type json"),
    "extra nan": ({"extra": [float("nan")]}, "invalid input syntax for type json"),
    "extra deep": ({"extra": DEEP}, "maximum recursion depth exceeded"),
    "extra circle": ({"extra": CIRCLE}, "maximum recursion depth exceeded"),
    "extra set": ({"extra": {1}}, "Object of type set is not JSON serializable"),
    "slogan again": ({"slogan": "taken"}, 'duplicate key value violates unique constraint "strict_slogan_key"'),
    "owner": ({"owner": "nobody"}, 'violates foreign key constraint "strict_owner_fkey"'),
    "place again": ({"place": 7}, 'duplicate key value violates unique constraint "strict_place_key"'),
    "raise": ({"label": "raise"}, "strict refused the values: the trigger does not like it"),
    "raise state": ({"label": "raise 55000"}, "strict refused the values: not in this state"),
    "raise feature": ({"label": "raise 0A000"}, "strict refused the values: not for such rows"),
    "raise code": ({"label": "raise U0001"}, "strict refused the values: an error of their own"),
    "raise later": ({"label": "raise later"}, "strict refused the values: not at the end either"),
    "divide": ({"label": "divide"}, "strict refused the values: division by zero"),
    "no table": ({"label": "no table"}, 'relation "strict_nowhere" does not exist'),
    "unknown": ({"colour": 1}, "the enricher returned columns that strict does not have: colour"),
    "no code": ({"code": None}, "the enricher returned no code, which names the row of strict"),
    "code nul": ({"code": "a\x00"}, "cannot contain NUL (0x00) bytes (see code)"),
    "code surrogate": ({"code": SURROGATE}, "surrogates not allowed (see code)"),
}
"""What is found, and what becomes of it."""
TAKEN: Mapping[str, tuple[str, Any, Any]] = {
    "label 5": ("label", 5, "5"),
    "size 4.0": ("size", 4.0, 4),
    "rating 4": ("rating", 4, 4.0),
    "rating 4.5": ("rating", 4.5, 4.5),
    "rating text": ("rating", "4.5", 4.5),
    "price": ("price", Decimal("1.25"), Decimal("1.25")),
    "price 1": ("price", 1, Decimal("1.00")),
    "open": ("open", True, True),
    "seen text": ("seen_at", "2020-02-28T00:00:00Z", datetime(2020, 2, 28, tzinfo=UTC)),
    "seen": ("seen_at", datetime(2020, 2, 28, tzinfo=UTC), datetime(2020, 2, 28, tzinfo=UTC)),
    "seen date": ("seen_at", date(2020, 2, 28), datetime(2020, 2, 28, tzinfo=UTC)),
    "lasts": ("lasts", timedelta(1), timedelta(1)),
    "uid": ("uid", str(UUID(int=1)), UUID(int=1)),
    "photo": ("photo", b"\x00\xff", b"\x00\xff"),
    "letters": ("letters", "abc", "abc"),
    "bits": ("bits", "1010", "1010"),
    "host": ("host", "127.0.0.1", ip_address("127.0.0.1")),
    "spot": ("spot", "(1,2)", "(1,2)"),
    "tags": ("tags", ["a", "b c"], ["a", "b c"]),
    "tags, one": ("tags", ["{,}"], ["{,}"]),
    "tags, none": ("tags", [], []),
    "extra": ("extra", {"a": [1, None, 4.5]}, {"a": [1, None, 4.5]}),
    "extra text": ("extra", "text", "text"),
    "slogan": ("slogan", "taken", "taken"),
    "owner me": ("owner", "me", "me"),
    "place 7": ("place", 7, 7),
}
"""A column, what is found for it, and what is saved."""


@pytest.fixture
def strict_world(world: World, database_url: str) -> World:
    create_strict(database_url)
    world.workflow = STRICT
    FOUND.clear()
    FOUND.update({name: {column: value} for name, (column, value, _) in TAKEN.items()})
    FOUND.update({name: found for name, (found, _) in REFUSED.items()})
    return world


async def test_of_a_batch_each_item_that_is_refused_fails_with_its_reason_and_all_others_are_saved(
    strict_world: World,
) -> None:
    good = [f"good {number}" for number in range(BATCH_SIZE - len(TAKEN) - len(REFUSED))]
    await strict_world.queue(*TAKEN, *REFUSED, *good)
    async with strict_world.worker(flush_age_s=1, flush_size=BATCH_SIZE) as worker:
        rows = await strict_world.ended(worker)
    errors = {row["name"]: row["lookup_error"] for row in rows if row["lookup_status"] == "failed"}
    assert {name: error for name, error in errors.items() if name not in REFUSED} == {}
    unlike = {name: errors.get(name) for name, (_, words) in REFUSED.items() if words not in errors.get(name, "")}
    assert unlike == {}
    assert errors["null"].endswith("not-null constraint"), "where PostgreSQL names a column, no other one is suspected"
    saved = {row["code"]: row for row in await strict_world.rows("strict", "code")}
    assert saved.keys() == {*TAKEN, *good}
    assert {name: saved[name][column] for name, (column, _, _) in TAKEN.items()} == {
        name: value for name, (_, _, value) in TAKEN.items()
    }


async def test_what_is_refused_of_a_shared_key_leaves_what_the_others_found(strict_world: World) -> None:
    FOUND.update({"one": {"code": "shared", "size": 1}, "two": {"code": "shared", "size": "many"}})
    await strict_world.queue("one", "two")
    async with strict_world.worker(flush_age_s=1) as worker:
        rows = await strict_world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "failed"]
    assert [(row["code"], row["size"]) for row in await strict_world.rows("strict", "code")] == [("shared", 1)]
    (session,) = await strict_world.rows("worker_session", "id")
    assert (session["done"], session["failed"]) == (1, 1)


async def test_what_is_too_large_together_is_saved_by_halves_and_what_is_so_alone_fails(
    strict_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.values.SIZE_MAX", 3 << 20)
    FOUND.update({f"page {n}": {"extra": "x" * 2**20} for n in range(9)})
    FOUND.update({"text": {"extra": "x" * 2**22}, "bytes": {"photo": bytes(2**22)}})
    await strict_world.queue(*FOUND.keys() - TAKEN.keys() - REFUSED.keys())
    async with strict_world.worker(flush_age_s=1) as worker:
        rows = await strict_world.ended(worker)
    assert {row["name"]: row["lookup_error"] for row in rows if row["lookup_status"] == "failed"} == {
        "text": "strict refused the values: 4 MB of extra, where 3 are saved at once",
        "bytes": "strict refused the values: 4 MB of photo, where 3 are saved at once",
    }
    assert len(await strict_world.rows("strict", "code")) == 9


async def test_what_a_policy_of_the_target_does_not_allow_is_the_matter_of_its_item_alone(world: World) -> None:
    with new_roles(world.url, "worker") as (role,), psycopg.connect(world.url, autocommit=True) as owner:
        owner.execute(
            f"""GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
            GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
            ALTER TABLE gadget_details ENABLE ROW LEVEL SECURITY;
            CREATE POLICY no_others ON gadget_details USING (true) WITH CHECK (code <> 'other')""".encode()
        )
        await world.queue("one", "other", "three")
        async with world.worker(database_url=as_role(world.url, role), flush_age_s=1) as worker:
            rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "failed", "completed"]
    assert "refused the values: new row violates row-level security policy" in rows[1]["lookup_error"]
    assert [row["code"] for row in await world.details()] == ["one", "three"]
