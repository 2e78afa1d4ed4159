"""Many UUIDs read at once are the same as one by one, or none at all."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation_service.kinds import UUID_KIND
from shared.uuids import Uuids

GOOD = "6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11"
CHARACTERS = st.sampled_from("0aF- _\u0660\n")
"""What some reader of hexadecimal digits takes, or leaves out."""


@st.composite
def almost(draw: st.DrawFn) -> str:
    """A UUID with some characters changed, or none."""
    text = list(str(draw(st.uuids())))
    for place, character in draw(st.dictionaries(st.integers(0, 35), CHARACTERS, max_size=3)).items():
        text[place] = character
    return "".join(text)


def one_by_one(texts: list[str]) -> list[UUID] | None:
    with suppress(ValueError):
        return [UUID_KIND.parse(text) for text in texts]
    return None


@given(st.lists(almost() | st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper()), min_size=1))
def test_they_are_read_as_one_by_one(texts: list[str]) -> None:
    read = Uuids.parse(texts)
    assert (None if read is None else list(read)) == one_by_one(texts)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [GOOD[:-1]],
        [GOOD + "0", GOOD[:-1]],
        [GOOD.replace("-", "")],
        [f"{{{GOOD[1:-1]}}}"],
        [GOOD[:-2] + "  "],
        [GOOD[:8] + "0-" + GOOD[10:]],
        [GOOD[:-1] + "\u0660"],
        [GOOD[:-1] + "g"],
    ],
)
def test_what_is_spelled_otherwise_is_not_read(texts: list[str]) -> None:
    assert Uuids.parse(texts) is None


def test_the_same_one_twice_is_seen_whatever_its_spelling() -> None:
    assert UUID_KIND.parse_all([GOOD, GOOD.upper()]) is None
    assert UUID_KIND.parse_all([GOOD]) is not None


def test_they_are_a_sequence() -> None:
    values = Uuids.parse([GOOD, str(UUID(int=7)), str(UUID(int=8))])
    assert values is not None
    assert (len(values), values[1], values[-1], list(values[1:])) == (3, UUID(int=7), UUID(int=8), list(values)[1:])
    assert UUID(GOOD) in values
