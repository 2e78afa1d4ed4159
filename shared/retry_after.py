"""Reads the header `Retry-After`, for whoever meets one."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(header: str, now: datetime) -> float | None:
    """Seconds from `now`, below 0 for a date that has passed; None where it says neither a number nor a date."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:10])
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever a header may do to the parser
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return (aware - now).total_seconds()
