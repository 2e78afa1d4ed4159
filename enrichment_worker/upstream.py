"""What this worker knows of one external API, and what its attempts have shown that others do not know yet.

Shared by the lanes that call the API. It judges at once, by what this worker sees: nothing more begins in the moment
in which an answer asks everybody to wait, or one outage too many comes in. `reporter` tells the other workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from enrichment_worker.bell import Bell
from shared.outcome import AttemptOutcome

if TYPE_CHECKING:
    from enrichment_worker.lane import Hold, Lane
    from shared.db.api_states import ApiState
    from shared.workflow import Item

TOLD_FROM = 3
"""Outages are told to others from so many in a row on: single ones, as any API has them, cost no statement."""
PROBE_S_MAX = 60.0
"""An API that is down is tried at least so often."""


@dataclass(slots=True)
class Findings:
    """What is to be told to the other workers."""

    failures: int = 0
    """Outages in a row since they were told last."""
    error: str = ""
    answered: bool = False
    held_until_s: float = -inf
    """The API asked everybody to wait until then, by the clock of the event loop."""
    probe: str = ""
    """How a probe ended: `down`, or `abandoned`."""

    @property
    def is_worth_telling(self) -> bool:
        """Whether there is anything."""
        return bool(self.failures or self.answered or self.held_until_s > -inf or self.probe)


class Upstream:
    """One external API as this worker knows it."""

    def __init__(self, api: str, *, news: Bell | None = None) -> None:
        """`news` is rung when there is something to tell."""
        self.api = api
        self.lanes: list[Lane] = []
        """The lanes of the workflows that call it."""
        self.is_broken = False
        self.probe: Hold | None = None
        """The one item that this worker tries while the API is down."""
        self.probe_at_s = inf
        """When it may be tried, by the clock of the event loop."""
        self.turned_away = 0
        """Attempts that were given back because it is down or wants to be left alone."""
        self._news = news or Bell()
        self._held_until_s = -inf
        self._failures_known = 0
        self._was_broken = False
        self._streak, self._untold = 0, 0
        self._findings, self._telling = Findings(), Findings()

    @property
    def failures_max(self) -> int | None:
        """As many outages in a row break it."""
        return min((n for lane in self.lanes if (n := lane.workflow.limits.breaker_failures) is not None), default=None)

    @property
    def used(self) -> int:
        """Slots that this worker uses: one for each item that it holds, and for each attempt that does not end."""
        return sum(len(lane.held) + lane.stuck for lane in self.lanes)

    @property
    def held_s(self) -> float:
        """For how many more seconds nobody is to call it."""
        return max(0.0, self._held_until_s - _now_s())

    def bars(self, hold: Hold) -> bool:
        """Whether an item is to be given back instead of begun."""
        return (self.is_broken and hold != self.probe) or self.held_s > 0

    def is_barred(self) -> bool:
        """Whether nothing is to be claimed or begun, a probe apart."""
        return self.is_broken or self.held_s > 0

    def begin_probe(self, item: Item) -> None:
        """This worker tries it with this item."""
        self.probe, self.probe_at_s = (item.key, item.version), inf

    def learn(self, state: ApiState | None) -> None:
        """What the database says of it; None when it says nothing."""
        now_s, was_barred = _now_s(), self.is_barred()
        is_broken = state is not None and state.is_broken
        self._failures_known = 0 if state is None else state.failures
        if self._was_broken and not is_broken:
            self._streak, self._untold = 0, 0
        elif not is_broken:
            # What all have met in a row decides: where another was answered since, no probe would ever end this.
            self._streak = min(self._streak, self._failures_known + self._telling.failures + self._untold)
        self._was_broken = is_broken
        self.is_broken = is_broken or self._is_down()
        known_s = -inf if state is None or state.held_s is None else now_s + state.held_s
        self._held_until_s = max(known_s, self._findings.held_until_s, self._telling.held_until_s)
        self.probe_at_s = inf if state is None or state.probe_s is None else now_s + state.probe_s
        if was_barred and not self.is_barred():
            for lane in self.lanes:
                lane.work.ring()

    def saw(self, hold: Hold, outcome: AttemptOutcome, *, backoff_s: float) -> AttemptOutcome:
        """Takes note of how an attempt ended. Returns how it is to end: while the API is down, it did not count."""
        is_probe = hold == self.probe
        if is_probe:
            self.probe = None
        if outcome.hold_s:
            self._hold(outcome.hold_s)
        if outcome.trigger in ("release", "postpone"):
            if is_probe:
                self._tell(probe="abandoned")
        elif not outcome.is_outage:
            self._answered()
        elif is_probe or self.is_broken:
            if is_probe:
                self._tell(probe="down")
            return self._postponed(outcome, backoff_s)
        elif self.failures_max is not None:
            self._failed(outcome, self.failures_max)
        return outcome

    def take_findings(self) -> Findings:
        """What is to be told now. Then it was `told`, or is given back."""
        self._telling, self._findings = self._findings, Findings()
        if self.failures_max is not None and self._streak >= min(TOLD_FROM, self.failures_max):
            self._telling.failures, self._untold = self._untold, 0
        return self._telling

    def told(self, state: ApiState | None) -> None:
        """The findings are committed, and this is what the database says now."""
        self._telling = Findings()
        self.learn(state)

    def give_back(self) -> None:
        """The findings could not be told."""
        mine, findings, self._telling = self._findings, self._telling, Findings()
        self._untold += findings.failures if self._streak else 0
        mine.answered = mine.answered or findings.answered
        mine.held_until_s = max(mine.held_until_s, findings.held_until_s)
        mine.probe = mine.probe or findings.probe
        mine.error = mine.error or findings.error

    def _answered(self) -> None:
        self._streak, self._untold = 0, 0
        if self.is_broken or self._failures_known or self._telling.failures:
            self._failures_known = 0
            self._tell(answered=True)

    def _failed(self, outcome: AttemptOutcome, failures_max: int) -> None:
        self._streak, self._untold = self._streak + 1, self._untold + 1
        self.is_broken = self._is_down()
        self._findings.error = _message(outcome)
        if self._streak >= min(TOLD_FROM, failures_max):
            self._news.ring()

    def _is_down(self) -> bool:
        return self.failures_max is not None and self._streak >= self.failures_max

    def _hold(self, seconds: float) -> None:
        until_s = _now_s() + seconds
        if until_s > self._held_until_s:
            self._held_until_s = until_s
            self._findings.held_until_s = max(self._findings.held_until_s, until_s)
            self._news.ring()

    def _postponed(self, outcome: AttemptOutcome, backoff_s: float) -> AttemptOutcome:
        """Given back, to wait a little: the next probe tries another item, should this one alone be the trouble."""
        self.turned_away += 1
        return replace(outcome, trigger="postpone", error=_message(outcome), delay_s=outcome.delay_s or backoff_s)

    def _tell(self, *, probe: str = "", answered: bool = False) -> None:
        self._findings.probe = probe or self._findings.probe
        self._findings.answered = answered or self._findings.answered
        self._news.ring()


def _message(outcome: AttemptOutcome) -> str:
    """What went wrong, without what became of the item."""
    if outcome.trigger == "fail" and outcome.failure is not None:
        return outcome.failure.message
    return outcome.error or ""


_now_s = monotonic
"""The clock of the event loop, for threads too: the numbers are read in one."""
