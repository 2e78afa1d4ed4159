"""Streams that were opened and left cost neither the service nor its client anything; the long form is in `chaos`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.leaks import Held, leave_clients, leave_streams
from tests.support.replicas import running_replicas

pytestmark = pytest.mark.untraced

WARM_COUNT = 1_500
ROUND_COUNT = 150
LEAK_BYTES = 8_192
"""What a stream that leaks leaves at least: those that were found here left 12 and 67 KB."""


@pytest.mark.timeout(400)
async def test_a_thousand_streams_that_were_left_leave_the_service_and_the_client_as_they_were(
    postgres_folder: Path,
) -> None:
    async with running_replicas(postgres_folder / "leaks", items=300) as (site, _):
        address = f"127.0.0.1:{site.replicas[0].port}"
        process = site.replicas[0].process
        assert process is not None
        held = Held([process.pid, os.getpid()])
        await leave_streams(address, WARM_COUNT)
        await leave_clients(address, ROUND_COUNT)
        for number in range(6):
            held.sample(number * ROUND_COUNT)
            await leave_streams(address, ROUND_COUNT * 2 // 3)
            await leave_clients(address, ROUND_COUNT // 3)
        held.sample(6 * ROUND_COUNT)
    print(held.table(["service", "client"]), held.growth())  # noqa: T201 - when somebody asks by -s
    assert max(held.growth()) < LEAK_BYTES
