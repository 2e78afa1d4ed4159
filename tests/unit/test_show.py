"""What the command line prints fits its width, and loses nothing."""

from __future__ import annotations

import io

from rich.console import Console

from curation_cli.show import print_table

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
