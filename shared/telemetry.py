"""Logs: one line per event on standard error, for people or for machines. Called once, by a process's `__main__`."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Literal

from shared.secrets import Secrets

TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest is what the caller gave as `extra`."""


def configure_logging(*, level: str, format: Literal["text", "json"], secrets: Secrets) -> None:  # noqa: A002 -- the setting's name
    """Sends all logs of the process to standard error, secrets struck out of them."""
    if format == "json" and isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Discreet(JsonFormatter() if format == "json" else logging.Formatter(TEXT_FORMAT), secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # They tell of every request at INFO, thousands a second in a worker.
    for chatty in ("httpx", "httpcore", "alembic", "transitions"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, what came as `extra`, and the error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in RECORD_FIELDS}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Discreet(logging.Formatter):
    """Another formatter's lines, without the secrets that are in a message or a traceback."""

    def __init__(self, formatter: logging.Formatter, secrets: Secrets) -> None:
        super().__init__()
        self._formatter, self._secrets = formatter, secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.hide(self._formatter.format(record))
