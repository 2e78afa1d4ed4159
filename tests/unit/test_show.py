"""What the command line prints fits its width, and loses nothing."""

from __future__ import annotations

import io

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from rich.console import Console

from curation_cli.show import describe_error, print_lines, print_table, shown

WIDTH = 80


def printed(*rows: tuple[object, ...], with_ids: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=WIDTH)
    print_table(console, "a table", ("what", "items"), rows, with_ids=with_ids)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_long_reason_is_folded_and_takes_no_room_from_the_numbers() -> None:
    lines = printed(("queued", 1_500), ("    " + "refused " * 30, 123_456))
    assert max(map(len, lines)) <= WIDTH
    assert sum("1500" in line for line in lines) == 1
    assert sum("123456" in line for line in lines) == 1
    assert "".join(lines).count("refused") == 30


def test_an_id_is_never_folded_so_that_it_can_be_copied() -> None:
    group = "7" * 40
    lines = printed((group, "a long message " * 10), with_ids=True)
    assert sum(group in line for line in lines) == 1
    assert "".join(lines).count("message") == 10


@pytest.mark.parametrize(
    ("foreign", "line"),
    [
        ("see ticket [/42]", "see ticket [/42]"),
        ("[red] and [bold]", "[red] and [bold]"),
        ("\x1b[31mred", " [31mred"),
        ("a\nb\r\u2028c", "a b  c"),
        (":warning: \u202eodd", ":warning:  odd"),
        ("half \udce9", "half  "),
    ],
)
def test_what_others_wrote_is_shown_in_a_line_and_not_acted_on(foreign: str, line: str) -> None:
    assert shown(foreign).plain == line
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=True, no_color=True)
    print_lines(console, foreign)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == f"{line}\n"
    assert line.rstrip() in "".join(printed((foreign, 1)))


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
def test_an_error_that_quotes_others_forges_no_line(code: grpc.StatusCode) -> None:
    told = describe_error(AioRpcError(code, Metadata(), Metadata(), details="\x1b[Ka\nforged"))
    assert " [Ka forged" in told
    assert "\x1b" not in told
