"""How the command line shows things: a live table on a terminal, plain lines once a second elsewhere.

Names, reasons and errors come from others: `shown` keeps what is in them from acting on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from time import monotonic

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from curation.v1 import curation_pb2 as pb
from curation_client.tls import handshake_failed

LINE_S = 1.0
"""Between two lines where there is no terminal to draw on."""
VIOLATIONS_SHOWN = 3


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that is told how much is done; where there is no terminal, its last state as a line."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.update(bar, completed=done)


class BatchBoard:
    """A batch in numbers, as they come."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live: Live | None = None
        self._shown_at = float("-inf")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Shows while entered."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8) as self._live:
            yield

    def show(self, progress: pb.BatchProgress) -> None:
        """Shows these numbers, or leaves them to the next call when the last line is too fresh."""
        if self._live is not None:
            self._live.update(_progress_table(self._title, progress))
        elif progress.done or monotonic() - self._shown_at >= LINE_S:
            self._shown_at = monotonic()
            print_lines(self._console, f"  {self._title}: {progress_line(progress)}")


def one_line(value: object) -> str:
    """A value in a line: what is not printable, such as a line end or an escape, is a space."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def shown(*values: object) -> Text:
    """Values as they are to be read, a line each; nothing in them is taken for markup."""
    return Text("\n").join(Text(one_line(value)) for value in values)


def print_lines(console: Console, *values: object) -> None:
    """Values, a line each, however long: other commands can take them."""
    console.print(shown(*values), soft_wrap=True)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, with_ids: bool = False
) -> None:
    """A table; a long cell is folded, never cut. `with_ids` in the first column: those are copied, so never folded.

    A cell of several lines is `shown` of them.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for n, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=with_ids and n == 0)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else shown("" if cell is None else cell) for cell in row))
    console.print(table)


def describe_error(error: grpc.RpcError) -> str:
    """What the service refused and why, from the details that every error of it carries."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return str(error)
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # an AioRpcError has all that is read here
    if handshake_failed(error):
        remedy = "--tls-ca names whom to trust, --address a host that the certificate is of"
        return f"no TLS with the service: {one_line(error.details())}\n  {remedy}"
    if status is None and error.code() == grpc.StatusCode.UNAVAILABLE:
        remedy = "`curation up` starts one; --address says where it is, --tls that it speaks TLS"
        return f"no service answers: {one_line(error.details())}\n  {remedy}"
    lines = [f"{error.code().name}: {error.details()}"]
    for detail in status.details if status else ():
        info, precondition = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            lines.append(f"reason {info.reason}")
        elif detail.Unpack(precondition):
            first = precondition.violations[:VIOLATIONS_SHOWN]
            lines += [f"{violation.type} {violation.subject}: {violation.description}" for violation in first]
    return "\n  ".join(map(one_line, lines))


def queue_word(status: pb.QueueStatus) -> str:
    """A queue status without its prefix, in lower case."""
    return word(pb.QueueStatus.Name(status), "QUEUE_STATUS_")


def word(name: str, prefix: str) -> str:
    """The name of a value of an enum, as people read it."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def state_words(state: pb.WorkflowState) -> str:
    """What keeps workers from claiming, in words; empty when nothing does."""
    words = []
    if state.paused:
        held = "draining" if state.draining else "paused"
        by = f" by {state.paused_by}" if state.paused_by else ""
        why = f": {state.pause_reason}" if state.pause_reason else ""
        words.append(f"{held} since {moment(state.pause_time)}{by}{why}")
    if state.breaker == pb.BREAKER_STATE_OPEN:
        words.append(f"{state.api} is down since {moment(state.breaker_open_time)}: {state.breaker_error}")
    if state.HasField("hold_end_time"):
        words.append(f"{state.api} is not called before {moment(state.hold_end_time)}")
    return "; ".join(words)


def moment(time: Timestamp) -> str:
    """A moment in words, in this machine's time zone."""
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def progress_line(progress: pb.BatchProgress) -> str:
    """A batch in numbers, in words."""
    return (
        f"queued {progress.queued}, processing {progress.processing}, completed {progress.completed}, "
        f"failed {progress.failed} of {progress.total}"
    )


def _progress_table(title: str, progress: pb.BatchProgress) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    ended = progress.completed + progress.failed + progress.dequeued
    numbers = {
        "queued": progress.queued,
        "processing": progress.processing,
        "completed": progress.completed,
        "failed": progress.failed,
        "done": f"{100 * ended // max(progress.total, 1)} %",
        "per second": f"{progress.rate_per_second:.0f}" if progress.rate_per_second else "",
    }
    for name in numbers:
        table.add_column(name, justify="right", min_width=10)
    table.add_row(*map(str, numbers.values()))
    return table
