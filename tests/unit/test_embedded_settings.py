"""What the embedded PostgreSQL is told of its machine, and the one in containers with it."""

from __future__ import annotations

import pytest

from shared.db.embedded_settings import ALLOCATOR, buffers_mib, server_settings
from tests.docs.pages import ROOT


@pytest.mark.parametrize(
    ("memory_mib", "buffers"),
    [(256, 128), (512, 128), (2048, 512), (4096, 1024), (65536, 1024)],
)
def test_buffers_are_a_quarter_of_the_memory_within_bounds(memory_mib: int, buffers: int) -> None:
    assert buffers_mib(memory_mib) == buffers


@pytest.mark.parametrize("name", ["autovacuum_naptime", "max_wal_size"])
def test_postgresql_in_containers_is_told_the_same(name: str) -> None:
    assert f'"{name}={server_settings()[name]}"' in (ROOT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("name", list(ALLOCATOR))
def test_postgresql_in_containers_keeps_its_memory_alike(name: str) -> None:
    assert f'      {name}: "{ALLOCATOR[name]}"' in (ROOT / "docker-compose.yml").read_text()
