"""The events of the log as they go over the wire, made once for all watchers.

A message of events is the concatenation of its parts. So the messages of all watchers, however their events are
grouped, are put together from the same bytes: an event is serialised once for a thousand watchers of everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from curation.v1 import curation_pb2 as pb
from curation_service.cache import LruCache
from curation_service.messages import item_part, shared_part
from shared.db.log import Entry

EVENTS_SIZE = 1_000
"""Events of a message, at most: some 100 kB, and a millisecond or two to make them in."""
MESSAGE_BYTES = 1 << 20
"""The size of a message, at most, unless one run is more: clients take 4 MB by default."""
CACHE_BYTES_MAX = 16 << 20
"""The size of all frames that are cached for other watchers, at most."""
FRAME_OVERHEAD_BYTES = 300
"""What a cached frame takes beside its own bytes: more than the bytes of a single event."""

SEARCHED_MAX = 20
"""An entry of more items has the place of each noted once, for all watchers; one of fewer is searched by each."""
PLACES_MAX = 200_000
"""Items of which that is cached, some 150 bytes each."""

Indexes: TypeAlias = Mapping[tuple[int, int], Sequence[int]]
"""Places in an entry's sequences, by its position and part."""
Frame: TypeAlias = tuple[bytes, int]
"""Events as `StatusEvents` has them, one behind the other, and how many they are."""


class EventFrames:
    """Makes frames, and caches them."""

    def __init__(self) -> None:
        self._frames = LruCache[tuple[int, int, int, int], bytes](
            CACHE_BYTES_MAX, lambda frame: len(frame) + FRAME_OVERHEAD_BYTES
        )
        self._places = LruCache[tuple[int, int], Mapping[str, int]](PLACES_MAX, len)

    @property
    def cached_bytes(self) -> int:
        """The size of all frames in the cache."""
        return self._frames.size

    def all_of(self, entries: Iterable[Entry]) -> Iterator[Frame]:
        """All events of entries, in runs of `EVENTS_SIZE` at most."""
        for entry in entries:
            for start in range(0, len(entry.items), EVENTS_SIZE):
                end = min(start + EVENTS_SIZE, len(entry.items))
                yield self._frame(entry, start, end), end - start

    def of_items(self, entries: Iterable[Entry], items: frozenset[str]) -> Iterator[Frame]:
        """The events of these items."""
        for entry in entries:
            places = self._places_of(entry)
            for index in sorted(places[item] for item in _both(places.keys(), items)):
                yield self._frame(entry, index, index + 1), 1

    def at_indexes(self, entries: Iterable[Entry], indexes: Indexes) -> Iterator[Frame]:
        """The events at these places of each entry, by its position and part."""
        for entry in entries:
            for index in indexes.get((entry.position, entry.part), ()):
                yield self._frame(entry, index, index + 1), 1

    def _places_of(self, entry: Entry) -> Mapping[str, int]:
        if len(entry.items) <= SEARCHED_MAX:
            return {item: index for index, item in enumerate(entry.items)}
        key = entry.position, entry.part
        places = self._places.get(key)
        if places is None:
            places = {item: index for index, item in enumerate(entry.items)}
            self._places.put(key, places)
        return places

    def _frame(self, entry: Entry, start: int, end: int) -> bytes:
        key = entry.position, entry.part, start, end
        frame = self._frames.get(key)
        if frame is None:
            frame = _made(entry, start, end)
            self._frames.put(key, frame)
        return frame


def event_messages(frames: Iterable[Frame], token: str) -> Iterator[bytes]:
    """Messages of events; only the last has the token, so that no transaction is ever split by one."""
    held: list[bytes] = []
    count = size = 0
    for frame, events in frames:
        if held and (count + events > EVENTS_SIZE or size + len(frame) > MESSAGE_BYTES):
            yield _response(held)
            held, count, size = [], 0, 0
        held.append(frame)
        count, size = count + events, size + len(frame)
    if held:
        yield _response(held) + with_token(token)


def with_token(token: str) -> bytes:
    """The token's part of a response, to be put behind the others."""
    return pb.WatchStatusResponse(resume_token=token).SerializeToString()


def _both(one: AbstractSet[str], other: AbstractSet[str]) -> Iterator[str]:
    """What is in both; `&` would walk over all of a frozenset, even where the other is a single item."""
    few, many = sorted((one, other), key=len)
    return (item for item in few if item in many)


def _made(entry: Entry, start: int, end: int) -> bytes:
    # What all of an entry's events have in common is serialised once; the order of fields means nothing to protobuf.
    shared = shared_part(entry).SerializeToString()
    made = bytearray()
    for event in _item_parts(entry, start, end):
        size = len(event) + len(shared)
        made += _HEADS[size] if size < len(_HEADS) else _head(_EVENTS_FIELD, size)
        made += event
        made += shared
    return bytes(made)


def _item_parts(entry: Entry, start: int, end: int) -> Iterator[bytes]:
    """What each event says of its item."""
    if entry.errors or entry.run_ats or entry.steps or entry.fractions:
        for index in range(start, end):
            yield item_part(entry, index).SerializeToString()
        return
    # As nearly all entries are. By a message each it would take three times as long.
    for item, version, attempt in zip(
        entry.items[start:end], entry.versions[start:end], entry.attempts[start:end], strict=True
    ):
        name = item.encode()
        head = _NAME_HEADS[len(name)] if len(name) < len(_NAME_HEADS) else _head(_NAME_FIELD, len(name))
        yield b"%b%b%b%b%b%b" % (head, name, _VERSION_TAG, _number(version), _ATTEMPT_TAG, _number(attempt))


def _number(number: int) -> bytes:
    return _VARINTS[number] if number < len(_VARINTS) else _varint(number)


def _response(frames: Sequence[bytes]) -> bytes:
    body = b"".join(frames)
    return _head(_RESPONSE_FIELD, len(body)) + body


def _head(field: int, size: int) -> bytes:
    """What stands before the bytes of a field of a message: its tag and its length."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_EVENTS_FIELD: int = pb.StatusEvents.DESCRIPTOR.fields_by_name["events"].number
_RESPONSE_FIELD: int = pb.WatchStatusResponse.DESCRIPTOR.fields_by_name["events"].number
_NAME_FIELD, _VERSION_FIELD, _ATTEMPT_FIELD = (
    pb.StatusEvent.DESCRIPTOR.fields_by_name[name].number for name in ("item_id", "version", "attempt")
)
_VERSION_TAG, _ATTEMPT_TAG = _varint(_VERSION_FIELD << 3), _varint(_ATTEMPT_FIELD << 3)
_VARINTS = [_varint(number) for number in range(1024)]
_HEADS = [_head(_EVENTS_FIELD, size) for size in range(1024)]
"""The heads of events of the usual sizes: to make them each time would take a third of the time that an event takes."""
_NAME_HEADS = [_head(_NAME_FIELD, size) for size in range(256)]
