"""Roles of a server, which are gone with the test: what they own and may do in its database with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.engine import make_url


@contextmanager
def new_roles(url: str, *words: str) -> Iterator[tuple[str, ...]]:
    """Roles that may log in, each named after a word, and have no rights yet."""
    names = tuple(f"{word}_{uuid.uuid4().hex}" for word in words)
    with psycopg.connect(url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'")
        yield names
        connection.execute(f"DROP OWNED BY {', '.join(names)} CASCADE; DROP ROLE {', '.join(names)}")


def as_role(url: str, name: str) -> str:
    """The address for one of them."""
    return make_url(url).set(username=name, password="s3cret").render_as_string(hide_password=False)
