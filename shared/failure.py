"""Groups of failures: what failed alike is told once, with a count, instead of ten thousand times.

A group is named by what called for it (the external API, the target table, the worker), a kind (an HTTP status or the
name of an exception) and the message with its numbers and names taken out. Its id follows from that alone, so that
workers agree on it without asking anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

_VARIABLE = re.compile(
    r"https?://\S+"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?P<quote>['\"`]).*?(?P=quote)"
    r"|\b(?=\w*\d)(?!\d{3}\b)\w[\w.:-]*",
    re.IGNORECASE,
)
"""Parts of a message that differ from item to item. A number of three digits stays: it is an HTTP status."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as far as it is the same for many items."""

    upstream: str
    """What refused: an external API, a table, the worker."""
    kind: str
    """An HTTP status, e.g. `HTTP 503`, or the name of an exception, e.g. `TimeoutError`."""
    message: str
    """What went wrong, in words, without what differs from item to item."""

    @classmethod
    def of(cls, upstream: str, kind: str, error: str) -> Failure:
        """The failure of an item that failed with this message."""
        return cls(upstream, kind, _VARIABLE.sub("…", error))

    def group(self, resource: str) -> int:
        """The id of the group of such failures of a resource; a signed number of 64 bits."""
        text = repr((resource, self.upstream, self.kind, self.message))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


WORKER_LOST = Failure("the worker", "WorkerLost", "the worker that had it stopped answering")
"""The end of an item whose workers died each time."""
