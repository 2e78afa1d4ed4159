"""Looks one place up at the details endpoint of Google Places API (New) and maps it onto a local business.

The key travels in a header, so no address holds it; and no error here quotes a header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from shared.enrichment import Failed
from shared.workflow import EnrichmentContext, Item, Values

DEFAULT_URL = "https://places.googleapis.com"
FIELDS = (
    "id",
    "displayName",
    "formattedAddress",
    "location",
    "websiteUri",
    "nationalPhoneNumber",
    "types",
    "businessStatus",
    "rating",
)
"""Google bills by the fields asked for: no more than are mapped."""


async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
    """The details of the place, or None where Google knows no such place.

    Raises:
        Failed: there is no key, it or the place id was refused, or the answer cannot be read.
        httpx.HTTPStatusError: any other status that is no success; the worker decides on another try.
    """
    place_id = item.data["external_id"]
    base = context.settings.get("GOOGLE_PLACES_URL", DEFAULT_URL).rstrip("/")
    response = await context.http.get(
        f"{base}/v1/places/{quote(place_id, safe='')}",
        headers={
            "X-Goog-FieldMask": ",".join(FIELDS),
            "X-Goog-Api-Key": _key(context.settings),
        },
    )
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    _refuse(response)
    return _values(place_id, response)


def _key(settings: Mapping[str, str]) -> str:
    key = settings.get("GOOGLE_PLACES_API_KEY", "").strip()
    if not key:
        raise Failed("GOOGLE_PLACES_API_KEY is not set: set it in the environment of the worker")
    if not (key.isascii() and key.isprintable()):
        raise Failed("GOOGLE_PLACES_API_KEY holds characters that no key has: correct it")
    return key


def _refuse(response: httpx.Response) -> None:
    """Raises for every status but a success; in a curator's words where another try cannot help."""
    match response.status_code:
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            raise Failed("Google Places refused access to this place: check GOOGLE_PLACES_API_KEY and what it may read")
        case httpx.codes.BAD_REQUEST:
            raise Failed("Google Places says that the place id is not valid: correct the place's external_id")
        case _:
            response.raise_for_status()


def _values(place_id: str, response: httpx.Response) -> Values:
    """A local business's columns from the answer. `place_id` stays the one asked for, though Google may rename it."""
    place = _object(response)
    location = _part(place, "location")
    return {
        "place_id": place_id,
        "name": _part(place, "displayName").get("text"),
        "address": place.get("formattedAddress"),
        "latitude": location.get("latitude"),
        "longitude": location.get("longitude"),
        "website": place.get("websiteUri"),
        "phone": place.get("nationalPhoneNumber"),
        "types": place.get("types", []),
        "business_status": place.get("businessStatus"),
        "rating": place.get("rating"),
    }


def _object(response: httpx.Response) -> Mapping[str, Any]:
    try:
        place = response.json()
    except ValueError:
        place = None
    if not isinstance(place, dict):
        raise Failed("Google Places answered with something that is no place: check GOOGLE_PLACES_URL")
    return place


def _part(place: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A nested object of the answer; empty where it is missing, as Google leaves out what it does not know."""
    part = place.get(name)
    return part if isinstance(part, dict) else {}
