"""Replays the log: what it alone says of every item and every batch, and where it contradicts itself.

The lifecycle's rules are the machine's; here is only what must be so whatever they are: each event starts where the
one before has ended, versions are counted without a gap, and an attempt is a claim that was not given back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from shared.db.log import STATE, Entry
from shared.machine import CLAIM, COMPLETE, NONE, POSTPONE, PROCESSING, RELEASE, REQUEUE
from tests.support.history import PROGRESS

CURATE = "curate"
"""The kind of the events of a status that was set."""


@dataclass(slots=True)
class Account:
    """What the log says of one item."""

    status: str
    queue_status: str = NONE
    version: int = 1
    attempts: int = 0
    """Claims since it was queued that were not given back."""
    worker: int | None = None
    batch: int | None = None
    error: str | None = None
    saved: int | None = None
    """The version under which the values were claimed that were saved last."""
    claims: int = 0
    saves: list[int] = field(default_factory=list)
    """Of `saved`, all there ever were."""


class Ledger:
    """Takes entries of the log in their order."""

    def __init__(self, initial: str, *, attempts_max: int) -> None:
        """`initial` is the status of a new item."""
        self.accounts: defaultdict[str, Account] = defaultdict(lambda: Account(initial))
        self.batches: defaultdict[int, dict[str, str]] = defaultdict(dict)
        """What became of the items of each batch, as far as they were its own."""
        self.moved: set[int] = set()
        """Batches of which there is news; the reader clears it."""
        self.position = 0
        self.kinds: Counter[str] = Counter()
        """How many items each kind of event had."""
        self.contradictions: list[str] = []
        self._attempts_max = attempts_max

    def take(self, entries: Iterable[Entry]) -> None:
        """What comes next in the log."""
        for entry in entries:
            if entry.position < self.position:
                self.contradictions.append(f"{entry.position} came behind {self.position}")
            self.position = entry.position
            self.kinds[entry.kind] += len(entry.items)
            if entry.kind != STATE:
                for n, item in enumerate(entry.items):
                    wrong = self._post(entry, item, n)
                    self.contradictions += [f"{item} at {entry.position}: {what}" for what in wrong]
                self.moved |= {batch for batch in (entry.batch, entry.left_batch) if batch is not None}

    def progress(self, batch: int) -> Counter[str]:
        """How many items of a batch stand where; `none` are those that were taken from it before they ended."""
        return Counter(self.batches[batch].values())

    def _post(self, entry: Entry, item: str, n: int) -> Iterator[str]:
        account, queue = self.accounts[item], entry.to_queue or NONE
        if (entry.from_status, entry.from_queue or NONE) != (account.status, account.queue_status):
            yield f"{entry.kind} from {entry.from_status}/{entry.from_queue}, which was {account}"
        if entry.kind == PROGRESS:
            if entry.versions[n] != account.version or queue != PROCESSING:
                yield f"progress of version {entry.versions[n]} with {account}"
            return
        if entry.versions[n] != account.version + 1:
            yield f"{entry.kind} makes version {entry.versions[n]} of {account}"
        if entry.kind == COMPLETE:
            account.saved = account.version
            account.saves.append(account.version)
        self._count(account, entry.kind, queue)
        if entry.attempts[n] != account.attempts or account.attempts > self._attempts_max:
            yield f"{entry.kind} says {entry.attempts[n]} attempts of {account}"
        if account.worker is not None and entry.worker not in (account.worker, None):
            yield f"{entry.kind} by session {entry.worker} of {account}"
        account.status, account.queue_status, account.version = entry.to_status, queue, entry.versions[n]
        account.worker = entry.worker if queue == PROCESSING else None
        account.error = entry.errors[n] if entry.errors else None
        account.batch = None if queue == NONE else entry.batch
        if entry.left_batch is not None:
            self.batches[entry.left_batch][item] = NONE
        if entry.batch is not None:
            self.batches[entry.batch][item] = queue

    @staticmethod
    def _count(account: Account, kind: str, queue: str) -> None:
        if kind == CLAIM:
            account.attempts += 1
            account.claims += 1
        elif kind in (RELEASE, POSTPONE):
            account.attempts -= 1
        elif kind in (CURATE, REQUEUE) and queue != account.queue_status:
            account.attempts = 0
