"""A real HTTP server on this machine whose answers a test gives by path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from curation_cli.http_server import Answer, address_of, serve

NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")


class Website:
    """Serves `pages`; `requests` are the paths and headers it was asked with."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Website]:
        """Listens while entered."""
        server = await serve(self._answer)
        self.url = address_of(server)
        yield self
        server.close()

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for path, _ in self.requests]

    def _answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        self.requests.append((path, headers))
        return self.pages.get(path, NOT_FOUND)


def html(body: str | bytes, *, content_type: str = "text/html; charset=utf-8", **headers: str) -> Answer:
    """A page."""
    raw = body.encode() if isinstance(body, str) else body
    return Answer(HTTPStatus.OK, raw, content_type, headers)


def redirect(location: str) -> Answer:
    """A redirect."""
    return Answer(HTTPStatus.FOUND, b"", headers={"Location": location})
