"""The `curation` command: reads the command line and the environment, and hands both on."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

import grpc
from rich.console import Console
from sqlalchemy.engine import make_url

from curation_cli.curate import list_items, set_status
from curation_cli.demo import demo_started, run_demo
from curation_cli.processes import ChildFailed
from curation_cli.show import describe_error
from curation_cli.up import Place, Running, started
from curation_cli.watch import watch
from curation_client.aio import CurationClient
from shared.errors import CurationError

PORT = 50051
ADDRESS = f"127.0.0.1:{PORT}"
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        return asyncio.run(_until_signal(_run(options, console)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if options.command == "up" and not options.demo else INTERRUPTED
    except grpc.RpcError as error:
        return _fail(describe_error(error))
    except (CurationError, ChildFailed, ValueError) as error:
        return _fail(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="curation", description="Set a status on rows, have them enriched, watch it.")
    commands = parser.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", help="start PostgreSQL (unless DATABASE_URL is set), the service and a worker")
    up.add_argument("--demo", action="store_true", help="show everything at work, with places of its own, and end")
    up.add_argument("--data", type=Path, default=Path(".data"), help="folder of the embedded PostgreSQL and the logs")
    up.add_argument("--port", type=int, default=PORT, help="the service's; any free one when 0")

    client = argparse.ArgumentParser(add_help=False)
    client.add_argument("resource", help="e.g. places")
    client.add_argument("--address", default=ADDRESS, help="the service's host:port")
    client.add_argument("--filter", default="", help="""e.g. 'status = "New" AND country = "DE"'""")

    watching = commands.add_parser("watch", parents=[client], help="print changes as they happen")
    watching.add_argument("--batch", default="", help="of this batch only, until it is done")

    listing = commands.add_parser("list", parents=[client], help="print items and counts")
    listing.add_argument("--count", type=int, default=20, help="items at most")

    setting = commands.add_parser("set", parents=[client], help="set a status")
    setting.add_argument("status", help="e.g. SelectedForDeepScan")
    setting.add_argument("--ids", nargs="+", default=(), help="the items by key; or use --filter")
    setting.add_argument("--allow-partial", action="store_true", help="leave out items that cannot change")
    return parser


async def _until_signal(work: Coroutine[object, object, int]) -> int:
    """Runs; SIGINT and SIGTERM cancel the work, which then cleans up, and a second one cancels the cleaning."""
    running = asyncio.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await running


async def _run(options: argparse.Namespace, console: Console) -> int:
    if options.command == "up":
        place = Place(folder=options.data.absolute(), port=options.port, environment=dict(os.environ))
        await (_demo(console, place) if options.demo else _up(console, place))
        return 0
    async with CurationClient(options.address) as client:
        match options.command:
            case "watch":
                await watch(client, console, resource=options.resource, batch_id=options.batch, matching=options.filter)
            case "list":
                await list_items(
                    client, console, resource=options.resource, matching=options.filter, count=options.count
                )
            case "set":
                await set_status(
                    client,
                    console,
                    resource=options.resource,
                    status=options.status,
                    ids=options.ids,
                    matching=options.filter,
                    allow_partial=options.allow_partial,
                )
    return 0


async def _up(console: Console, place: Place) -> None:
    console.print("Starting PostgreSQL, the service and a worker ...")
    async with started(place) as running:
        _print_addresses(console, running)
        console.print("Ctrl-C ends it all.")
        raise await running.first_end()


async def _demo(console: Console, place: Place) -> None:
    console.print("Starting PostgreSQL, the service, a worker and a place API for it to call ...")
    async with demo_started(place) as (running, place_api):
        _print_addresses(console, running)
        await run_demo(console, running, place_api)
        console.print(f"\nStart it to stay with: curation up --data {place.folder}", highlight=False, soft_wrap=True)


def _print_addresses(console: Console, running: Running) -> None:
    """Where everything is, and how a stock client calls it."""
    method = "curation.v1.CurationService/CountItems"
    lines = (
        f"service     {running.address} (gRPC, with reflection and health)",
        f"PostgreSQL  {make_url(running.database_url).render_as_string()}",
        *(f"log         {child.log}" for child in running.children),
        f'call it     grpcurl -plaintext -d \'{{"resource": "places"}}\' {running.address} {method}',
        f"or          curation watch places --address {running.address}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - the command's own output
    return 1


if __name__ == "__main__":
    sys.exit(main())
