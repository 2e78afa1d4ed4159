"""A reading of the log as messages between processes, and back.

What a message says is true whoever sends it and whenever it arrives: between two positions the log has these entries
and no others. So it does not matter who relays, or whether a message comes twice; one that is missing shows as a gap.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeAlias

from shared.db.log import Entry, Mark
from shared.db.ring import Reading

Message: TypeAlias = tuple[dict[str, str], bytes]
"""Headers and body."""
AFTER, THROUGH, PART, FORM, LAG, RELAY, LAST = (
    f"Curation-{name}" for name in ("After", "Through", "Part", "Form", "Lag", "Relay", "Last")
)
_FIELDS = tuple(field.name for field in fields(Entry))
_FORM = f"{zlib.crc32(repr([(field.name, field.type) for field in fields(Entry)]).encode()):08x}"
"""Changes with the fields of an entry, so that versions that differ in them do not misread each other."""
_LEVEL = 1
"""The level of compression: UUIDs as text come to 60 % whatever it is, so the cheapest."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """A reading as it arrives."""

    after: int
    """The position that it follows."""
    through: int
    """The position up to which it goes."""
    entries: Sequence[Entry] | None
    """None when it cannot be read: it was written by another version."""
    lag_s: float
    """For how long the log has been held back where it is read."""
    relay: str
    """Who read it; another one for each of its connections."""


def pack(after: int, reading: Reading, *, lag_s: float, relay: str, last: Mark | None, size_max: int) -> list[Message]:
    """The messages of what follows a position: several when the bodies would be longer than so many bytes.

    `last` marks the last entry up to the end of it, where that is known.
    """
    body = b""
    if reading.entries:
        rows = [[getattr(entry, name) for name in _FIELDS] for entry in reading.entries]
        text = json.dumps(rows, default=datetime.isoformat, ensure_ascii=False, separators=(",", ":"))
        body = zlib.compress(text.encode(), _LEVEL)
    bodies = [body[start : start + size_max] for start in range(0, len(body), size_max)] or [b""]
    shared = {AFTER: str(after), THROUGH: str(reading.position), FORM: _FORM, LAG: f"{lag_s:.3f}", RELAY: relay}
    if last is not None:
        shared[LAST] = f"{last[0]}/{last[1]}"
    return [({**shared, PART: f"{part}/{len(bodies)}"}, body) for part, body in enumerate(bodies, 1)]


def position_of(headers: Mapping[str, str]) -> int:
    """Up to where the log is relayed once this is the last message: half a reading counts for nothing."""
    after, through, part, parts = _place(headers)
    return through if part == parts else after


def last_of(headers: Mapping[str, str]) -> Mark | None:
    """The mark of the last entry up to the end of this message, where it is known."""
    position, _, xid = headers.get(LAST, "").partition("/")
    return (int(position), int(xid)) if xid else None


class Assembler:
    """Puts the parts of readings together again."""

    def __init__(self) -> None:
        self._of: tuple[int, int, int] | None = None
        self._bodies: list[bytes] = []

    def add(self, headers: Mapping[str, str], body: bytes) -> Relayed | None:
        """A reading with its last part; None before, and when an earlier part was not there."""
        after, through, part, parts = _place(headers)
        if part == 1:
            self._of, self._bodies = (after, through, parts), []
        if self._of != (after, through, parts) or part != len(self._bodies) + 1:
            self._of = None
            return None
        self._bodies.append(body)
        if part < parts:
            return None
        self._of, body, self._bodies = None, b"".join(self._bodies), []
        entries = _entries(body) if headers[FORM] == _FORM else None
        return Relayed(after, through, entries, float(headers[LAG]), headers[RELAY])


def _place(headers: Mapping[str, str]) -> tuple[int, int, int, int]:
    part, _, parts = headers[PART].partition("/")
    return int(headers[AFTER]), int(headers[THROUGH]), int(part), int(parts)


def _entries(body: bytes) -> list[Entry]:
    return [_entry(row) for row in json.loads(zlib.decompress(body))] if body else []


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_FIELDS, row, strict=True))
    values["at"] = datetime.fromisoformat(values["at"])
    if values["run_ats"] is not None:
        values["run_ats"] = [at and datetime.fromisoformat(at) for at in values["run_ats"]]
    return Entry(**values)
