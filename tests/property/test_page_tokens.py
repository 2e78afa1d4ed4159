"""A page token carries any value of any column exactly, and works for its own query alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation_service.fields import item_table
from curation_service.page_tokens import read_page_token, write_page_token
from shared.errors import InvalidRequest
from tests.support.parcels import PARCELS

FIELDS = item_table(PARCELS).fields
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.uuids(),
    "name": TEXTS,
    "size": st.integers(-(2**31), 2**31 - 1),
    "floor": st.integers(-(2**15), 2**15 - 1),
    "serial": st.integers(-(2**63), 2**63 - 1),
    "price": st.decimals(allow_nan=False, places=2, min_value=-(10**10), max_value=10**10),
    "weight": st.floats(allow_nan=False),
    "slope": st.floats(width=32, allow_nan=False),
    "fragile": st.booleans(),
    "sent_at": st.datetimes(timezones=st.just(UTC)),
    "local_time": st.datetimes(),
    "due": st.dates(),
    "colour": st.sampled_from(["red", "green"]),
    "queue_status": st.sampled_from(["queued", "processing", "completed", "failed"]),
}
places = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6, unique=True).flatmap(
    lambda names: st.tuples(st.just(names), st.tuples(*(st.none() | VALUES[name] for name in names)))
)
queries = st.lists(TEXTS, max_size=4).map(tuple)


@given(places, queries)
def test_a_token_gives_back_the_values_it_was_written_with(
    place: tuple[list[str], tuple[Any, ...]], query: Any
) -> None:
    names, values = place
    kinds = [FIELDS[name].kind for name in names]
    assert read_page_token(write_page_token(query, kinds, values), query, kinds) == values


@given(place=places, query=queries, other=queries)
def test_a_token_of_another_query_is_refused(place: tuple[list[str], tuple[Any, ...]], query: Any, other: Any) -> None:
    names, values = place
    kinds = [FIELDS[name].kind for name in names]
    if query != other:
        with pytest.raises(InvalidRequest):
            read_page_token(write_page_token(query, kinds, values), other, kinds)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    kinds = [FIELDS["name"].kind, FIELDS["id"].kind]
    token = write_page_token(["q"], kinds, ["a name", data.draw(st.uuids())])
    at = data.draw(st.integers(0, len(token) - 1))
    changed = (
        token[:at] + data.draw(st.sampled_from("A_-*= é").filter(lambda sign: sign != token[at])) + token[at + 1 :]
    )
    for wrong in (changed, token[:at], token + "A"):
        with pytest.raises(InvalidRequest):
            read_page_token(wrong, ["q"], kinds)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_page_token(text, ["q"], [FIELDS["id"].kind])


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_a_token_that_somebody_made_up_with_its_digest_is_refused_or_read(value: Any) -> None:
    made_up = replace(FIELDS["size"].kind, render=lambda _: value)
    token = write_page_token(["q"], [made_up], [0])
    try:
        (read,) = read_page_token(token, ["q"], [FIELDS["size"].kind])
    except InvalidRequest:
        return
    assert read is None or isinstance(read, int)
