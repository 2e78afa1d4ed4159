"""The `curation` command: reads the command line and the environment, and hands both on."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Coroutine, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from sqlalchemy.engine import make_url

from curation.v1 import curation_pb2 as pb
from curation_cli.arguments import DATA, PORT, PROG, parser
from curation_cli.curate import list_items, set_status
from curation_cli.demo import demo_started, run_demo
from curation_cli.failures import print_failures, print_why, retry
from curation_cli.operate import ACTOR, change_state, print_workers, print_workflows
from curation_cli.processes import ChildFailed
from curation_cli.show import describe_error, one_line, print_lines
from curation_cli.up import Running, Setup, started
from curation_cli.watch import watch
from curation_client.aio import CurationClient
from curation_client.tls import tls
from shared.db.libpq_variables import forget_servers, forget_sessions
from shared.errors import CurationError
from shared.lifecycle import SIGNALS, heed_hangup
from shared.program import INTERRUPTED, open_standard_streams
from shared.settings import DatabaseSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    open_standard_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        # As on standard error: what a terminal has no letter for is told all the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    console = Console()
    try:
        return asyncio.run(_until_signal(_run(options, console)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if options.command == "up" and not options.demo else INTERRUPTED
    except grpc.RpcError as error:
        return _fail(describe_error(error))
    except TimeoutError:
        return _fail("it took too long, and was given up")
    except (CurationError, ChildFailed, OSError, ValueError) as error:
        return _fail(str(error))


async def _until_signal(work: Coroutine[object, object, int]) -> int:
    """Runs; SIGINT and SIGTERM cancel the work, which then cleans up, and a second one cancels the cleaning.

    So does a terminal that is closed, but for the second time.
    """
    running = asyncio.create_task(work)

    def hang_up() -> None:
        if not running.cancelling():
            running.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    heed_hangup(hang_up)
    return await running


async def _run(options: argparse.Namespace, console: Console) -> int:
    if options.command == "up":
        if os.environ.get("DATABASE_URL"):
            DatabaseSettings.from_environment()  # or it says by name what is wrong, before anything starts
            forget_sessions()
        else:
            forget_servers()
        setup = Setup(folder=options.data.absolute(), port=options.port, environment=dict(os.environ))
        await (_demo(console, setup) if options.demo else _up(console, setup))
        return 0
    async with CurationClient(options.address, credentials=_credentials(options), wait_for_ready=False) as client:
        await _call(client, console, options)
    return 0


def _credentials(options: argparse.Namespace) -> grpc.ChannelCredentials | None:
    files = {"ca": options.tls_ca, "certificate": options.tls_certificate, "key": options.tls_key}
    return tls(**files) if options.tls or any(files.values()) else None


async def _call(client: CurationClient, console: Console, options: argparse.Namespace) -> None:
    """The commands that ask a running service."""
    match options.command:
        case "watch":
            await watch(client, console, resource=options.resource, batch_id=options.batch, matching=options.filter)
        case "list":
            await list_items(client, console, resource=options.resource, matching=options.filter, count=options.count)
        case "set":
            cancel = options.cancel_in_flight
            await set_status(
                client, console, options.resource, options.status, **_batch(options), cancel_in_flight=cancel
            )
        case "workflows":
            await print_workflows(client, console)
        case "workers":
            await print_workers(client, console, resource=options.resource, with_ended=options.ended)
        case "pause" | "drain" | "resume" as command:
            await change_state(client, console, command=command, resource=options.resource, reason=options.reason)
        case "failures":
            await print_failures(
                client, console, resource=options.resource, batch_id=options.batch, count=options.count
            )
        case "retry":
            chosen = {"batch_id": options.batch, "failure_group_id": options.group}
            await retry(client, console, options.resource, **_batch(options), **chosen)
        case "why":
            await print_why(client, console, resource=options.resource, key=options.id)


def _batch(options: argparse.Namespace) -> dict[str, Any]:
    """The options of what becomes a batch."""
    return {
        "ids": options.ids,
        "filter": options.filter,
        "allow_partial": options.allow_partial,
        "validate_only": options.dry_run,
        "priority": pb.BatchPriority.Value(f"BATCH_PRIORITY_{options.priority.upper()}"),
        "actor": ACTOR,
        "reason": options.reason,
    }


async def _up(console: Console, setup: Setup) -> None:
    _print_start(console, setup, "the service and a worker")
    async with started(setup) as running:
        _print_addresses(console, running)
        console.print("Ctrl-C ends it all.")
        raise await running.first_end()


async def _demo(console: Console, setup: Setup) -> None:
    _print_start(console, setup, "the service, a worker and a place API for it to call")
    async with demo_started(setup) as (running, place_api):
        _print_addresses(console, running)
        await run_demo(console, running, place_api)
        given = {"--data": setup.folder, "--port": setup.port}
        default = {"--data": DATA.absolute(), "--port": PORT}
        options = [str(word) for option in given.items() if option not in default.items() for word in option]
        again = shlex.join([_path(PROG), "up", *options])
        print_lines(console, "", f"Start it to stay with: {again}")


def _print_start(console: Console, setup: Setup, processes: str) -> None:
    database = "" if setup.environment.get("DATABASE_URL") else "PostgreSQL, "
    console.print(f"Starting {database}{processes} ...")


def _path(program: str) -> str:
    """How a program beside this one is called from here: a first user has them in `.venv` alone."""
    found, here = Path(sys.argv[0]).absolute().with_name(program), Path.cwd()
    if not found.exists():
        return program
    return str(found.relative_to(here) if found.is_relative_to(here) else found)


def _print_addresses(console: Console, running: Running) -> None:
    """Where everything is, and how a stock client calls it."""
    url = f"http://{running.address}/curation.v1.CurationService/CountItems"
    call = [_path("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", '{"resource": "places"}', url]
    print_lines(
        console,
        f"service     {running.address} (gRPC, with reflection and health)",
        f"PostgreSQL  {make_url(running.database_url).render_as_string()}",
        *(f"log         {child.log}" for child in running.children),
        f"call it     {shlex.join(call)}",
        f"or          {shlex.join([_path(PROG), 'watch', 'places', '--address', running.address])}",
    )


def _fail(message: str) -> int:
    for line in message.split("\n"):
        print(one_line(line), file=sys.stderr)  # noqa: T201 - the command's own output
    return 1


if __name__ == "__main__":
    sys.exit(main())
