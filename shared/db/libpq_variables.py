"""What libpq reads in the environment, and neither an address nor the options of a session can override."""

from __future__ import annotations

import os

OF_SESSIONS = ("PGCLIENTENCODING", "PGDATESTYLE", "PGGEQO", "PGTZ")
"""How texts and times are written, and statements planned: each session of ours says so itself (`SESSION_OPTIONS`)."""


def forget_sessions() -> None:
    """Drops those that say of a session what ours say themselves."""
    for name in OF_SESSIONS:
        os.environ.pop(name, None)


def forget_servers() -> None:
    """Drops all of them: what they say, of TLS or a password for instance, is of a server that is not meant."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
