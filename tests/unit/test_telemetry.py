"""Logs: a line for people, or one JSON object for machines."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Literal

import pytest

from shared.secrets import Secrets
from shared.telemetry import configure_logging

pytestmark = pytest.mark.usefixtures("logging_as_before")


def test_a_line_for_machines_has_what_was_given_and_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="INFO", format="json", secrets=Secrets())
    try:
        raise ValueError("no room")
    except ValueError:
        logging.getLogger("curation.test").exception("claimed %s", 3, extra={"resource": "plätze"})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert "ValueError: no room" in line.pop("error")
    assert line == {"level": "ERROR", "logger": "curation.test", "message": "claimed 3", "resource": "plätze"}


def test_a_line_for_machines_is_utf_8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(told, encoding="ascii", errors="backslashreplace"))
    configure_logging(level="INFO", format="json", secrets=Secrets())
    logging.getLogger("curation.test").info("plätze")
    assert json.loads(told.getvalue())["message"] == "plätze"


def test_a_line_for_people_says_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="WARNING", format="text", secrets=Secrets())
    logging.getLogger("curation.test").info("too quiet")
    logging.getLogger("curation.test").warning("claimed %s", 3)
    assert capsys.readouterr().err.endswith("WARNING curation.test: claimed 3\n")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_secret_is_in_no_line_not_even_in_a_traceback(
    capsys: pytest.CaptureFixture[str], format_: Literal["text", "json"]
) -> None:
    configure_logging(level="INFO", format=format_, secrets=Secrets(["s3cret-key"]))
    try:
        raise ValueError("s3cret-key is wrong")
    except ValueError:
        logging.getLogger("curation.test").exception("with %s", "s3cret-key", extra={"header": "s3cret-key"})
    told = capsys.readouterr().err
    assert "s3cret" not in told
    assert "ValueError: *** is wrong" in told
