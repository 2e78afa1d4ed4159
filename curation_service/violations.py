"""Collects what is wrong with a request, so that a caller reads all of it at once, up to a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.errors import FieldViolation, InvalidRequest

T = TypeVar("T")
VIOLATIONS_MAX = 20
"""More are not told: nobody would read them."""


class Violations:
    """What is wrong so far with one request."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    @property
    def full(self) -> bool:
        """Whether looking for more is a waste."""
        return len(self._found) >= VIOLATIONS_MAX

    def add(self, field: str, description: str) -> None:
        """One more, unless there are enough."""
        if not self.full:
            self._found.append(FieldViolation(field, description))

    def collect(self, read: Callable[[], T]) -> T | None:
        """What `read` returns; None when it raised `InvalidRequest`, which is then noted."""
        try:
            return read()
        except InvalidRequest as error:
            for violation in error.violations:
                self.add(violation.field, violation.description)
            return None

    def check(self) -> None:
        """Raises `InvalidRequest` with everything noted, if there is anything."""
        if self._found:
            raise InvalidRequest(*self._found)
