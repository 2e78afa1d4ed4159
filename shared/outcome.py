"""How an attempt ended, decided from what the enricher raised; pure, so that a table can test it.

What may go better next time is retried: no answer, a broken connection, an API that is down or asks us to slow down.
What would only fail again is not: a request the API refuses, an answer that cannot be read. The messages are for
curators: short, and free of anything that could be a secret. Only the worker and tests import this, not the service.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Literal, TypeAlias

import httpx

from shared.enrichment import Failed, Retry, Skip, TurnedAway
from shared.failure import Failure
from shared.retry_after import parse_retry_after
from shared.secrets import Secrets
from shared.workflow import Limits, Values

Trigger: TypeAlias = Literal["complete", "find_nothing", "retry", "fail", "release", "postpone"]
"""What a worker may ask of the state machine when an attempt has ended."""

NO_SECRETS = Secrets()
ERROR_SIZE_MAX = 500
"""Characters of an error that are kept."""
READ_SIZE_MAX = 8 * ERROR_SIZE_MAX
"""Characters of an error that are read: to clean a whole answer that one quotes would block the worker for minutes."""
RETRY_AFTER_S_MAX = 3600.0
"""An API that asks for a longer wait is asked again after an hour: it may have meant it, or sent nonsense."""

_RETRIED_STATUSES = frozenset({408, 425, 429})
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s/?#'\"]*@)?(?P<rest>[^\s?#'\"<>]*)[^\s'\"<>]*",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"(?P<name>(?<![\w-])[\w-]*(?:key|token|secret|passw(?:or)?d|signature|authorization)\b['\"]?\s*[=:]\s*)"
    r"(?:(?:bearer|basic|token)\s+)?[^\s,;&]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class AttemptOutcome:
    """How one attempt ended. Not frozen, for speed: see `Result`."""

    trigger: Trigger
    """What becomes of the item."""
    values: Values | None = None
    """What to upsert into the target; only with `complete`."""
    error: str | None = None
    """What went wrong, for a curator to read."""
    failure: Failure | None = None
    """The same, as far as it is the same for many items; with every error."""
    is_outage: bool = False
    """Whether the external API itself seems to be down: no answer, or one of its own errors."""
    hold_s: float | None = None
    """The API asked everybody to wait for so long."""
    delay_s: float = 0.0
    """With `retry` and `postpone`: not to be claimed again for so long."""


def classify(
    error: Exception,
    attempt: int,
    limits: Limits,
    *,
    random: Callable[[], float],
    now: datetime,
    api: str,
    secrets: Secrets = NO_SECRETS,
) -> AttemptOutcome:
    """Decides whether an item is retried, failed or done, and says why.

    Args:
        error: what the enricher raised.
        attempt: 1 at the first.
        limits: how often an item is tried, and how long it waits in between.
        random: gives a number from 0 to 1, for the jitter.
        now: for a `Retry-After` that is a date.
        api: what a message calls the external API, e.g. `places API`.
        secrets: what a message must not tell.
    """
    if isinstance(error, ExceptionGroup):
        return _worst(
            [classify(e, attempt, limits, random=random, now=now, api=api, secrets=secrets) for e in error.exceptions]
        )
    if isinstance(error, Skip):
        return AttemptOutcome(trigger="find_nothing")
    if isinstance(error, TurnedAway):
        after_s = _bounded_s(error.after_s)
        delay_s = limits.backoff_s if after_s is None else after_s
        return AttemptOutcome(trigger="postpone", error=clean(error.message), delay_s=delay_s)
    message = clean(_message(error, api), secrets)
    failure = Failure.of(api, _kind(error), message)
    if not _may_pass(error):
        return AttemptOutcome(trigger="fail", error=message, failure=failure)
    after_s = asked_s(error, now)
    told = AttemptOutcome(
        trigger="retry",
        error=message,
        failure=failure,
        is_outage=_is_outage(error),
        hold_s=None if isinstance(error, Retry) else after_s,
        delay_s=retry_delay_s(attempt, limits, after_s, random),
    )
    if attempt < limits.attempts_max:
        return told
    gave_up = _with_suffix(message, f" (gave up after {attempt} attempts)")
    return replace(told, trigger="fail", error=gave_up, delay_s=0.0)


def retry_delay_s(attempt: int, limits: Limits, asked_s: float | None, random: Callable[[], float]) -> float:
    """Exponential backoff with full jitter; when the API named a time, that time and a little jitter behind it.

    The jitter stays even then: a thousand items that were told "in 5 s" would otherwise come back in one instant.
    """
    if asked_s is not None:
        return asked_s + random() * limits.backoff_s
    doublings = min(attempt - 1, 60)
    return random() * min(limits.backoff_max_s, limits.backoff_s * 2.0**doublings)


def clean(message: str, secrets: Secrets = NO_SECRETS) -> str:
    """Makes text fit for a curator: one line, at most 500 characters, no query string, user name, key or NUL."""
    message = secrets.hide(message)[:READ_SIZE_MAX]  # secrets first: a cut through one would leave its start
    message = _URL.sub(r"\g<scheme>\g<rest>", message)
    message = _SECRET.sub(r"\g<name>***", message)
    message = _BEARER.sub(r"\g<name> ***", message)
    printable = "".join(c if c.isprintable() else " " for c in message)
    message = " ".join(printable.split())
    return message if len(message) <= ERROR_SIZE_MAX else message[: ERROR_SIZE_MAX - 1] + "…"


def _worst(outcomes: list[AttemptOutcome]) -> AttemptOutcome:
    """Of several errors at once, one that cannot pass decides, else the longest wait. The longest hold is kept."""
    order = {"find_nothing": 0, "postpone": 1, "retry": 2, "fail": 3}
    worst = max(outcomes, key=lambda outcome: (order[outcome.trigger], outcome.delay_s))
    return replace(worst, hold_s=max((o.hold_s for o in outcomes if o.hold_s is not None), default=None))


def _may_pass(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in _RETRIED_STATUSES
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.TooManyRedirects)):
        return False
    # OSError holds connection errors, time-outs, failed name look-ups and "too many open files".
    return isinstance(error, (Retry, httpx.RequestError, OSError))


def _is_outage(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return not isinstance(error, Retry)


def _kind(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return type(error).__name__


def asked_s(error: Exception, now: datetime) -> float | None:
    """How long the external API asked to be left alone, as this error says: `RETRY_AFTER_S_MAX` at most."""
    match error:
        case Retry(after_s=after_s):
            return _bounded_s(after_s)
        case httpx.HTTPStatusError(response=httpx.Response(headers=headers)):
            return _bounded_s(parse_retry_after(headers.get("retry-after", ""), now))
    return None


def _bounded_s(seconds: object) -> float | None:
    """Seconds to wait as somebody says, within bounds; None where that is no number."""
    if not isinstance(seconds, int | float):
        return None
    bounded_s = float(min(max(seconds, 0), RETRY_AFTER_S_MAX))
    return None if math.isnan(bounded_s) else bounded_s


def _message(error: Exception, api: str) -> str:
    match error:
        case Retry() | Failed():
            return str(error.message)
        case httpx.HTTPStatusError():
            return f"{api} answered {_status_text(error.response.status_code)}"
        case TimeoutError() | httpx.TimeoutException():
            return f"{api} did not answer in time"
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return f"the address of {api} is wrong"
        case httpx.TooManyRedirects():
            return f"{api} redirects in a circle"
        case httpx.DecodingError() | httpx.RemoteProtocolError():
            return f"{api} sent a broken answer"
        case httpx.ConnectError() | ConnectionRefusedError():
            return f"{api} cannot be reached"
        case httpx.RequestError() | ConnectionError():
            return f"the connection to {api} broke"
        case OSError():
            return f"{api} cannot be reached ({type(error).__name__})"
        case KeyError():
            return f"the answer of {api} could not be read: {error} is missing"
    return f"the answer of {api} could not be read: {type(error).__name__}: {error}"


def _status_text(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _with_suffix(message: str, suffix: str) -> str:
    return message[: ERROR_SIZE_MAX - len(suffix)] + suffix
