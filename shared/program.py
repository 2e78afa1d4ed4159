"""The outermost layer of a process: reads its settings, sets up its log, and turns what is refused into one line.

What nobody foresaw keeps its traceback: it is for those who mend it.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from shared.db.libpq_variables import forget_sessions
from shared.errors import CurationError, SettingsInvalid
from shared.secrets import Secrets
from shared.settings import DatabaseSettings
from shared.telemetry import configure_logging

FAILED = 1
"""The exit code of a process that could not start, or go on."""
SETTINGS_WRONG = 2
"""The exit code of a process whose environment has to be mended."""
INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells have it."""
LAST_STREAM = 2
"""The descriptor of standard error."""
FILES_MAX = 65_536
"""Open files of a process, where its hard limit allows that. Each watcher and each call of an API may be a connection,
and the soft limit, often 1,024 or 256, is kept low for programs that wait by `select`."""

Settings = TypeVar("Settings", bound=DatabaseSettings)


def run_program(name: str, settings_class: type[Settings], run: Callable[[Settings], None]) -> int:
    """Runs a process with the settings of its environment. Returns its exit code."""
    open_standard_streams()
    _allow_files()
    forget_sessions()
    try:
        settings = settings_class.from_environment()
    except SettingsInvalid as error:
        print(f"{name}: {error.reason}: {error}", file=sys.stderr)  # noqa: T201 - how to log is a setting too
        return SETTINGS_WRONG
    configure_logging(level=settings.log_level, format=settings.log_format, secrets=Secrets.of(os.environ))
    try:
        run(settings)
    except CurationError as error:
        logging.getLogger(name).error("%s: %s", error.reason, error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def open_standard_streams() -> None:
    """Opens standard input, output and error on nothing where the process was started without them.

    Otherwise the next socket, e.g. the one to PostgreSQL, would take their number, and be sent what a library prints.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS may allow fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
