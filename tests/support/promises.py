"""The six promises of `WatchStatus`, a function each: a history in, its violations out.

Each looks at a fault from its own side alone, so that a history which breaks one promise is found by that one:
an event that came twice is not out of order, and one that is missing behind a resume is no gap inside a stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from tests.support.history import PROGRESS, Commit, Event, History, Owed, Selection, Stream, Watcher

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    promise: str
    watcher: str
    what: str


Promise = Callable[[History], Iterator[Violation]]


def check(history: History) -> list[Violation]:
    """All violations of all promises."""
    return [violation for promise in PROMISES for violation in promise(history)]


def ordered(history: History) -> Iterator[Violation]:
    """The log has what was acknowledged earlier before what began later; each stream has its commits as the log has."""
    done = sorted(history.writes, key=attrgetter("ended_s"))
    ended = [write.ended_s for write in done]
    highest, highest_through = NOWHERE, [NOWHERE]
    for write in done:
        highest = max([highest, *(history.positions[event] for event in history.events_of(write))])
        highest_through.append(highest)
    for write in history.writes:
        before = highest_through[bisect_right(ended, write.began_s)]
        if any(history.positions[event] < before for event in history.events_of(write)):
            yield Violation("ordered", "the log", f"{write} began when position {before} had been acknowledged")
    for watcher, stream in history.streams():
        last, seen = NOWHERE, set[int]()
        for event, _ in _delivered(stream):
            position = history.positions.get(event)
            if position is None or position in seen:
                continue
            seen.add(position)
            if position < last:
                yield Violation("ordered", watcher.name, f"{event} of {position} came behind {last}")
            last = max(last, position)


def unique(history: History) -> Iterator[Violation]:
    """Nothing comes twice in a stream, and nothing that its snapshot has."""
    for watcher, stream in history.streams():
        seen, snapshot = set[Event](), stream.snapshot or {}
        for message in stream.messages:
            for event in message.events:
                if event in seen:
                    yield Violation("unique", watcher.name, f"{event} came twice")
                elif event.version < snapshot.get(event.item, 0) + (event.kind != PROGRESS):
                    yield Violation("unique", watcher.name, f"the snapshot has {event} already")
                seen.add(event)


def reliable(history: History) -> Iterator[Violation]:
    """What was acknowledged is in the log, what was sent too, and no stream leaves out what it owes."""
    for write in history.writes:
        found = history.events_of(write)
        missing = write.items - {event.item for event in found} or write.events - found
        if missing:
            yield Violation(
                "reliable", "the log", f"acknowledged, and not in the log: {sorted(missing)[:3]} of {write}"
            )
    for watcher, stream in history.streams():
        yield from _stale(history, watcher, stream)
        got = {event for event, _ in _delivered(stream)}
        for event in sorted(got - history.positions.keys()):
            yield Violation("reliable", watcher.name, f"{event} was never committed")
        positions = [position for event in got if (position := history.positions.get(event)) is not None]
        # What is missing right behind a resume is `resumable`'s.
        first = min(positions, default=(stream.reached or 0) + 1) if stream.after is not None else 0
        for event, position in _missing(history, watcher.selection, stream, got, first):
            yield Violation("reliable", watcher.name, f"{event} of {position} is missing")
    for watcher in history.watchers:
        reached = watcher.streams[-1].reached if watcher.streams else None
        if watcher.to_the_end and history.log and (reached or NOWHERE) < history.log[-1].position:
            yield Violation("reliable", watcher.name, f"stopped at {reached}, before {history.log[-1].position}")


def atomic(history: History) -> Iterator[Violation]:
    """A write is one commit; a commit is not split by another's events, by a token, or by a snapshot."""
    for write in history.writes:
        if len({history.positions[event] for event in history.events_of(write)}) > 1:
            yield Violation("atomic", "the log", f"{write} is more than one commit")
    for watcher, stream in history.streams():
        # Events and tokens are numbered in the order they came: those of a commit are numbered one behind the other.
        extent: dict[int, list[int]] = {}
        for event, number in _delivered(stream):
            if event in history.positions:
                extent.setdefault(history.positions[event], []).append(number)
        for position, numbers in extent.items():
            if numbers[-1] - numbers[0] + 1 != len(numbers):
                yield Violation("atomic", watcher.name, f"commit {position} came in pieces")
        snapshot = stream.snapshot or {}
        for commit in history.log if snapshot else ():
            within = {snapshot[e.item] >= e.version for e in _moves(watcher.selection, commit) if e.item in snapshot}
            if len(within) > 1:
                yield Violation("atomic", watcher.name, f"the snapshot has a part of commit {commit.position}")


