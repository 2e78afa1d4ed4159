"""Logs: a line for people, or one JSON object for machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from shared.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def test_a_line_for_machines_has_what_was_given_and_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", format="json")
    try:
        raise ValueError("no room")
    except ValueError:
        logging.getLogger("curation.test").exception("claimed %s", 3, extra={"resource": "plätze"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert "ValueError: no room" in line.pop("error")
    assert line == {"level": "ERROR", "logger": "curation.test", "message": "claimed 3", "resource": "plätze"}


def test_a_line_for_people_says_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="WARNING", format="text")
    logging.getLogger("curation.test").info("too quiet")
    logging.getLogger("curation.test").warning("claimed %s", 3)
    assert capsys.readouterr().err.endswith("WARNING curation.test: claimed 3\n")
