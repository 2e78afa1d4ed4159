"""Events put together from bytes that are made once: what a client reads is what the messages would have said."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.event_frames import CACHE_BYTES_MAX, EVENTS_SIZE, EventFrames, event_messages
from curation_service.messages import event_message
from tests.support.entries import entry

MEMORY = 1.2
"""Of what may be kept, with what it takes to keep it."""


def read(messages: list[bytes]) -> list[pb.WatchStatusResponse]:
    return [pb.WatchStatusResponse.FromString(message) for message in messages]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("count", [0, 1, 200, EVENTS_SIZE + 1])
def test_all_events_of_entries_arrive_as_their_messages(full: bool, count: int) -> None:
    entries, frames = [entry(1, count, full=full), entry(2, 3)], EventFrames()
    for _ in range(2):  # made, and then kept
        responses = read(list(event_messages(frames.all_of(entries), "token")))
        events = [event for response in responses for event in response.events.events]
        assert events == [event_message(e, index) for e in entries for index in range(len(e.items))]


@pytest.mark.parametrize("name", ["errors", "run_ats", "steps", "fractions"])
def test_what_an_entry_has_for_each_item_is_told_where_it_has_nothing_else(name: str) -> None:
    one = replace(entry(1, 3), **{name: getattr(entry(1, 3, full=True), name)})
    (response,) = read(list(event_messages(EventFrames().all_of([one]), "token")))
    assert list(response.events.events) == [event_message(one, index) for index in range(3)]


def test_names_and_numbers_of_every_size_arrive() -> None:
    sizes, versions = (1, 127, 128, 255, 256, 20_000), (0, 127, 128, 1023, 1024, 2**63 - 1)
    items = ["ä" * (size // 2) + "x" * (size % 2) for size in sizes]
    one = replace(entry(1, 6), items=items, versions=versions, attempts=[version % 2**31 for version in versions])
    (response,) = read(list(event_messages(EventFrames().all_of([one]), "token")))
    assert list(response.events.events) == [event_message(one, index) for index in range(6)]


@pytest.mark.parametrize("count", [3, 200])
def test_some_events_arrive_as_their_messages_in_the_order_of_the_entry(count: int) -> None:
    one, frames = entry(1, count, full=True), EventFrames()
    wanted = [event_message(one, index) for index in (0, 2)]
    by_item = read(list(event_messages(frames.of_items([one], frozenset({"1-2", "1-0", "other"})), "")))
    by_index = read(list(event_messages(frames.at_indexes([one], {(1, 1): [0, 2]}), "")))
    assert [list(response.events.events) for response in by_item] == [wanted]
    assert [list(response.events.events) for response in by_index] == [wanted]


def test_only_the_last_message_has_the_token_and_none_is_too_long() -> None:
    entries = [entry(n, 400) for n in range(1, 7)]
    responses = read(list(event_messages(EventFrames().all_of(entries), "token")))
    assert [response.resume_token for response in responses] == ["", "", "token"]
    assert [len(response.events.events) for response in responses] == [800, 800, 800]


def test_nothing_to_tell_makes_no_message() -> None:
    assert not list(event_messages(EventFrames().all_of([entry(1, 0)]), "token"))


def test_what_is_kept_is_bounded_and_still_right() -> None:
    frames, error = EventFrames(), "x" * 100_000
    entries = [entry(n, 100, full=True, error=error) for n in range(1, CACHE_BYTES_MAX // (50 * 100_000) + 3)]
    sizes = [sum(len(frame) for frame, _ in frames.all_of([each])) for each in entries]
    assert sum(sizes) > CACHE_BYTES_MAX >= frames.cached_bytes
    assert [sum(len(frame) for frame, _ in frames.all_of([each])) for each in entries] == sizes


def test_small_events_take_no_more_memory_than_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_bytes = CACHE_BYTES_MAX // 4  # the same share of it is less to count
    monkeypatch.setattr("curation_service.event_frames.CACHE_BYTES_MAX", cache_bytes)
    frames = EventFrames()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(cache_bytes // 300):
            list(frames.all_of([entry(number, 1)]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frames.cached_bytes > 0.9 * cache_bytes, "it is full"
    assert after - before < MEMORY * cache_bytes
