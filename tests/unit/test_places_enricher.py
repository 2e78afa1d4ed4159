"""The enricher of places, against the demo's place API on a real socket."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
import pytest

from curation_cli.data import PlaceRow, place_rows
from curation_cli.http_server import Answer, address_of, serve
from curation_cli.place_api import Faults, PlaceApi
from shared.testing import EnricherRun, item, run_enricher
from workflows.local_businesses.models import local_businesses
from workflows.places import workflow

QUIET = Faults(unknown_share=0, refused_share=0, error_share=0, limited_share=0, latency_min_s=0, latency_max_s=0)
KEY = "s3cret-key"


@pytest.fixture(scope="module")
def rows() -> Mapping[str, PlaceRow]:
    return {row.external_id: row for row in place_rows()}


@pytest.fixture(scope="module")
def place(rows: Mapping[str, PlaceRow]) -> PlaceRow:
    """A place that the server gives a website."""
    return next(row for row in rows.values() if zlib.crc32(row.external_id.encode()) % 10)


@asynccontextmanager
async def place_api(rows: Mapping[str, PlaceRow], **faults: float) -> AsyncIterator[str]:
    quiet = {name: getattr(QUIET, name) for name in Faults.__slots__}
    server = await serve(PlaceApi(rows, faults=Faults(**quiet | faults), seed=1).answer)
    yield address_of(server)
    server.close()


async def enrich(url: str, place_id: str, *, key: str = KEY) -> EnricherRun:
    settings = {"GOOGLE_PLACES_URL": url, "GOOGLE_PLACES_API_KEY": key}
    return await run_enricher(workflow, item("5f3b", external_id=place_id), settings=settings)


async def test_details_of_a_place_are_mapped_onto_columns_of_the_target(
    rows: Mapping[str, PlaceRow], place: PlaceRow
) -> None:
    async with place_api(rows) as url:
        run = await enrich(url, place.external_id)
    assert run.outcome.trigger == "complete"
    values = dict(run.outcome.values or {})
    assert set(values) <= {column.name for column in local_businesses.columns}
    assert values["place_id"] == place.external_id
    assert values["name"] == place.name
    assert (values["latitude"], values["longitude"]) == (place.latitude, place.longitude)
    assert values["address"].endswith(place.country)
    assert values["website"] == f"{url}/site/{place.external_id}/"
    assert values["types"] == ["airport", "point_of_interest", "establishment"]
    assert values["business_status"] in ("OPERATIONAL", "CLOSED_TEMPORARILY")
    assert 3 <= values["rating"] <= 5
    assert values["phone"].startswith("(555)")


async def test_google_is_asked_for_what_is_mapped_alone_with_the_key_of_the_environment() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"id": "ChIJ/1"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await run_enricher(workflow, item(external_id="ChIJ/1"), http=http, settings={"GOOGLE_PLACES_API_KEY": KEY})
    (request,) = asked
    assert (request.method, str(request.url)) == ("GET", "https://places.googleapis.com/v1/places/ChIJ%2F1")
    assert request.headers["X-Goog-Api-Key"] == KEY
    assert request.headers["X-Goog-FieldMask"] == (
        "id,displayName,formattedAddress,location,websiteUri,nationalPhoneNumber,types,businessStatus,rating"
    )


async def test_what_google_leaves_out_becomes_null() -> None:
    async with answering(Answer(HTTPStatus.OK, b'{"id": "x"}')) as url:
        run = await enrich(url, "x")
    assert run.outcome.values == {
        "place_id": "x",
        "name": None,
        "address": None,
        "latitude": None,
        "longitude": None,
        "website": None,
        "phone": None,
        "types": [],
        "business_status": None,
        "rating": None,
    }


async def test_an_unknown_place_is_nothing_found(rows: Mapping[str, PlaceRow], place: PlaceRow) -> None:
    async with place_api(rows, unknown_share=1.0) as url:
        run = await enrich(url, place.external_id)
    assert run.outcome.trigger == "find_nothing"


@pytest.mark.parametrize(("fault", "words"), [("error_share", "500"), ("limited_share", "429")])
async def test_a_passing_error_is_retried(
    rows: Mapping[str, PlaceRow], place: PlaceRow, fault: str, words: str
) -> None:
    async with place_api(rows, **{fault: 1.0}) as url:
        run = await enrich(url, place.external_id)
    assert run.outcome.trigger == "retry"
    assert words in (run.outcome.error or "")


async def test_a_rate_limit_is_waited_for_as_long_as_the_api_asks(
    rows: Mapping[str, PlaceRow], place: PlaceRow
) -> None:
    async with place_api(rows, limited_share=1.0) as url:
        run = await enrich(url, place.external_id)
    assert run.outcome.delay_s >= 1.0


async def test_a_refused_key_fails_for_good_and_names_the_setting_to_check() -> None:
    async with answering(Answer(HTTPStatus.FORBIDDEN, b"")) as url:
        run = await enrich(url, "x")
    assert run.outcome.trigger == "fail"
    assert "GOOGLE_PLACES_API_KEY" in (run.outcome.error or "")


@pytest.mark.parametrize(
    ("key", "why"),
    [("", "is not set"), (" \n", "is not set"), ("s3cret-k\ney", "correct it"), ("s3cret-këy", "correct it")],
)
async def test_without_a_key_google_is_not_asked(key: str, why: str) -> None:
    run = await enrich("http://127.0.0.1:9", "x", key=key)
    error = run.outcome.error or ""
    assert run.outcome.trigger == "fail"
    assert "GOOGLE_PLACES_API_KEY" in error
    assert why in error
    assert "s3cret" not in error


async def test_blanks_and_line_ends_around_a_key_are_not_part_of_it(
    rows: Mapping[str, PlaceRow], place: PlaceRow
) -> None:
    async with place_api(rows) as url:
        run = await enrich(url, place.external_id, key=f" {KEY}\r\n")
    assert run.outcome.trigger == "complete"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
async def test_the_key_is_in_no_error(status: int) -> None:
    echo = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    async with answering(Answer(HTTPStatus(status), echo)) as url:
        run = await enrich(url, "x")
    assert run.outcome.trigger != "complete"
    assert KEY not in (run.outcome.error or "")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
async def test_an_answer_that_is_no_place_fails_for_good(body: bytes) -> None:
    async with answering(Answer(HTTPStatus.OK, body)) as url:
        run = await enrich(url, "x")
    assert run.outcome.trigger == "fail"
    assert "no place" in (run.outcome.error or "")


async def test_a_place_id_cannot_lead_to_another_endpoint() -> None:
    seen: list[str] = []

    def answer(path: str, _: Mapping[str, str]) -> Answer:
        seen.append(path)
        return Answer(HTTPStatus.NOT_FOUND, b"")

    server = await serve(answer)
    await enrich(address_of(server), "../admin?x=1#y")
    server.close()
    assert seen == ["/v1/places/..%2Fadmin%3Fx%3D1%23y"]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    server = await serve(lambda _, __: answer)
    yield address_of(server)
    server.close()
