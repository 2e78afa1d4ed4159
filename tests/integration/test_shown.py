"""Names, reasons and errors that others wrote are printed as they are, a line each, and do nothing to the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from curation_cli.curate import list_items
from curation_cli.failures import print_failures, print_why
from curation_cli.operate import change_state, print_workers, print_workflows
from curation_cli.watch import watch
from curation_client.aio import CurationClient
from shared.db.claim import claim
from shared.db.finish import Result, finish
from shared.db.sessions import open_session
from shared.failure import Failure
from shared.table import transition_table
from tests.support.batches import parcel_id
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, add_parcels

FOREIGN = "see [/x] [red] :boom: \x1b[K\u202e\na forged line"  # without a digit: groups of failures have none
SHOWN = "see [/x] [red] :boom:  [K  a forged line"
PARCEL = parcel_id(1)


async def test_what_others_wrote_is_shown_in_a_line_and_not_acted_on(service: RunningService) -> None:
    await add_parcels(service.database, {"name": FOREIGN})
    console = Console(file=io.StringIO(), width=300, force_terminal=True, no_color=True)
    assert isinstance(console.file, io.StringIO)
    async with CurationClient(service.address) as client:
        batch = (await client.set_status("parcels", "Scan", ids=[PARCEL])).batch.batch_id
        async with service.database.transaction() as connection:
            session = await open_session(connection, host=FOREIGN, version="1", resources=["parcels"])
            (item,) = (await claim(connection, PARCELS, transition_table(PARCELS), session=session, limit=1)).items
            result = Result(item, "fail", error=FOREIGN, failure=Failure.of("api", "HTTP 400", FOREIGN))
            assert (await finish(connection, PARCELS, transition_table(PARCELS), [result])).dropped == 0
        await change_state(client, console, command="pause", resource="parcels", reason=FOREIGN)
        await print_workflows(client, console)
        await print_workers(client, console, resource="", with_ended=False)
        await list_items(client, console, resource="parcels", matching="", count=1)
        await print_failures(client, console, resource="parcels", batch_id="", count=1)
        await print_why(client, console, resource="parcels", key=PARCEL)
        await watch(client, console, resource="parcels", batch_id=batch, matching="")
    printed = console.file.getvalue()
    # The pause, workflows, workers (host and pause), the list (name and error), failures, why, and the watch.
    assert printed.count(SHOWN) == 9, printed
    assert "\x1b[K" not in printed
    assert not [line for line in printed.splitlines() if line.startswith("a forged line")]
