"""The page on the clients for Python does what it says."""

from __future__ import annotations

from shared.registry import load_registry
from tests.docs.pages import ROOT, blocks
from tests.docs.system import PLACES, add_places, run_python, running_system

PAGE = ROOT / "docs" / "guide" / "client.md"
ADDRESS = "127.0.0.1:50051"


async def test_what_the_page_does_with_both_clients_works(database_url: str) -> None:
    printed: dict[str, list[str]] = {}
    await add_places(database_url)
    async with running_system(database_url, load_registry(), {}) as address:
        for block in blocks(PAGE, "python"):
            assert ADDRESS in block.text
            printed[block.title] = (await run_python("-c", block.text.replace(ADDRESS, address))).splitlines()
    scanned, failed = printed["scan.py"], printed["failed.py"]
    assert (scanned[0], scanned[-1]) == (f"{PLACES} queued", f"{PLACES} of {PLACES}")
    assert sum(" fail GOOGLE_PLACES_API_KEY is not set" in line for line in scanned) == PLACES
    assert sum(" GOOGLE_PLACES_API_KEY is not set" in line for line in failed) == len(failed) == PLACES
