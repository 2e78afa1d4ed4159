"""Updates of single items by many clients at once, beside pgbench with the same statement and grpc.aio alone.

`python -m benchmarks.single_updates [--clients 32] [--seconds 5] [--rounds 3]`: each client waits for its answer before
it sends the next call. The floor is the smaller of the two: what PostgreSQL does of this statement when pgbench sends
it for as many clients, and what a grpc.aio server answers that does nothing. The goal is at least 0.7 of it; more than
1 is possible, for calls that wait at the same time share a statement, which pgbench's do not. PostgreSQL does more over
fewer connections: what pgbench does over as few as the service has for such calls stands beside.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
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

ROWS_PER_S = 5_000
"""More than anybody has time for: each turn has new rows of its own, so that every call changes its item."""
GOAL = 0.7
CONNECTIONS = 5
"""That the service has for updates of a few items."""
FEWER = f"pgbench, {CONNECTIONS} clients"
STATUS = "Selected"
WARM_UP = 1
"""Rounds that do not count."""


async def main(clients: int, seconds: float, rounds: int) -> None:
    """Prints the table."""
    async with (
        database(durable=True) as url,
        service(url) as bed,
        bare_server("benchmarks.single_updates:Echo") as echo,
    ):
        rows = round(seconds * ROWS_PER_S)
        await add_places(url, 1, (rounds + WARM_UP) * 3 * rows)
        firsts, statement = itertools.count(1, rows), await _statement(url)
        worked_s: list[float] = []

        async def ours() -> float:
            began_s = bed.cpu_s
            rate = await _calls(bed, clients, seconds, next(firsts), rows)
            worked_s.append((bed.cpu_s - began_s) / (rate * seconds))
            return rate

        rates = await interleave(
            rounds,
            {
                "pgbench": lambda: _pgbench(url, statement, clients, seconds, next(firsts)),
                FEWER: lambda: _pgbench(url, statement, CONNECTIONS, seconds, next(firsts)),
                "grpc.aio": lambda: _calls(echo, clients, seconds, 1, rows),
                "service": ours,
            },
            warm_up=WARM_UP,
        )
    ratio = statistics.median(
        ours / min(floors) for ours, *floors in zip(rates["service"], rates["pgbench"], rates["grpc.aio"], strict=True)
    )
    fewer = statistics.median(ours / floor for ours, floor in zip(rates["service"], rates[FEWER], strict=True))
    table(
        (f"{clients} clients at once", "a second"),
        ((name, f"{statistics.median(values):,.0f}") for name, values in rates.items()),
    )
    at_least("of the smaller floor", ratio, GOAL)
    result(f"Of {FEWER}: {fewer:.2f}.")
    result(f"A call takes the service {statistics.median(worked_s) * 1e6:.0f} us of a core.")


async def _calls(bed: Bed, clients: int, seconds: float, first: int, rows: int) -> float:
    """Calls answered in a second, for one new row after another."""
    ids = itertools.cycle(place_ids(first, first + rows - 1))  # an echo may ask for more than there are

    async def call_on(channel: grpc.aio.Channel) -> int:
        service, answered = stub(channel), 0
        while time.perf_counter() < ends_s:
            request = pb.BatchUpdateStatusRequest(
                resource=RESOURCE, ids=pb.ItemIds(ids=[next(ids)]), status=STATUS, allow_partial=True
            )
            answer = await service.BatchUpdateStatus(request)
            assert answer.batch.changed_count == 1
            answered += 1
        return answered

    async with bed.channel() as channel:
        began_s = time.perf_counter()
        ends_s = began_s + seconds
        answered = await asyncio.gather(*(call_on(channel) for _ in range(clients)))
        return sum(answered) / (time.perf_counter() - began_s)


async def _pgbench(url: str, statement: str, clients: int, seconds: float, first: int) -> float:
    """Transactions in a second, for one new row after another."""
    libpq = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    number = f"\\set n {first} + :done * {clients} + :client_id\n\\set done :done + 1\n"
    with TemporaryDirectory(prefix="curation-") as folder:
        script = Path(folder) / "update.sql"
        script.write_text(number + statement)
        process = await asyncio.create_subprocess_exec(
            *(str(wheel_programs() / "pgbench"), "-n", "-c", str(clients), "-j", "1", "-T", str(round(seconds))),
            *("-M", "prepared", "-D", "done=0", "-f", str(script), libpq),
            env={**os.environ, "PGOPTIONS": f"{SESSION_OPTIONS} {PLANNED_ONCE}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, errors = await process.communicate()
    found = re.search(r"tps = ([\d.]+)", told.decode())
    assert found is not None, errors.decode()
    return float(found[1])


async def _statement(url: str) -> str:
    """The statement of a call as pgbench sends it: with the parameters of one, but for the item."""
    workflow = load_registry()[RESOURCE]
    sent: list[tuple[bytes, dict[str, Any]]] = []

    class Recorder:
        async def execute(self, statement: bytes, parameters: dict[str, Any]) -> None:
            sent.append((statement, parameters))
            raise InterruptedError

    call = CurateCall(trigger=curate_trigger(STATUS), keys=[], batch=NewBatch(status=STATUS), allow_partial=True)
    try:
        await curate(Recorder(), workflow, transition_table(workflow), call)  # type: ignore[arg-type] # it records
    except InterruptedError:
        pass
    (statement, parameters) = sent[0]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = psycopg.AsyncClientCursor(connection)
        text = cursor.mogrify(re.sub(rb"%\((\w+)\)b", rb"%(\1)s", statement), {**parameters, "keys": ["KEY"]})
    text = text.replace("'{KEY}'", "ARRAY[md5((:n)::text)::uuid]")
    return f"{' '.join(text.split())};\n"


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
