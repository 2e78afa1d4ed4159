"""The command line: every command and its options."""

from __future__ import annotations

import argparse
import reprlib
from collections.abc import Sequence
from pathlib import Path

from shared.db.engine import PORT_MAX

PROG = "curation"
DATA = Path(".data")
PORT = 50051
ADDRESS = f"127.0.0.1:{PORT}"
COUNT_MAX = 1_000_000
DIGITS_MAX = 20
PRIORITIES = ("low", "normal", "high")


def parser() -> argparse.ArgumentParser:
    """Reads the command line; the command's name is `command`."""
    found = argparse.ArgumentParser(prog=PROG, description="Set a status on rows, have them enriched, watch it.")
    commands = found.add_subparsers(dest="command", required=True)

    up = _add(commands, "up", help_="start PostgreSQL (unless DATABASE_URL is set), the service and a worker")
    up.add_argument("--demo", action="store_true", help="show everything at work, with places of its own, and end")
    up.add_argument("--data", type=_path, default=DATA, help="folder of the embedded PostgreSQL and the logs")
    up.add_argument("--port", type=_port, default=PORT, help="the service's; any free one when 0")

    client = argparse.ArgumentParser(add_help=False)
    client.add_argument("--address", type=_address, default=ADDRESS, help="the service's host:port")
    client.add_argument("--tls", action="store_true", help="speak TLS; each of the following files says so too")
    client.add_argument("--tls-ca", type=_path, metavar="FILE", help="whom to trust, in PEM; else the system's CAs")
    client.add_argument("--tls-certificate", type=_path, metavar="FILE", help="your own, where the service wants one")
    client.add_argument("--tls-key", type=_path, metavar="FILE", help="of your certificate, without a password")
    resource = argparse.ArgumentParser(add_help=False, parents=[client])
    resource.add_argument("resource", help="e.g. places")
    filtered = argparse.ArgumentParser(add_help=False, parents=[resource])
    filtered.add_argument("--filter", default="", help="""e.g. 'status = "New" AND country = "DE"'""")
    batch = argparse.ArgumentParser(add_help=False, parents=[filtered])
    batch.add_argument("--ids", nargs="+", default=(), help="the items by key")
    batch.add_argument("--allow-partial", action="store_true", help="leave out items that cannot change")
    batch.add_argument("--priority", choices=PRIORITIES, default="normal", help="their share of the queue")
    batch.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")
    batch.add_argument("--reason", default="", help="for the history")

    watching = _add(commands, "watch", parents=[filtered], help_="print changes as they happen")
    watching.add_argument("--batch", default="", help="only items of this batch, until it is done")
    listing = _add(commands, "list", parents=[filtered], help_="print items and counts")
    listing.add_argument("--count", type=_count, default=20, help="items at most")
    setting = _add(commands, "set", parents=[batch], help_="set a status on items, by --ids or --filter")
    setting.add_argument("status", help="e.g. SelectedForDeepScan")
    setting.add_argument(
        "--cancel-in-flight", action="store_true", help="take items away from the workers that have them"
    )
    _add_operations(commands, client=client, resource=resource, batch=batch)
    return found


def _add_operations(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    *,
    client: argparse.ArgumentParser,
    resource: argparse.ArgumentParser,
    batch: argparse.ArgumentParser,
) -> None:
    _add(commands, "workflows", parents=[client], help_="print workflows, what waits, and what holds it back")
    workers = _add(commands, "workers", parents=[client], help_="print workers")
    workers.add_argument("resource", nargs="?", default="", help="only those that serve it")
    workers.add_argument("--ended", action="store_true", help="also those that ended within the last day")
    for name, help_ in (
        ("pause", "let no worker claim items"),
        ("drain", "let no worker claim items, and have them give back what they have not begun"),
        ("resume", "let workers claim again"),
    ):
        changing = _add(commands, name, parents=[resource], help_=help_)
        changing.add_argument("--reason", default="", help="why, for others to see")
    failures = _add(commands, "failures", parents=[resource], help_="print what has failed and why, in groups")
    failures.add_argument("--batch", default="", help="only items that this batch queued")
    failures.add_argument("--count", type=_count, default=20, help="groups at most")
    retrying = _add(commands, "retry", parents=[batch], help_="queue failed items again")
    retrying.add_argument("--batch", default="", help="items of this batch that failed")
    retrying.add_argument("--group", default="", help="items of this group of failures, as `failures` prints it")
    why = _add(commands, "why", parents=[resource], help_="say why an item is not running")
    why.add_argument("id", help="the item's key")


def _port(text: str) -> int:
    return _between(0, PORT_MAX, text)


def _count(text: str) -> int:
    return _between(1, COUNT_MAX, text)


def _between(least: int, most: int, text: str) -> int:
    if not (text.isdecimal() and len(text) <= DIGITS_MAX and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} is no number from {least} to {most}")
    return int(text)


def _address(text: str) -> str:
    host, _, port = _filled(_text(text)).rpartition(":")
    if not host or "/" in host:
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} is no host:port")
    _between(1, PORT_MAX, port)
    return text


def _path(text: str) -> Path:
    return Path(_filled(text))


def _filled(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} is not UTF-8") from None
    return text


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    *,
    parents: Sequence[argparse.ArgumentParser] = (),
    help_: str,
) -> argparse.ArgumentParser:
    """A command that says what it does in the list of all, and in its own help; its arguments are text by default."""
    command = commands.add_parser(name, parents=parents, help=help_, description=f"{help_[:1].upper()}{help_[1:]}.")
    command.register("type", None, _text)
    return command
