"""The page on filters says what the code does: each of its filters is one, or is refused, and its bounds are those."""

from __future__ import annotations

import re

import pytest

from curation_service.fields import item_table
from curation_service.filter_syntax import COMPARISONS_MAX, DEPTH_MAX, LENGTH_MAX
from curation_service.filters import compile_filter
from curation_service.ordering import COLUMNS_MAX, parse_order
from shared.errors import InvalidRequest
from shared.registry import load_registry
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "reference" / "filters.md").read_text()
TAKEN, REFUSED = (
    re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE) for part in TEXT.split("## What is refused", maxsplit=1)
)
PLACES = load_registry()["places"]


@pytest.mark.parametrize("text", TAKEN)
def test_a_filter_of_the_page_is_taken(text: str) -> None:
    compile_filter(text, item_table(PLACES))


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_page_says_is_refused_is(text: str) -> None:
    with pytest.raises(InvalidRequest):
        compile_filter(text, item_table(PLACES))


def test_the_page_names_every_word_of_an_item_and_every_bound() -> None:
    words = set(item_table(PLACES).fields) - {column.name for column in PLACES.data_columns}
    assert [word for word in sorted(words) if f"`{word}`" not in TEXT] == []
    bounds = f"{LENGTH_MAX:,} characters, {COMPARISONS_MAX} comparisons and {DEPTH_MAX} parentheses"
    assert bounds in TEXT
    assert f"up to {COLUMNS_MAX} fields" in TEXT
    parse_order("country, name desc", item_table(PLACES))
