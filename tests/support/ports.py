"""Ports for processes that cannot be asked which one they took."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

BELOW_THE_KERNELS = range(20_000, 32_000)
"""Connections that go out get theirs above: one could take a port between its choice and its use."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    while True:
        with socket.socket() as free, suppress(OSError):
            port = random.choice(BELOW_THE_KERNELS)
            free.bind(("127.0.0.1", port))
            return port
