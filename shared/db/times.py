"""Dates and times as PostgreSQL has them. What Python cannot say stays text: `infinity`, years before 1 or after 9999,
`24:00:00` for the end of a day.

Rows are their authors'. One that cannot be read would take with it the page, the snapshot or the claim that it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.types.datetime import (
    DateLoader,
    IntervalLoader,
    TimeLoader,
    TimestampLoader,
    TimestamptzLoader,
    TimetzLoader,
)


def _lenient(base: type[Loader], parse: Callable[[str], Any]) -> type[Loader]:
    class Lenient(base):  # type: ignore[valid-type, misc]
        def load(self, data: Buffer) -> Any:
            text = bytes(data).decode()
            try:
                return parse(text)  # a fifth of the time that the driver takes in Python
            except ValueError:
                pass
            try:
                return super().load(data)
            except psycopg.DataError:
                return text

    return Lenient


def _time(text: str) -> str | time:
    """The end of a day stays text, also where Python reads it as the beginning."""
    return text if text.startswith("24") else time.fromisoformat(text)


def _endless(text: str) -> str:
    """An interval without end, which the driver reads as one of no length."""
    if not text.endswith("infinity"):
        raise ValueError
    return text


class _StyledIntervalLoader(IntervalLoader):
    """Where no connection can be asked for its IntervalStyle: it is the one that each session of ours sets."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        if self.connection is None:
            self._load_method = self._load_postgres


for _name, _base, _parse in (
    ("date", DateLoader, date.fromisoformat),
    ("timestamp", TimestampLoader, datetime.fromisoformat),
    ("timestamptz", TimestamptzLoader, datetime.fromisoformat),
    ("time", TimeLoader, _time),
    ("timetz", TimetzLoader, _time),
    ("interval", _StyledIntervalLoader, _endless),
):
    psycopg.adapters.register_loader(_name, _lenient(_base, _parse))
