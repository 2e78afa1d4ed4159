"""What the embedded PostgreSQL may take of a machine's memory."""

from __future__ import annotations

import pytest

from shared.db.embedded_settings import buffers_mib


@pytest.mark.parametrize(
    ("memory_mib", "buffers"),
    [(256, 128), (512, 128), (2048, 512), (4096, 1024), (65536, 1024)],
)
def test_buffers_are_a_quarter_of_the_memory_within_bounds(memory_mib: int, buffers: int) -> None:
    assert buffers_mib(memory_mib) == buffers
