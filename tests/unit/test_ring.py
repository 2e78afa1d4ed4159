"""The memory of the log: bounded, and never a half of a transaction."""

from __future__ import annotations

from collections.abc import Sequence

from shared.db.log import Entry
from shared.db.ring import ENTRY_WEIGHT, ITEMS_AT_ONCE, Reading, Ring
from tests.support.entries import entry


def ring(*entries: Entry, items_max: int = 1_000_000) -> Ring:
    made = Ring(items_max=items_max)
    made.begin(10)
    for each in entries:
        made.add(Reading([each], each.position))
    return made


def positions(entries: Sequence[Entry]) -> list[int]:
    return [each.position for each in entries]


def test_it_gives_what_follows_a_position() -> None:
    kept = ring(entry(11, 1), entry(13, 1), entry(13, 1), entry(20, 0))
    assert positions(kept.read(10).entries) == [11, 13, 13, 20]
    assert positions(kept.read(12).entries) == [13, 13, 20]
    assert kept.read(13) == Reading(kept.read(13).entries, 20)
    assert kept.read(20) == Reading([], 20)
    assert kept.read(25) == Reading([], 25)


def test_positions_that_nobody_used_are_read_too() -> None:
    kept = ring()
    kept.add(Reading([entry(11, 1)], 15))
    assert (kept.position, kept.read(10).position) == (15, 15)


def test_what_was_read_before_it_begins_anew_is_gone_and_takes_no_room() -> None:
    kept = ring(*(entry(n, 1) for n in range(11, 16)), items_max=5 * (ENTRY_WEIGHT + 1))
    kept.begin(13)
    assert (kept.floor, kept.position, kept.read(13)) == (13, 13, Reading([], 13))
    for n in range(14, 19):
        kept.add(Reading([entry(n, 1)], n))
    assert (kept.floor, positions(kept.read(13).entries)) == (13, list(range(14, 19)))


def test_what_has_no_room_raises_the_floor() -> None:
    kept = ring(*(entry(n, 4) for n in range(11, 31)), items_max=10 * (ENTRY_WEIGHT + 4))
    assert kept.floor > 10
    assert positions(kept.read(kept.floor).entries) == list(range(kept.floor + 1, 31))
    assert len(kept.read(kept.floor).entries) <= 11


def test_small_entries_take_as_much_memory_as_some_items_each() -> None:
    kept = ring(*(entry(n, 1) for n in range(11, 111)), items_max=90)
    assert len(kept.read(kept.floor).entries) <= 11


def test_a_transaction_is_dropped_as_a_whole() -> None:
    kept = ring(entry(11, 4), entry(12, 4), entry(12, 4), entry(13, 4), items_max=25)
    assert kept.floor == 12
    assert positions(kept.read(12).entries) == [13]


def test_more_than_all_the_room_leaves_nothing_but_the_position() -> None:
    kept = ring(entry(11, 50), items_max=9)
    assert (kept.floor, kept.position, list(kept.read(11).entries)) == (11, 11, [])


def test_it_gives_no_more_than_a_bound_at_once_and_no_half_of_a_transaction() -> None:
    kept = ring(entry(11, ITEMS_AT_ONCE), entry(11, 5), entry(12, 1))
    reading = kept.read(10)
    assert (positions(reading.entries), reading.position) == ([11, 11], 11)
    assert positions(kept.read(reading.position).entries) == [12]
    assert len(ring(*(entry(11 + n, 0) for n in range(ITEMS_AT_ONCE + 1))).read(10).entries) == ITEMS_AT_ONCE
