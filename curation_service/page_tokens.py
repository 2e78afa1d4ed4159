"""Page tokens: where the next page of one query starts, in a form that means nothing to the caller.

A token is the values of the last item in the columns of the order, as text, behind a digest over them and over the
query. So a token that was cut, changed, or given to another query is refused instead of answered with a wrong page. The
digest is no secret: a forged token shows nothing that a filter could not.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from curation_service.kinds import Kind
from shared.errors import FieldViolation, InvalidRequest

DIGEST_SIZE = 12
"""Bytes; enough that no mistake passes by chance."""


def write_page_token(query: Sequence[str], kinds: Sequence[Kind], values: Sequence[Any]) -> str:
    """The token behind an item that has these values. `query` is all that must be the same for the next page."""
    texts = [None if value is None else kind.render(value) for kind, value in zip(kinds, values, strict=True)]
    body = json.dumps(texts, separators=(",", ":")).encode()
    return urlsafe_b64encode(_digest(query, body) + body).decode().rstrip("=")


def read_page_token(
    token: str, query: Sequence[str], kinds: Sequence[Kind], *, nullable: bool = False
) -> tuple[Any, ...]:
    """The values that a token was written with; `nullable` says that they may be missing.

    Raises:
        InvalidRequest: not a token, or one of another query.
    """
    try:
        data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        body = data[DIGEST_SIZE:]
        # `urlsafe_b64decode` skips what is no base64; only the spelling that was written is read.
        if _digest(query, body) != data[:DIGEST_SIZE] or urlsafe_b64encode(data).decode().rstrip("=") != token:
            raise ValueError("the digest differs")
        values = tuple(_value(kind, text) for kind, text in zip(kinds, json.loads(body), strict=True))
        if None in values and not nullable:
            raise ValueError("a value is missing")
        return values
    except (ValueError, TypeError, RecursionError):
        violation = FieldViolation("page_token", "not a token of this query; leave it empty to start at the first page")
        raise InvalidRequest(violation) from None


def _value(kind: Kind, text: object) -> Any:
    if text is not None and not isinstance(text, str):
        raise ValueError("no text")
    if text is not None:
        text.encode()  # JSON can say half a surrogate pair, which no text of a request holds
    return None if text is None else (kind.restore or kind.parse)(text)


def _digest(query: Sequence[str], body: bytes) -> bytes:
    return blake2b(json.dumps(list(query)).encode() + b"\n" + body, digest_size=DIGEST_SIZE).digest()
