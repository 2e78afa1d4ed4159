"""JSON to and from PostgreSQL, where each item has some: twice as fast as `json.dumps` and `json.loads`.

Those make an encoder for each value, and look for its encoding. JSON that Python cannot read, or that no message can
hold, stays text, so that the rest of its row can be read.
"""

from __future__ import annotations

from json import JSONDecoder, JSONEncoder, dumps
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.types.json import JsonLoader

_encode = c_make_encoder(
    markers=None,  # a circle is found by its depth
    default=JSONEncoder().default,
    encoder=encode_basestring_ascii,
    indent=None,
    key_separator=": ",
    item_separator=", ",
    sort_keys=False,
    skipkeys=False,
    allow_nan=True,
)
_decode = JSONDecoder().scan_once  # type: ignore[attr-defined]


def to_jsonb(value: Any) -> bytes:
    """A value as PostgreSQL reads it.

    Raises:
        TypeError, RecursionError: JSON cannot say it, or it is too deep.
    """
    return "".join(_encode(value, 0)).encode()


class _Loader(JsonLoader):
    def load(self, data: Buffer) -> Any:
        text = str(data, "utf-8")
        try:
            value, _ = _decode(text.lstrip(), 0)  # `json` keeps white space
            if "\\u" in text:
                dumps(value, ensure_ascii=False).encode()  # it keeps halves of surrogate pairs, too
        except (RecursionError, ValueError):  # too deep, a number of too many digits, or half a pair
            return text
        return value


for _name in ("json", "jsonb"):
    psycopg.adapters.register_loader(_name, _Loader)
