"""How the values of a column read and write as text: in a filter, as an item's key, inside a page token.

One place knows how text becomes a value of a column's type and back, so that an id, a filter and a page token cannot
disagree. A value that PostgreSQL would refuse (a whole number too big for its column, a NUL in a text) is refused
here, with words for the caller.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import REAL, BigInteger, Boolean, Date, DateTime, Float, Integer, Numeric, SmallInteger, String, Uuid
from sqlalchemy.types import TypeEngine

from shared.uuids import Uuids

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|(?i:nan|[+-]?inf(inity)?)")
WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
ENDLESS = frozenset({"infinity", "-infinity"})
FAR = re.compile(r"(\d{4,7})-(\d\d-\d\d)(?: (?:[01]\d|2[0-3])(?::[0-5]\d){2}(?:\.\d{1,6})?(?:\+00)?)?( BC)?")
"""A moment as PostgreSQL writes it."""
FIRST_DAY = (-4713, "11-24")
"""The first day that PostgreSQL has, of 4714 BC; the year before 1 is 1 BC."""
DATE_YEAR_MAX, TIMESTAMP_YEAR_MAX = 5_874_897, 294_276
DECIMAL_DIGITS_MAX = 1_000
"""Digits on either side of the point; `numeric` itself takes more, but no column that anybody filters by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How values of a column read and write as text."""

    parse: Callable[[str], Any]
    """Text to value. Raises `ValueError` with what is wrong."""
    parse_all: Callable[[Sequence[str]], Sequence[Any] | None] = lambda _: None
    """All values at once where that is faster, and no two are alike; None where texts have to be read one by one."""
    render: Callable[[Any], str] = str
    """Value to text; `restore`, or `parse` without one, gives the same value back."""
    restore: Callable[[str], Any] | None = None
    """Rendered text to value, for columns that have values which nobody can ask for."""
    ordered: bool = True
    """Whether `<` makes sense."""
    textual: bool = False
    """Whether `:` means "contains"."""
    comparable: bool = True
    """Whether it can be compared or sorted at all; else a filter may only ask whether it is there."""


def kind_of(type_: TypeEngine[Any]) -> Kind:
    """The kind of a column's type; `OPAQUE` for types that a filter cannot compare (JSON, arrays, ...)."""
    if isinstance(type_, SmallInteger):
        return _integer(bits=16)
    if isinstance(type_, BigInteger):
        return BIGINT
    for class_, kind in _KINDS:
        if isinstance(type_, class_):
            return kind
    if isinstance(type_, DateTime):
        return TIMESTAMP_KIND if type_.timezone else LOCAL_TIMESTAMP_KIND
    return OPAQUE


def words(name: str, *, prefix: str, known: dict[str, str | None]) -> Kind:
    """A kind of a few words, read in either case and with or without the enum's prefix, e.g. `QUEUE_STATUS_QUEUED`."""

    def parse(text: str) -> str | None:
        word = text.upper().removeprefix(prefix)
        if word not in known:
            raise ValueError(f"expected {name}, one of {', '.join(known)}")
        return known[word]

    return Kind(parse=parse, ordered=False)


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored")
    return text


def _uuid(text: str) -> uuid.UUID:
    # UUID() also reads braces, `urn:uuid:` and hyphens anywhere; one spelling is enough, and is what comes back.
    if not UUID.fullmatch(text):
        raise ValueError("expected a UUID such as 6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11")
    return uuid.UUID(int=int(text.replace("-", ""), 16))


def _uuids(texts: Sequence[str]) -> Uuids | None:
    values = Uuids.parse(texts)
    return values if values is not None and values.are_unique else None


def _whole(text: str, *, bits: int) -> int:
    bound = 1 << (bits - 1)
    if not WHOLE_NUMBER.fullmatch(text) or not text.isascii() or not -bound <= int(text) < bound:
        raise ValueError(f"expected a whole number from {-bound} to {bound - 1}")
    return int(text)


