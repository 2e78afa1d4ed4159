"""How long parts wait: with jitter, so that those which began together, or lost their server, part."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom

random = SystemRandom().random
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0


def about(seconds: float, random: Callable[[], float]) -> float:
    """A quarter more or less; `random` gives a number from 0 to 1."""
    return seconds * (0.75 + random() / 2)


def backoff(failures: int, random: Callable[[], float] = random) -> float:
    """Seconds until a lost connection is made anew: doubled with each failure before, half of it or more."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 16)) * (0.5 + random() / 2)
