"""A place-details server for the demo: it speaks the format of Google Places API (New), and fails as such APIs do.

`python -m curation_cli.place_api` serves the places of `data` at a free port of this machine, and prints its address.
Which places are unknown or refused depends on the place alone; latency, passing errors and rate limits come from
seeded dice. Each place has a small website there as well.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from curation_cli import site
from curation_cli.data import PlaceRow, place_rows
from curation_cli.http_server import Answer, address_of, serve

PLACES = "/v1/places/"
SITES = "/site/"
SEED = 1
"""What the random latencies and passing errors begin with, the same at every run."""
NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How unreliable the server is; shares between 0 and 1."""

    unknown_share: float = 0.03
    """Places answered by 404."""
    refused_share: float = 0.005
    """Places answered by 403, and as many by 400."""
    error_share: float = 0.04
    """Requests answered by 500."""
    limited_share: float = 0.005
    """Requests answered by 429 with Retry-After."""
    latency_min_s: float = 0.005
    """The quickest answer."""
    latency_max_s: float = 0.060
    """The slowest."""


class PlaceApi:
    """Answers requests from the data set, and counts them by place."""

    def __init__(self, rows: Mapping[str, PlaceRow], *, faults: Faults, seed: int) -> None:
        self._rows = rows
        self._faults = faults
        self._dice = random.Random(seed)  # noqa: S311 - dice, no secret
        self.requests: Counter[str] = Counter()
        """Requests for details, by place id."""

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """The answer to `GET path`; names of headers in lower case."""
        root = f"http://{headers.get('host', 'localhost')}"
        if path.startswith(PLACES):
            return self._details(path.removeprefix(PLACES), headers, root)
        if path.startswith(SITES):
            place_id, _, page = path.removeprefix(SITES).partition("/")
            row = self._rows.get(place_id)
            return (row and site.render(row, page, root=f"{root}{SITES}{place_id}/")) or NOT_FOUND
        if path == "/robots.txt":
            return site.ROBOTS
        if path == "/requests":
            return _json(HTTPStatus.OK, {"total": self.requests.total(), "by_place": dict(self.requests)})
        return NOT_FOUND

    def _details(self, place_id: str, headers: Mapping[str, str], root: str) -> Answer:
        self.requests[place_id] += 1
        delay_s = self._dice.uniform(self._faults.latency_min_s, self._faults.latency_max_s)
        refusal = _bad_call(headers) or self._passing_error() or self._lasting_error(place_id)
        if refusal:
            return _error(*refusal, delay_s=delay_s)
        mask = headers["x-goog-fieldmask"].split(",")
        place = _place(self._rows[place_id], website=f"{root}{SITES}{place_id}/")
        shown = place if "*" in mask else {name: place[name] for name in mask if name in place}
        return _json(HTTPStatus.OK, shown, delay_s=delay_s)

    def _passing_error(self) -> tuple[HTTPStatus, str, str] | None:
        cast = self._dice.random()
        if cast < self._faults.error_share:
            return HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error encountered."
        if cast < self._faults.error_share + self._faults.limited_share:
            return HTTPStatus.TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute."
        return None

    def _lasting_error(self, place_id: str) -> tuple[HTTPStatus, str, str] | None:
        """The same for a place each time."""
        lot, faults = zlib.crc32(place_id.encode()) / 2**32, self._faults
        if place_id not in self._rows or lot < faults.unknown_share:
            return HTTPStatus.NOT_FOUND, "NOT_FOUND", "The place ID is no longer valid."
        if lot < faults.unknown_share + faults.refused_share:
            return HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "The caller does not have permission."
        if lot < faults.unknown_share + 2 * faults.refused_share:
            return HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "Not a valid Place ID."
        return None


def _bad_call(headers: Mapping[str, str]) -> tuple[HTTPStatus, str, str] | None:
    if not headers.get("x-goog-api-key"):
        return HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "The request is missing a valid API key."
    if not headers.get("x-goog-fieldmask"):
        return HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "FieldMask is a required parameter."
    return None


def _error(status: HTTPStatus, name: str, message: str, *, delay_s: float) -> Answer:
    headers = {"Retry-After": "1"} if status == HTTPStatus.TOO_MANY_REQUESTS else {}
    error = {"code": status.value, "message": message, "status": name}
    return _json(status, {"error": error}, headers=headers, delay_s=delay_s)


def _json(
    status: HTTPStatus, body: object, *, headers: Mapping[str, str] | None = None, delay_s: float = 0.0
) -> Answer:
    encoded = json.dumps(body, ensure_ascii=False).encode()
    return Answer(status, encoded, "application/json; charset=UTF-8", headers or {}, delay_s)


def _place(row: PlaceRow, *, website: str) -> dict[str, object]:
    """A place in Google's words. What the data set does not know is made up from the place's id."""
    lot = zlib.crc32(row.external_id.encode())
    address = ", ".join(part for part in (row.name, row.city, row.region, row.country) if part)
    place: dict[str, object] = {
        "name": f"places/{row.external_id}",
        "id": row.external_id,
        "displayName": {"text": row.name or row.code, "languageCode": "en"},
        "formattedAddress": address,
        "location": {"latitude": row.latitude, "longitude": row.longitude},
        "nationalPhoneNumber": f"(555) {lot // 10_000 % 1_000:03}-{lot % 10_000:04}",
        "types": ["airport", "point_of_interest", "establishment"],
        "businessStatus": "CLOSED_TEMPORARILY" if lot % 50 == 0 else "OPERATIONAL",
        "rating": 3 + lot % 21 / 10,
    }
    # As in life, one in ten has no website; Google leaves such a field out.
    return place if lot % 10 == 0 else place | {"websiteUri": website}


async def run() -> None:
    """Serves until SIGTERM or SIGINT; prints the address once it listens."""
    api = PlaceApi({row.external_id: row for row in place_rows()}, faults=Faults(), seed=SEED)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await serve(api.answer)
    print(address_of(server), flush=True)  # noqa: T201 - the line that a starter waits for
    await stopped.wait()
    # Not waited for: clients keep their idle connections open, and some Pythons would wait for those.
    server.close()


if __name__ == "__main__":
    asyncio.run(run())
