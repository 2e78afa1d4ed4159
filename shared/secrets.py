"""Keeps keys out of what is told: the value of what the environment calls a key, a token or a password is struck out of
every error, every step of progress and every line of a log, wherever it came from.

These values are known; what only looks like a secret, `shared.outcome.clean` strikes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

LENGTH_MIN = 8
"""Shorter values are left: they are words that occur by chance, and no keys."""
STRUCK_OUT = "***"
_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?$", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*(?=@)")
"""A user's name and password in an address."""


class Secrets:
    """Values that nobody may read."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Values of less than `LENGTH_MIN` characters are left out."""
        forms = {form for value in values if len(value) >= LENGTH_MIN for form in _forms(value)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Secrets:
        """The values of variables called `..._KEY`, `..._TOKEN`, `..._SECRET`, `..._PASSWORD` and the like."""
        return cls(value.strip() for name, value in environment.items() if _NAME.search(name))

    def hide(self, text: str) -> str:
        """The text, each secret replaced by asterisks, and so passwords in addresses."""
        if self._pattern is not None:
            text = self._pattern.sub(STRUCK_OUT, text)
        return _USERINFO.sub(STRUCK_OUT, text) if "://" in text else text


def _forms(value: str) -> Iterator[str]:
    """As it is, as it stands in an address, and as in JSON or a literal of Python."""
    yield value
    yield quote(value)
    yield quote(value, safe="")
    yield quote_plus(value)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
