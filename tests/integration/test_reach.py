"""Connections to PostgreSQL notice, by the kernel, that the server is out of reach; no test can take it there."""

from __future__ import annotations

import socket
import sys
from typing import Any

import psycopg
import pytest

from shared.db.engine import Database, connect
from tests.support.proxy import proxied


def bounds(connection: psycopg.AsyncConnection[Any]) -> tuple[int, int, int]:
    """What the kernel was told: milliseconds without an answer, seconds until the first probe, and whether to probe."""
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as sock:
        return (
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        )


@pytest.mark.skipif(sys.platform != "linux", reason="these options have other names elsewhere")
async def test_connections_of_the_pool_and_others_are_bounded_alike(database_url: str) -> None:
    async with proxied(database_url) as (_, url):
        async with Database(url) as database, database.transaction() as pooled:
            assert bounds(pooled) == (15_000, 5, 1)
        async with await connect(url, name="test") as own:
            assert bounds(own) == (15_000, 5, 1)
