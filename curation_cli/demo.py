"""A curator's morning in a minute: places come in, some are selected, many are enriched, and their websites are read.

It can be run again on the same data: it takes places that nobody has touched yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import psycopg
from rich.console import Console

from curation.v1 import curation_pb2 as pb
from curation_cli.curate import first_items
from curation_cli.data import import_places, place_count
from curation_cli.follow import follow_batch, print_summary
from curation_cli.processes import Child
from curation_cli.show import describe_error, print_lines, print_table, progress_bar
from curation_cli.up import Running, Setup, started
from curation_client.aio import CurationClient

PLACES_QUEUED = 1_500
WEBSITES_QUEUED = 50
COUNTRY_PLACES_MIN = 20
"""So many untouched places make a country worth a batch by filter."""
ROWS_SHOWN = 5
DEMO_TIMEOUT_S = 600.0
"""It takes less than a minute; where it hangs, it ends by this."""
ACTOR = "demo curator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What the steps of the demo share."""

    console: Console
    """Where it is shown."""
    client: CurationClient
    """The client of the service."""
    database_url: str
    """For what curators cannot ask the service: the import, and a look at the websites."""
    place_api: str
    """The URL of the demo's place API."""

    async def run(self) -> None:
        """All steps."""
        await self.bring_places_in()
        await self.select_a_country()
        await self.be_refused()
        await self.enrich_places()
        await self.read_websites()

    async def bring_places_in(self) -> None:
        """The import, and what there is after it."""
        total = await asyncio.to_thread(place_count)
        with progress_bar(self.console, "Importing places", total) as bar:
            added = await asyncio.to_thread(import_places, self.database_url, on_progress=bar)
        self.console.print(f"{total:,} places imported, {added:,} of them new.", highlight=False)

    async def select_a_country(self) -> None:
        """A status that triggers nothing, on all places that match a filter."""
        for country in ("DE", "FR", "GB", "IT", "ES", "CH", "AT", "PT", "SE", "CA", "US"):
            matching = f'status = "New" AND country = "{country}"'
            counts = await self.client.count_items("places", matching)
            if sum(count.count for count in counts.counts) >= COUNTRY_PLACES_MIN:
                break
        else:
            self._say("No country has enough new places left to select.")
            return
        answer = await self.client.set_status("places", "Selected", filter=matching, actor=ACTOR, reason="a good fit")
        self._say(f"Set 'Selected' by filter ({matching}): {answer.batch.changed_count:,} places, nothing queued.")

    async def be_refused(self) -> None:
        """One archived place among others refuses the whole batch, and nothing is changed."""
        ids = await self._ids("places", 'status = "New"', 3)
        if not ids:
            return
        await self.client.set_status("places", "Archived", ids=ids[:1], actor=ACTOR)
        try:
            await self.client.set_status("places", "SelectedForDeepScan", ids=ids, actor=ACTOR)
        except grpc.RpcError as error:
            self._say("Refused, as it should be, because one of the places is archived:")
            print_lines(self.console, *(f"  {line}" for line in describe_error(error).split("\n")))

    async def enrich_places(self) -> None:
        """The trigger status on many places by id; then the batch is watched to its end."""
        ids = await self._ids("places", 'status = "Selected"', PLACES_QUEUED)
        ids += await self._ids("places", 'status = "New"', PLACES_QUEUED - len(ids))
        if not ids:
            self._say("Every place was enriched before: use another --data folder to see it again.")
            return
        await self._enrich("places", "SelectedForDeepScan", ids, "Deep scan of places")
        request = pb.ListItemsRequest(resource="local_businesses", order_by="id desc")
        newest = await first_items(self.client, request, ROWS_SHOWN)
        rows = [[item.data[name] for name in ("name", "address", "phone", "rating")] for item in newest]
        print_table(self.console, "Local businesses, the newest", ("name", "address", "phone", "rating"), rows)

    async def read_websites(self) -> None:
        """The second workflow, on what the first one found."""
        # Those of an earlier demo are at a port where nobody listens any more.
        host = self.place_api.removeprefix("http://")
        ids = await self._ids("local_businesses", f'status = "Fresh" AND website:"{host}"', WEBSITES_QUEUED)
        if not ids:
            return
        await self._enrich("local_businesses", "ReadWebsite", ids, "Websites of local businesses")
        rows = await asyncio.to_thread(_newest_websites, self.database_url)
        print_table(self.console, "Websites, the newest", ("title", "emails", "links", "description"), rows)

    async def _enrich(self, resource: str, status: str, ids: Sequence[str], title: str) -> None:
        answer = await self.client.set_status(resource, status, ids=ids, actor=ACTOR, reason="demo")
        queued = answer.batch.queued_count
        self._say(f"Set '{status}' on {len(ids):,} ids: {queued:,} queued by the same transaction. Watching:")
        tally = await follow_batch(self.client, self.console, title=title, resource=resource, answer=answer)
        print_summary(self.console, title=title, queued=queued, tally=tally)

    async def _ids(self, resource: str, matching: str, count: int) -> list[str]:
        request = pb.ListItemsRequest(resource=resource, filter=matching)
        return [item.id for item in await first_items(self.client, request, count)]

    def _say(self, text: str) -> None:
        print_lines(self.console, "", text)


@asynccontextmanager
async def demo_started(setup: Setup) -> AsyncIterator[tuple[Running, str]]:
    """Everything, and the demo's own place API for the worker to call, with its URL."""
    api = Child(
        "curation_cli.place_api", environment=setup.environment, log=setup.folder / "logs" / "api.log", ready="http://"
    )
    async with api:
        environment = {
            **setup.environment,
            "GOOGLE_PLACES_URL": api.ready_line,
            "GOOGLE_PLACES_API_KEY": "demo",
            "WEBSITE_ALLOWED_NETWORKS": "127.0.0.0/8",
        }
        async with started(Setup(folder=setup.folder, port=setup.port, environment=environment)) as running:
            yield running, api.ready_line


async def run_demo(console: Console, running: Running, place_api: str) -> None:
    """The demo; raises `ChildFailed` when a process dies meanwhile, and `TimeoutError` when it does not end."""
    async with asyncio.timeout(DEMO_TIMEOUT_S), CurationClient(running.address) as client:
        demo = Demo(console=console, client=client, database_url=running.database_url, place_api=place_api)
        steps = asyncio.create_task(demo.run())
        died = asyncio.create_task(running.first_end())
        try:
            await asyncio.wait({steps, died}, return_when=asyncio.FIRST_COMPLETED)
            if not steps.done():
                raise died.result()
            steps.result()
        finally:
            for task in (steps, died):
                task.cancel()
            await asyncio.wait({steps, died})


WEBSITES = (
    "SELECT title, emails, jsonb_array_length(sitemap_links), description FROM websites ORDER BY id DESC LIMIT %s"
)


def _newest_websites(url: str) -> list[tuple[object, ...]]:
    """Read from the table: websites are a result only, no resource of the service."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(WEBSITES, [ROWS_SHOWN]).fetchall()
    return [(title, ", ".join(emails), links, description) for title, emails, links, description in rows]
