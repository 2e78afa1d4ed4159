"""Updates of single items by many clients at once, beside pgbench with the same statement and grpc.aio alone.

`python -m benchmarks.single_updates [--clients 32] [--seconds 5] [--rounds 3]`: each client waits for its answer before
it sends the next call. The floor is the smaller of the two: what PostgreSQL does of this statement when pgbench sends
it, and what a grpc.aio server answers that does nothing. The goal is at least 0.7 of it; more than 1 is possible, for
calls that wait at the same time share a statement, which pgbench's do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio
import psycopg
from sqlalchemy import make_url

from benchmarks.bare import bare_server
from benchmarks.bed import RESOURCE, Bed, add_places, database, place_ids, service, stub
from benchmarks.compare import interleave
from benchmarks.report import at_least, result, table
from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.embedded_site import wheel_programs
from shared.db.engine import PLANNED_ONCE, SESSION_OPTIONS
from shared.machine import curate_trigger
from shared.registry import load_registry
from shared.table import transition_table

ROWS = 100_000
GOAL = 0.7
CONNECTIONS = 5
"""That the service has for updates of a few items: PostgreSQL may do more over fewer of them."""
STATUSES = ("Selected", "Archived")
"""Set by turns, so that every call changes its item."""


async def main(clients: int, seconds: float, rounds: int) -> None:
    """Prints the table."""
    async with (
        database(durable=True) as url,
        service(url) as bed,
        bare_server("benchmarks.single_updates:Echo") as echo,
    ):
        await add_places(url, 1, ROWS)
        worked_s: list[float] = []

        async def ours() -> float:
            began_s = bed.cpu_s
            rate = await _calls(bed, clients, seconds)
            worked_s.append((bed.cpu_s - began_s) / (rate * seconds))
            return rate

        with TemporaryDirectory(prefix="curation-") as folder:
            script = Path(folder) / "update.sql"
            script.write_text(await _statement(url))
            rates = await interleave(
                rounds,
                {
                    "pgbench": lambda: _pgbench(url, script, clients, seconds),
                    "pgbench, as many connections as the service": lambda: _pgbench(url, script, CONNECTIONS, seconds),
                    "grpc.aio": lambda: _calls(echo, clients, seconds),
                    "service": ours,
                },
            )
    floors = [min(max(fast), calls) for *fast, calls in zip(*list(rates.values())[:3], strict=True)]
    ratio = statistics.median(ours / floor for ours, floor in zip(rates["service"], floors, strict=True))
    table(
        (f"{clients} clients at once", "a second"),
        ((name, f"{statistics.median(values):,.0f}") for name, values in rates.items()),
    )
    at_least("of the smaller floor", ratio, GOAL)
    result(f"A call takes the service {statistics.median(worked_s) * 1e6:.0f} us of a core.")


async def _calls(bed: Bed, clients: int, seconds: float) -> float:
    """Calls answered in a second."""
    ids, ends_s = place_ids(1, ROWS), time.perf_counter() + seconds

    async def call_on(channel: grpc.aio.Channel) -> int:
        service, answered = stub(channel), 0
        while time.perf_counter() < ends_s:
            request = pb.BatchUpdateStatusRequest(
                resource=RESOURCE,
                ids=pb.ItemIds(ids=[random.choice(ids)]),  # noqa: S311 - no secret
                status=STATUSES[answered % 2],
                allow_partial=True,
            )
            await service.BatchUpdateStatus(request)
            answered += 1
        return answered

    async with bed.channel() as channel:
        began_s = time.perf_counter()
        answered = await asyncio.gather(*(call_on(channel) for _ in range(clients)))
        return sum(answered) / (time.perf_counter() - began_s)


async def _pgbench(url: str, script: Path, clients: int, seconds: float) -> float:
    """Transactions in a second."""
    libpq = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        *(str(wheel_programs() / "pgbench"), "-n", "-c", str(clients), "-j", "1", "-T", str(round(seconds))),
        *("-M", "prepared", "-f", str(script), libpq),
        env={**os.environ, "PGOPTIONS": f"{SESSION_OPTIONS} {PLANNED_ONCE}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, errors = await process.communicate()
    found = re.search(r"tps = ([\d.]+)", told.decode())
    assert found is not None, errors.decode()
    return float(found[1])


async def _statement(url: str) -> str:
    """The statement of a call as pgbench sends it: with the parameters of one, but for the item and the status."""
    workflow = load_registry()[RESOURCE]
    sent: list[tuple[bytes, dict[str, Any]]] = []

    class Recorder:
        async def execute(self, statement: bytes, parameters: dict[str, Any]) -> None:
            sent.append((statement, parameters))
            raise InterruptedError

    call = CurateCall(
        trigger=curate_trigger("Selected"), keys=[], batch=NewBatch(status="Selected"), allow_partial=True
    )
    try:
        await curate(Recorder(), workflow, transition_table(workflow), call)  # type: ignore[arg-type] # it records
    except InterruptedError:
        pass
    (statement, parameters) = sent[0]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = psycopg.AsyncClientCursor(connection)
        text = cursor.mogrify(re.sub(rb"%\((\w+)\)b", rb"%(\1)s", statement), {**parameters, "keys": ["KEY"]})
    text = text.replace("'{KEY}'", "ARRAY[md5((:n)::text)::uuid]")
    return f"\\set n random(1, {ROWS})\n{' '.join(text.split())};\n"


class Echo(pb_grpc.CurationServiceServicer):
    """Answers, and does nothing."""

    async def BatchUpdateStatus(  # noqa: N802
        self, request: pb.BatchUpdateStatusRequest, context: Any
    ) -> pb.BatchUpdateStatusResponse:
        """What the service answers to the update of one item."""
        return pb.BatchUpdateStatusResponse(batch=pb.Batch(batch_id="1", changed_count=1), resume_token="x" * 60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(main(options.clients, options.seconds, options.rounds))
