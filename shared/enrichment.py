"""What an enricher may raise to say how its attempt ended; its own small tree, apart from the errors of callers.

An enricher may let the errors of `httpx` pass as well: the worker knows which of them are worth another try. These
three are for what only the enricher can know. Their messages are read by curators, so they say what to do about it
and never hold a key, a header or a stack trace.
"""

from __future__ import annotations


class EnrichmentError(Exception):
    """The root of the three; raise one of them."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        """What a curator reads."""


class Retry(EnrichmentError):
    """This attempt failed, another one may not."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s
        """Seconds to wait at least, when the external API asked for it; the workflow's backoff when None."""


class Failed(EnrichmentError):
    """No further attempt would help."""


class TurnedAway(Exception):
    """Raised by `context.limit` where a use would have to wait too long. Let it pass: the item is tried again later,
    without the loss of an attempt.
    """

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.message = message
        """What a curator reads."""
        self.after_s = after_s
        """Seconds until there may be room."""


class Skip(EnrichmentError):
    """There is nothing to find for this item: completed, without a target row; the same as returning None."""