def _integer(*, bits: int) -> Kind:
    return Kind(parse=partial(_whole, bits=bits))


def _float(text: str) -> float:
    if not NUMBER.fullmatch(text) or not text.isascii():
        raise ValueError("expected a number such as 12, -0.5 or 2.9e9")
    value = float(text)
    if value in (float("inf"), float("-inf")) and "inf" not in text.lower():
        raise ValueError("the number is too big")
    return value


def _real(text: str) -> float:
    value = _float(text)
    try:
        (stored,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        raise ValueError("the number is too big") from None
    if value and not stored:
        raise ValueError("the number is too small")
    return value


def _decimal(text: str) -> Decimal:
    if not NUMBER.fullmatch(text) or not text.isascii():
        raise ValueError("expected a number such as 12, -0.5 or 2.9e9")
    value = Decimal(text)
    digits = value.as_tuple()
    if isinstance(digits.exponent, int):
        span = max(abs(value.adjusted()), len(digits.digits), abs(digits.exponent))
        if span > DECIMAL_DIGITS_MAX:
            raise ValueError("the number has too many digits")
    return value


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


def _moment(parse: Callable[[str], date | datetime], *, year_max: int, zone: str = "") -> Kind:
    """A kind of date or time. What PostgreSQL has and Python has not stays text; `infinity` can be asked for, too."""

    def read(text: str) -> str | date | datetime:
        return text if text in ENDLESS else parse(text)

    def restore(text: str) -> str | date | datetime:
        try:
            return read(text)
        except ValueError:
            return _far(text, year_max=year_max)

    return Kind(
        parse=read,
        render=lambda value: value if isinstance(value, str) else value.isoformat() + zone,
        restore=restore,
    )


def _far(text: str, *, year_max: int) -> str:
    """A moment that PostgreSQL has and Python has not, as PostgreSQL writes it.

    It is checked, for a token may be made up, and what is in it must not become an error of the database.
    """
    found = FAR.fullmatch(text)
    if found is None or not text.isascii():
        raise ValueError("expected a moment as PostgreSQL writes it")
    written, day = int(found[1]), found[2]
    year = 1 - written if found[3] else written
    date.fromisoformat(f"{2000 + year % 400}-{day}")  # every 400 years the calendar is the same
    if not written or (year, day) < FIRST_DAY or year > year_max:
        raise ValueError("PostgreSQL has no such day")
    return text


def _timestamp(text: str) -> datetime:
    if not TIMESTAMP.fullmatch(text) or not text.isascii():
        raise ValueError("expected a timestamp with its offset (RFC 3339) such as 2026-04-21T11:30:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such date or time of day") from None


def _local_timestamp(text: str) -> datetime:
    return _timestamp(text).replace(tzinfo=None)


def _date(text: str) -> date:
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a date such as 2026-04-21") from None


def _opaque(text: str) -> Any:
    raise ValueError("this column can only be asked for with :*")


TEXT = Kind(parse=_text, textual=True)
BIGINT = _integer(bits=64)
UUID_KIND = Kind(parse=_uuid, parse_all=_uuids)
TIMESTAMP_KIND = _moment(_timestamp, year_max=TIMESTAMP_YEAR_MAX)
LOCAL_TIMESTAMP_KIND = _moment(_local_timestamp, year_max=TIMESTAMP_YEAR_MAX, zone="Z")
OPAQUE = Kind(parse=_opaque, ordered=False, comparable=False)
# In this order: REAL is a Float to SQLAlchemy, Float a Numeric in some releases, Enum a String in all.
_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    (String, TEXT),
    (Uuid, UUID_KIND),
    (Integer, _integer(bits=32)),
    (REAL, Kind(parse=_real, render=repr)),
    (Float, Kind(parse=_float, render=repr)),
    (Numeric, Kind(parse=_decimal)),
    (Boolean, Kind(parse=_bool, render=lambda value: str(value).lower(), ordered=False)),
    (Date, _moment(_date, year_max=DATE_YEAR_MAX)),
)