def resumable(history: History) -> Iterator[Violation]:
    """A stream that was opened with a token begins just behind it: nothing from before, and no gap."""
    for watcher, stream in history.streams():
        if stream.after is None:
            continue
        got = {event for event, _ in _delivered(stream)}
        positions = sorted({history.positions[event] for event in got if event in history.positions})
        if positions and positions[0] <= stream.after:
            yield Violation("resumable", watcher.name, f"{positions[0]} came again behind token {stream.after}")
        if stream.first_token is not None and stream.first_token < stream.after:
            yield Violation("resumable", watcher.name, f"went back from {stream.after} to {stream.first_token}")
        first = next((position for position in positions if position > stream.after), None)
        for event, position in _missing(history, watcher.selection, stream, got, 0):
            if first is None or position < first:
                yield Violation("resumable", watcher.name, f"{event} of {position} is missing behind {stream.after}")


def bookmarkable(history: History) -> Iterator[Violation]:
    """What comes behind a token is behind its position; tokens do not go back, and a snapshot has none inside."""
    for watcher, stream in history.streams():
        token, seen = stream.after if stream.after is not None else NOWHERE, set[Event]()
        for number, message in enumerate(stream.messages):
            for event in message.events:
                position = history.positions.get(event)
                # A repetition is `unique`'s, and what is from before a resume is `resumable`'s.
                if position is not None and event not in seen and (stream.after or NOWHERE) < position <= token:
                    yield Violation("bookmarkable", watcher.name, f"{event} of {position} came behind token {token}")
                seen.add(event)
            if message.position is None:
                continue
            if message.snapshot and not message.ends_snapshot:
                yield Violation("bookmarkable", watcher.name, f"a token inside a snapshot, message {number}")
            if message.position < token and stream.first_token != message.position:
                yield Violation("bookmarkable", watcher.name, f"went back from {token} to {message.position}")
            token = max(token, message.position)


PROMISES: Sequence[Promise] = (ordered, unique, reliable, atomic, resumable, bookmarkable)


def _delivered(stream: Stream) -> Iterator[tuple[Event, int]]:
    """The events that came, each when it came first, with a number that counts events and tokens."""
    seen, number = set[Event](), 0
    for message in stream.messages:
        for event in message.events:
            if event not in seen:
                seen.add(event)
                yield event, number
                number += 1
        number += message.position is not None


def _moves(selection: Selection, commit: Commit) -> Iterator[Event]:
    return (event for event in selection.of(commit) if event.kind != PROGRESS)


def _missing(
    history: History, selection: Selection, stream: Stream, got: set[Event], first: int
) -> Iterator[tuple[Event, int]]:
    """What a stream owed from a position on, up to its last token, and did not send."""
    if stream.reached is None:
        return
    snapshot = stream.snapshot
    if stream.with_snapshot and snapshot is None:
        return
    start = max(first, stream.after + 1 if stream.after is not None else 0)
    if stream.after is None and not stream.with_snapshot:
        # It began at "now", which its first token tells, or the first event if that came before.
        start = min([stream.first_token or 0, *(history.positions.get(event, start) - 1 for event in got)]) + 1
    commits = history.log[bisect_right(history.log, start - 1, key=attrgetter("position")) :]
    for commit in commits:
        if commit.position > stream.reached:
            return
        for event in selection.of(commit):
            owed = Owed.YES if snapshot is None else _owed(stream, snapshot, event, commit.position)
            if owed is Owed.YES and event not in got:
                yield event, commit.position


def _owed(stream: Stream, snapshot: Mapping[str, int], event: Event, position: int) -> Owed:
    """What a snapshot has is not owed; of some reports and items it does not tell, until the first token."""
    version = snapshot.get(event.item)
    unsure = version is None or (event.kind == PROGRESS and event.version == version)
    if unsure:
        return Owed.YES if stream.first_token is not None and position > stream.first_token else Owed.PERHAPS
    assert version is not None
    return Owed.YES if event.version > version else Owed.NO


def _stale(history: History, watcher: Watcher, stream: Stream) -> Iterator[Violation]:
    """A snapshot has all items that were asked for, no older than what was acknowledged before it was."""
    snapshot = stream.snapshot
    if snapshot is None:
        return
    selection = watcher.selection
    if selection.batch is None and selection.statuses is None:
        for item in sorted((history.items if selection.items is None else selection.items) - snapshot.keys()):
            yield Violation("reliable", watcher.name, f"the snapshot is without {item}")
    for write in history.writes:
        if write.ended_s >= stream.opened_s:
            continue
        for event in history.events_of(write):
            if event.kind != PROGRESS and snapshot.get(event.item, event.version) < event.version:
                yield Violation("reliable", watcher.name, f"the snapshot is from before {event}, acknowledged earlier")
