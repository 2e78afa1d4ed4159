"""What the embedded PostgreSQL is told of the machine it runs on: its defaults are for the smallest there is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

BUFFERS_MIB = 128, 1024
"""At least PostgreSQL's default; and at most so much, for the rest of the memory is the system's to cache files in."""
BUFFERS_SHARE = 4
"""One part in so many of the memory."""
ALLOCATOR: Mapping[str, str] = {"MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_MMAP_THRESHOLD_": "16777216"}
"""Environment of the server: a process keeps up to 16 MiB of what a statement took, for the next one. By default glibc
gives back some megabytes after each statement on a thousand rows, and the system zeroes them again, page by page."""
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def server_settings() -> Mapping[str, str]:
    """Settings of PostgreSQL by name."""
    return {
        # Taken as it is used: an idle server holds little of it.
        "shared_buffers": f"{buffers_mib(_memory_mib())}MB",
        # Workers drain a million items within the minute that is the default, and no vacuum would look meanwhile.
        "autovacuum_naptime": "5s",
        # After a checkpoint each page that is written goes whole into the log. With the default of 1 GB that alone
        # brings on the next one, under a worker that drains: a million items wrote 11 GB of log, and write 2.
        "max_wal_size": "4GB",
    }


def buffers_mib(memory_mib: int) -> int:
    """How much of the memory is for PostgreSQL's own cache."""
    least, most = BUFFERS_MIB
    return max(least, min(memory_mib // BUFFERS_SHARE, most))


def _memory_mib() -> int:
    """What the machine has, or its container may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such limit, or "max"
        total = min(total, int(_CONTAINER_LIMIT.read_text()))
    return total // 2**20
