"""Any filter tree survives being written and read; any text is read or refused as an `InvalidRequest`."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation_service.fields import item_table
from curation_service.filter_syntax import KEYWORDS, WORD, And, Comparison, Not, Or, Tree, parse_filter
from curation_service.filters import compile_filter, to_driver_sql
from shared.errors import InvalidRequest
from tests.support.parcels import PARCELS

pytestmark = pytest.mark.untraced

ITEMS = item_table(PARCELS)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in KEYWORDS)
COMPARATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"])
comparisons = st.builds(Comparison, NAMES, COMPARATORS, st.text(max_size=12)) | st.builds(
    Comparison, NAMES, st.just(":"), st.none()
)


def several(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    terms = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return terms.map(And) | terms.map(Or) | inner.map(Not)


trees: st.SearchStrategy[Tree] = st.recursive(comparisons, several, max_leaves=12)
SCRAPS = st.sampled_from(
    [
        *"()-:=<>!*\"'\\ ",
        *("AND ", " OR ", "NOT ", "size", "status", "queue_status", "sent_at", "price", "fragile", "id"),
        *("1", "NONE", "2026-04-21T11:30:00Z", "true", '"x"', "9" * 30, "1e400", "NaN", "é", "\0"),
    ]
)


def written(tree: Tree) -> str:
    match tree:
        case And(terms):
            return " AND ".join(bracketed(term) for term in terms)
        case Or(terms):
            return " OR ".join(bracketed(term) for term in terms)
        case Not(term):
            return f"NOT {bracketed(term)}"
        case Comparison(name, comparator, value):
            return f"{name} {comparator} {'*' if value is None else written_value(value)}"


def bracketed(tree: Tree) -> str:
    return written(tree) if isinstance(tree, Comparison) else f"({written(tree)})"


def written_value(value: str) -> str:
    if WORD.fullmatch(value) and value not in KEYWORDS and value != "*":
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(trees)
def test_a_written_tree_reads_as_itself(tree: Tree) -> None:
    assert parse_filter(written(tree)) == tree


@settings(max_examples=500)
@given(st.lists(SCRAPS, max_size=14).map("".join) | st.text())
def test_any_text_compiles_or_is_refused(text: str) -> None:
    with suppress(InvalidRequest):
        to_driver_sql(compile_filter(text, ITEMS))
