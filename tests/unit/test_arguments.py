"""The command line says what is wrong with its arguments, and ends with exit code 2."""

from __future__ import annotations

import pytest

from curation_cli.arguments import parser

COMMANDS = (
    "up",
    "watch",
    "list",
    "set",
    "workflows",
    "workers",
    "pause",
    "drain",
    "resume",
    "failures",
    "retry",
    "why",
)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ([], "the following arguments are required: command"),
        (["nope"], "invalid choice: 'nope'"),
        (["up", "--port", "abc"], "'abc' is no number from 0 to 65535"),
        (["up", "--port", "70000"], "'70000' is no number from 0 to 65535"),
        (["up", "--port", "-1"], "'-1' is no number from 0 to 65535"),
        (["list", "places", "--count", "0"], "'0' is no number from 1 to 1000000"),
        (["failures", "places", "--count", "-5"], "'-5' is no number from 1 to 1000000"),
        (["failures", "places", "--count", "9" * 5_000], "999' is no number from 1 to 1000000"),
        (["up", "--port", "9" * 5_000], "999' is no number from 0 to 65535"),
        (["up", "--data", ""], "argument --data: is empty"),
        (["list", "places", "--address", ""], "argument --address: is empty"),
        (["list", "places", "--address", "localhost"], "argument --address: 'localhost' is no host:port"),
        (["list", "places", "--address", "http://127.0.0.1:50051"], "127.0.0.1:50051' is no host:port"),
        (["list", "places", "--address", "127.0.0.1:70000"], "'70000' is no number from 1 to 65535"),
        (["list", "places", "--filter", "name = caf\udce9"], "argument --filter: 'name = caf\\udce9' is not UTF-8"),
        (["set", "places", "New", "--ids", "1", "\udcff"], "argument --ids: '\\udcff' is not UTF-8"),
        (["why", "places", "\udcff"], "argument id: '\\udcff' is not UTF-8"),
        (["list"], "the following arguments are required: resource"),
        (["set", "places"], "the following arguments are required: status"),
        (["set", "places", "Selected", "--priority", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_wrong_arguments_are_named(line: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert problem in told
    assert len(told) < 2_000


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([command, "--help"])
    usage, description = capsys.readouterr().out.split("\n\n")[:2]
    assert usage.startswith(f"usage: curation {command}")
    assert description.endswith(".")
