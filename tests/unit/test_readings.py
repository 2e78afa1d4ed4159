"""A reading that was packed for the way comes out as it was, in one message or many, or is seen to be missing."""

from __future__ import annotations

from dataclasses import fields

import pytest

from curation_service.readings import FORM, Assembler, Message, Relayed, last_of, pack, position_of
from shared.db.log import Entry
from shared.db.ring import Reading
from tests.support.entries import entry

READING = Reading([entry(6, 3), entry(7, 40, full=True, error="zu weit, 遠い \N{WORLD MAP}")], 9)


def packed(after: int = 5, *, size_max: int = 1_000_000) -> list[Message]:
    return pack(after, READING, lag_s=1.5, relay="r", last=(7, 70), size_max=size_max)


def assembled(*messages: Message) -> list[Relayed]:
    assembler = Assembler()
    return [whole for message in messages if (whole := assembler.add(*message)) is not None]


@pytest.mark.parametrize("size_max", [1_000_000, 100, 1])
def test_a_reading_comes_out_as_it_went_in_however_small_the_messages_must_be(size_max: int) -> None:
    messages = packed(size_max=size_max)
    assert all(len(body) <= size_max for _, body in messages)
    assert assembled(*messages) == [Relayed(5, 9, READING.entries, 1.5, "r")]


def test_the_test_has_something_to_say_in_every_field() -> None:
    assert all(
        getattr(READING.entries[1], field.name) is not None for field in fields(Entry) if field.name != "left_batch"
    )


def test_a_reading_without_entries_is_a_message_too() -> None:
    assert assembled(*pack(5, Reading((), 5), lag_s=0, relay="r", last=None, size_max=100)) == [
        Relayed(5, 5, [], 0, "r")
    ]


def test_half_a_reading_is_none_and_does_not_spoil_the_next() -> None:
    messages = packed(size_max=100)
    assert len(messages) > 3
    assert assembled(*messages[:-1]) == []
    assert assembled(*messages[1:]) == []
    assert assembled(*messages[:2], *messages[3:]) == []
    assert len(assembled(*messages[:-1], *packed(size_max=200))) == 1
    assert len(assembled(*messages[:2], *messages)) == 1


def test_who_goes_on_after_half_a_reading_begins_it_anew() -> None:
    messages = packed(size_max=100)
    assert [position_of(headers) for headers, _ in messages] == [5] * (len(messages) - 1) + [9]


def test_what_another_version_wrote_is_not_read_but_its_place_is() -> None:
    ((headers, body),) = packed()
    assert assembled(({**headers, FORM: "another"}, body)) == [Relayed(5, 9, None, 1.5, "r")]


def test_a_message_tells_the_last_entry_where_it_is_known() -> None:
    assert [last_of(headers) for headers, _ in packed()] == [(7, 70)]
