"""Resume tokens: an opaque, checked position in one event log."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from uuid import UUID

from shared.errors import TokenInvalid

_FORM = struct.Struct(">B8sq")
_VERSION = 1


def encode_token(log: UUID, position: int) -> str:
    """The token of a position: it survives restarts, and fits this log alone."""
    body = _FORM.pack(_VERSION, log.bytes[:8], position)
    return base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(4, "big")).decode().rstrip("=")


def decode_token(token: str, log: UUID) -> int:
    """The position of a token. Raises `TokenInvalid` for garbage, and for a token of another log."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        body, check = raw[:-4], raw[-4:]
        version, prefix, position = _FORM.unpack(body)
    except (ValueError, binascii.Error, struct.error):
        raise TokenInvalid("this is no resume token") from None
    if version != _VERSION or zlib.crc32(body).to_bytes(4, "big") != check or position < 0:
        raise TokenInvalid("this is no resume token")
    if prefix != log.bytes[:8]:
        raise TokenInvalid("this resume token is of another database")
    return int(position)
