"""What happened in a run, as the checker of the promises takes it: the log, the acknowledged writes, and the streams.

Positions are those inside the tokens, which a client never sees. A history is only data; `promises` judges it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple

PROGRESS = "progress"


class Event(NamedTuple):
    """What makes an event the one it is."""

    item: str
    version: int
    kind: str
    step: str = ""
    """Of a progress report, which has its item's version; whoever writes them gives each a step of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Events of one commit that made the same transition."""

    events: Sequence[Event]
    batches: frozenset[int] = frozenset()
    """Those that it concerns."""
    statuses: frozenset[str] = frozenset()
    """The one before and the one after."""
    cause: int | None = None
    """The batch that made it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction, as the log has it; it may be of several batches."""

    position: int
    entries: Sequence[Entry]

    @property
    def events(self) -> Iterator[Event]:
        """All."""
        for entry in self.entries:
            yield from entry.events


@dataclass(frozen=True, slots=True)
class Write:
    """A write that was acknowledged, in one transaction: by a batch, whose versions are not told, or by its events."""

    began_s: float
    ended_s: float
    events: frozenset[Event] = frozenset()
    cause: int | None = None
    items: frozenset[str] = frozenset()
    """What the batch changed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream: first its snapshot or events, then its token."""

    position: int | None
    """Of the token; None without one."""
    events: Sequence[Event] = ()
    snapshot: Sequence[tuple[str, int]] = ()
    """Items and their versions."""
    ends_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a watcher asked for; all of the resource by default."""

    items: frozenset[str] | None = None
    batch: int | None = None
    statuses: frozenset[str] | None = None
    """Items that have one of these before or after."""
    skip_progress: bool = False

    def of(self, commit: Commit) -> Iterator[Event]:
        """Those events of a commit that concern it."""
        for entry in commit.entries:
            if self.batch is not None and self.batch not in entry.batches:
                continue
            if self.statuses is not None and not self.statuses & entry.statuses:
                continue
            for event in entry.events:
                if (self.items is None or event.item in self.items) and not (
                    self.skip_progress and event.kind == PROGRESS
                ):
                    yield event


EVERYTHING = Selection()


class Owed(Enum):
    """Whether a stream owes its client an event."""

    YES, NO, PERHAPS = range(3)


@dataclass(slots=True)
class Stream:
    """One call, from its opening to its end, however it ended."""

    opened_s: float
    after: int | None = None
    """The position of the token that it was opened with."""
    with_snapshot: bool = False
    messages: list[Message] = field(default_factory=list)

    @property
    def reached(self) -> int | None:
        """The position of its last token."""
        return next((m.position for m in reversed(self.messages) if m.position is not None), None)

    @property
    def snapshot(self) -> Mapping[str, int] | None:
        """Items and versions; None without a whole one."""
        if not any(message.ends_snapshot for message in self.messages):
            return None
        return {item: version for message in self.messages for item, version in message.snapshot}

    @property
    def first_token(self) -> int | None:
        """The position of its first token."""
        return next((m.position for m in self.messages if m.position is not None), None)


@dataclass(slots=True)
class Watcher:
    """One watcher and its streams, each opened when the one before had ended."""

    name: str
    selection: Selection = EVERYTHING
    streams: list[Stream] = field(default_factory=list)
    to_the_end: bool = True
    """Whether it was waited for until it had everything; else it left early."""


@dataclass(frozen=True)
class History:
    """Of a run."""

    log: Sequence[Commit]
    """In order of position."""
    writes: Sequence[Write]
    watchers: Sequence[Watcher]
    items: frozenset[str]
    """All that there are."""

    @cached_property
    def positions(self) -> Mapping[Event, int]:
        """Where each event is in the log."""
        return {event: commit.position for commit in self.log for event in commit.events}

    @cached_property
    def by_cause(self) -> Mapping[int, frozenset[Event]]:
        """What each batch made."""
        made = defaultdict[int, set[Event]](set)
        for commit in self.log:
            for entry in commit.entries:
                if entry.cause is not None:
                    made[entry.cause].update(entry.events)
        return {cause: frozenset(events) for cause, events in made.items()}

    def events_of(self, write: Write) -> frozenset[Event]:
        """The events that the log has of an acknowledged write."""
        if write.cause is None:
            return write.events & self.positions.keys()
        return self.by_cause.get(write.cause, frozenset())

    def streams(self) -> Iterator[tuple[Watcher, Stream]]:
        """All, with their watchers."""
        for watcher in self.watchers:
            for stream in watcher.streams:
                yield watcher, stream
