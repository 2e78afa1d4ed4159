"""The checker itself: a good history keeps every promise, and each way to break one is found by that one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.support.history import EVERYTHING as ALL
from tests.support.history import Commit, Entry, Event, History, Message, Selection, Stream, Watcher, Write
from tests.support.promises import PROMISES, check

A, B, C = (Event(item, 2, "curate") for item in "abc")
D, E = (Event(item, 3, "claim") for item in "ab")
P = Event("a", 3, "progress", "asking")
Q = Event("a", 3, "progress", "saving")
F = Event("a", 4, "complete")
LOG = (
    Commit(10, (Entry((A, B), batches=frozenset({7}), cause=7),)),
    Commit(11, (Entry((C,), batches=frozenset({8}), statuses=frozenset({"New", "Selected"}), cause=8),)),
    Commit(12, (Entry((D, E), batches=frozenset({7})),)),
    Commit(13, (Entry((P,), batches=frozenset({7})),)),
    Commit(15, (Entry((Q,), batches=frozenset({7})),)),
    Commit(20, (Entry((F,), batches=frozenset({7})),)),
)
WRITES = (
    Write(0.0, 1.0, cause=7, items=frozenset("ab")),
    Write(0.5, 3.0, cause=8, items=frozenset("c")),
    Write(1.5, 2.0, events=frozenset({D, E})),
)


def told(*events: Event, token: int | None = None) -> Message:
    return Message(token, events)


def snapshot(**versions: int) -> tuple[Message, Message]:
    return Message(None, snapshot=tuple(versions.items())), Message(None, ends_snapshot=True)


def stream(*messages: Message, **options: object) -> Stream:
    made = Stream(0.0, messages=list(messages))
    for name, value in options.items():
        setattr(made, name, value)
    return made


def watcher(*streams: Stream, selection: Selection = ALL) -> Watcher:
    return Watcher("w", selection, list(streams))


def history(*watchers: Watcher, writes: Sequence[Write] = WRITES, log: Sequence[Commit] = LOG) -> History:
    return History(log, writes, watchers, frozenset("abc"))


def whole(*messages: Message, after: int = 9) -> History:
    """One watcher with one stream, opened with a token."""
    return history(watcher(stream(*messages, after=after)))


EVERYTHING = (told(A, B, token=10), told(C, D, E, token=12), told(P, token=13), told(Q, F), told(token=20))
GOOD = {
    "all behind a token": whole(*EVERYTHING),
    "two streams": history(
        watcher(
            stream(told(A, B, token=10), told(C), after=9), stream(told(C, D, E), told(P, Q, F, token=20), after=10)
        )
    ),
    "a stream that was cut half-way": history(
        watcher(stream(told(A), after=9), stream(*EVERYTHING, after=9)),
    ),
    "a snapshot amid": history(
        watcher(
            # It does not tell which reports it contains.
            stream(*snapshot(a=3, b=3, c=1), told(C), told(Q, F, token=20), with_snapshot=True)
        )
    ),
    "a snapshot that was cut, and another": history(
        watcher(
            stream(snapshot(a=1, b=1)[0], with_snapshot=True),
            stream(*snapshot(a=1, b=1, c=1), *EVERYTHING, with_snapshot=True),
        )
    ),
    "from now on": history(watcher(stream(told(token=12), told(P, Q, F, token=20)))),
    "some items": history(watcher(stream(told(C), told(token=20), after=9), selection=Selection(frozenset("c")))),
    "a batch": history(
        watcher(stream(told(A, B, D, E, P, Q, F, token=20), after=9), selection=Selection(batch=7)),
    ),
    "a status": history(
        watcher(stream(told(C, token=20), after=9), selection=Selection(statuses=frozenset({"Selected"}))),
    ),
    "without reports": history(
        watcher(stream(told(A, B, C, D, E, F, token=20), after=9), selection=Selection(skip_progress=True)),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_keeps_every_promise(name: str) -> None:
    assert check(GOOD[name]) == []


STALE = history(watcher(stream(*snapshot(a=1, b=1, c=1), *EVERYTHING, with_snapshot=True, opened_s=1.2)))
BROKEN: dict[str, list[tuple[str, History]]] = {
    "ordered": [
        ("commits swapped", whole(told(A, B, D, E, C, token=12), *EVERYTHING[2:])),
        ("versions swapped", whole(*EVERYTHING[:2], told(F, P, Q, token=20))),
        (
            "the log against the clock",
            history(watcher(stream(*EVERYTHING, after=9)), writes=[*WRITES, Write(4.0, 5.0, events=frozenset({C}))]),
        ),
    ],
    "unique": [
        ("twice in a message", whole(told(A, B, B, token=10), *EVERYTHING[1:])),
        ("twice in a stream", whole(*EVERYTHING[:2], told(A, P, token=13), *EVERYTHING[3:])),
        (
            "also in the snapshot",
            history(watcher(stream(*snapshot(a=2, b=2, c=1), told(A, B), *EVERYTHING[1:], with_snapshot=True))),
        ),
        (
            "a report of before the snapshot",
            history(watcher(stream(*snapshot(a=4, b=3, c=2), told(Q, token=20), with_snapshot=True))),
        ),
    ],
    "reliable": [
        ("a commit is missing", whole(told(A, B, token=10), told(D, E, token=12), *EVERYTHING[2:])),
        ("half of a commit is missing", whole(told(A, B, token=10), told(C, E, token=12), *EVERYTHING[2:])),
        ("a report is missing", whole(*EVERYTHING[:3], told(F), told(token=20))),
        ("the end is missing", whole(*EVERYTHING[:4])),
        ("missing behind a snapshot", history(
            watcher(stream(*snapshot(a=3, b=3, c=1), told(Q, F, token=20), with_snapshot=True)))),
        ("an item is missing in the snapshot", history(
            watcher(stream(*snapshot(a=3, b=3), told(C, Q, F, token=20), with_snapshot=True)))),
        ("an old snapshot", STALE),
        ("never committed", whole(*EVERYTHING[:4], told(Event("c", 9, "curate"), token=20))),
        ("acknowledged and lost", history(
            watcher(stream(*EVERYTHING, after=9)), writes=[*WRITES, Write(4, 5, cause=9, items=frozenset("c"))])),
        ("acknowledged, and half of it lost", history(
            watcher(stream(*EVERYTHING, after=9)), writes=[replace(WRITES[0], items=frozenset("abc"))])),
    ],
    "atomic": [
        ("another commit inside", whole(told(A, C, B, D, E, token=12), *EVERYTHING[2:])),
        ("a token inside", whole(told(A, token=9), told(B, token=10), *EVERYTHING[1:])),
        ("a snapshot of a half", history(
            watcher(stream(*snapshot(a=2, b=1, c=1), told(B), *EVERYTHING[1:], with_snapshot=True)))),
        ("a write in two commits", history(
            watcher(stream(*EVERYTHING, after=9)), writes=[Write(1.5, 2.0, events=frozenset({D, F}))])),
    ],
    "resumable": [
        ("too early", whole(told(A, B), *EVERYTHING[1:], after=10)),
        ("too late", whole(*EVERYTHING[1:], after=9)),
        ("nothing at all", whole(told(token=20), after=15)),
        ("the token went back", whole(told(token=8), *EVERYTHING)),
    ],
    "bookmarkable": [
        ("behind a heartbeat", whole(told(A, B, token=10), told(token=11), told(C, D, E, token=12), *EVERYTHING[2:])),
        ("backwards", whole(told(A, B, token=10), told(C, D, E, token=12), told(token=11), *EVERYTHING[2:])),
        ("inside a snapshot", history(watcher(stream(
            Message(9, snapshot=(("a", 1), ("b", 1))), Message(None, snapshot=(("c", 1),)), told(), *[
                Message(None, ends_snapshot=True)], *EVERYTHING, with_snapshot=True)))),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("promise", "case"), [(promise, n) for promise, cases in BROKEN.items() for n in range(len(cases))]
)
def test_a_broken_history_fails_exactly_its_promise(promise: str, case: int) -> None:
    name, broken = BROKEN[promise][case]
    assert {violation.promise for violation in check(broken)} == {promise}, name


def test_every_promise_has_histories_that_break_it() -> None:
    names: list[Callable[..., object]] = list(PROMISES)
    assert [name.__name__ for name in names] == list(BROKEN)
