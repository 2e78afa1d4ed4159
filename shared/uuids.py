"""Many UUIDs at once, as they come in a request and go to PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, overload
from uuid import UUID

_LENGTH = len(str(UUID(int=0)))
_HYPHENS = (8, 13, 18, 23)


class Uuids(Sequence[UUID]):
    """UUIDs by their bytes, made into objects where somebody looks: 100,000 of those take an eighth of a second."""

    __slots__ = ("packed",)

    def __init__(self, packed: Sequence[bytes]) -> None:
        """`packed` are the sixteen bytes of each."""
        self.packed = packed

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self | None:
        """Reads the usual spelling, 6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11; None when one is spelled otherwise."""
        joined, count = "".join(texts), len(texts)
        digits = joined.replace("-", "")
        if (
            set(map(len, texts)) != {_LENGTH}
            or len(digits) != 32 * count
            or any(joined[place::_LENGTH] != "-" * count for place in _HYPHENS)
        ):
            return None
        try:
            packed = bytes.fromhex(digits)
        except ValueError:
            return None
        if len(packed) != 16 * count:  # blanks were left out
            return None
        return cls([packed[start : start + 16] for start in range(0, len(packed), 16)])

    @property
    def are_unique(self) -> bool:
        """Whether none is there twice."""
        return len(set(self.packed)) == len(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> UUID: ...

    @overload
    def __getitem__(self, index: slice) -> Uuids: ...

    def __getitem__(self, index: int | slice) -> UUID | Uuids:
        return Uuids(self.packed[index]) if isinstance(index, slice) else UUID(bytes=self.packed[index])
