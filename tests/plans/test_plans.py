"""Hot statements find their rows by an index at a million rows, with statistics and without.

PostgreSQL itself tells the plan of each statement as it is run (`auto_explain`), so nothing is explained that is not
what runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import sql
from psycopg.errors import Diagnostic

from curation_service.fields import item_table
from curation_service.filters import compile_filter, to_driver_sql
from enrichment_worker.canceller import read_holds
from shared.db.attempts import read_underway
from shared.db.claim import SIZE_MAX, claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.curate_each import curate_each
from shared.db.engine import PLANNED_ONCE, Connection, Database, connect
from shared.db.failure_groups import list_failure_groups
from shared.db.finish import Result, finish
from shared.db.horizon import Horizon
from shared.db.in_hand import own_items
from shared.db.log import newest_position, read_history, read_log
from shared.db.look import Look
from shared.db.queue import count_ahead, count_queue
from shared.db.sessions import RESCUE_SIZE_MAX, rescue
from shared.db.tail import PLANS
from shared.machine import REQUEUE, curate_trigger
from shared.table import transition_table
from shared.workflow import Item
from tests.support.parcels import PARCELS
from tests.support.service import parcel_database

pytestmark = pytest.mark.untraced

ROWS = 1_000_000
UNDER_WAY = 2_000
TABLE = transition_table(PARCELS)
SCAN = curate_trigger("Scan")
Run = Callable[[Connection], Coroutine[Any, Any, object]]

FILL = """
INSERT INTO parcels (id, name, status, scan_status, scan_turn, scan_run_at, scan_worker, scan_failure, scan_batch)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'a parcel',
       CASE WHEN n %% 10 < 4 THEN 'Scan' ELSE 'New' END,
       CASE n %% 10 WHEN 0 THEN 'queued' WHEN 1 THEN CASE WHEN n <= 20000 THEN 'processing' END
                    WHEN 2 THEN 'completed' WHEN 3 THEN 'failed' END,
       CASE WHEN n %% 10 = 0 AND n %% 1000 > 0 THEN n END,
       CASE WHEN n %% 1000 = 0 THEN now() - interval '1 minute' END,
       CASE n %% 10 WHEN 1 THEN 1 END, CASE n %% 10 WHEN 3 THEN n %% 7 END, 1
FROM generate_series(1, %s) AS n
"""
CLAIMS = """
WITH claimed AS (
    INSERT INTO status_event (position, part, resource, kind, from_status, to_status, worker, items, versions, attempts)
    SELECT nextval('status_event_position'), 1, 'parcels', 'claim', 'Scan', 'Scan', 1, items, ARRAY[1], ARRAY[1]
    FROM (SELECT array_agg(id::text) AS items FROM parcels WHERE scan_status = 'processing'
          GROUP BY ascii(right(left(id::text, 36), 1)) % 4) c
    RETURNING position
)
INSERT INTO worker_claim (position, resource, session) SELECT position, 'parcels', 1 FROM claimed
"""
"""Of what is under way, in portions, by a worker that is gone."""


def key(n: int) -> UUID:
    return UUID(int=n)


def keys(ending: int, count: int) -> list[UUID]:
    """Spread over the table, those whose number ends in this digit; 1 are those under way, at its front."""
    step = (20_000 if ending == 1 else ROWS) // count // 10 * 10
    return [key(n * step + ending) for n in range(count)]


def claim_some(limit: int) -> Run:
    async def run(connection: Connection) -> object:
        return await claim(connection, PARCELS, TABLE, session=1, limit=limit, from_turn=5.0)

    return run


def planned_once(run: Run) -> Run:
    """As over the worker's connection for claims."""

    async def run_so(connection: Connection) -> object:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off")
        return await run(connection)

    return run_so


async def read_some_holds(connection: Connection) -> object:
    return await read_holds(connection, PARCELS, keys(1, 500))


async def rescue_some(connection: Connection) -> object:
    rescued = await rescue(connection, PARCELS, TABLE)
    assert rescued == RESCUE_SIZE_MAX
    return rescued


async def find_own(connection: Connection) -> object:
    own = await own_items(connection, PARCELS, 1)
    assert len(own) == UNDER_WAY
    return own


def finish_some(count: int, *, failed: int = 0) -> Run:
    async def run(connection: Connection) -> object:
        results = [Result(Item(k, 1, 1, {}), "complete", values={"code": str(k)}) for k in keys(1, count)]
        results[:failed] = [Result(r.item, "fail", error="not found") for r in results[:failed]]
        finished = await finish(connection, PARCELS, TABLE, results)
        assert finished.saved == count
        return finished

    return run


def new_batch() -> NewBatch:
    """Under a request_id of its own, as the service has them made."""
    return NewBatch(status="Scan", request_id=uuid4())


def curate_some(trigger: str, ending: int, count: int) -> Run:
    async def run(connection: Connection) -> object:
        call = CurateCall(trigger=trigger, keys=keys(ending, count), batch=new_batch(), allow_partial=True)
        curated = await curate(connection, PARCELS, TABLE, call)
        assert curated.changed == count
        return curated

    return run


async def validate_some(connection: Connection) -> object:
    call = CurateCall(trigger=SCAN, keys=keys(5, 1_000), batch=None, allow_partial=True)
    curated = await curate(connection, PARCELS, TABLE, call)
    assert (curated.changed, curated.position) == (1_000, None)
    return curated


def calls(keys: Sequence[UUID]) -> list[CurateCall]:
    return [CurateCall(trigger=SCAN, keys=[key], batch=new_batch(), allow_partial=True) for key in keys]


async def curate_each_of_some(connection: Connection) -> object:
    curated = await curate_each(connection, PARCELS, TABLE, calls(keys(5, 100)))
    assert None not in curated
    return curated


THESE = [key(n) for n in range(5, 1_005, 10)]


async def curate_these(connection: Connection) -> object:
    return await curate(connection, PARCELS, TABLE, replace(calls([key(5)])[0], keys=THESE))


async def curate_each_of_these(connection: Connection) -> object:
    return await curate_each(connection, PARCELS, TABLE, calls(THESE))


async def requeue_group(connection: Connection) -> object:
    where = sql.SQL("(s.scan_failure = 99 AND s.scan_run_at IS NULL)")
    return await curate(connection, PARCELS, TABLE, CurateCall(trigger=REQUEUE, where=where, batch=new_batch()))


async def count_all(connection: Connection) -> object:
    return await count_queue(connection, PARCELS)


async def count_before(connection: Connection) -> object:
    ahead = await count_ahead(connection, PARCELS, key(ROWS - 10), limit=10_001)
    assert ahead == 10_001
    return ahead


def list_groups(batch: int | None) -> Run:
    async def run(connection: Connection) -> object:
        return await list_failure_groups(connection, PARCELS, batch=batch, after=(200_000, 0), limit=50)

    return run


async def requeue_batch(connection: Connection) -> object:
    where = sql.SQL("(s.scan_failure IS NOT NULL AND s.scan_run_at IS NULL AND s.scan_batch = 99)")
    return await curate(connection, PARCELS, TABLE, CurateCall(trigger=REQUEUE, where=where, batch=new_batch()))


def list_some(filter_: str) -> Run:
    async def run(connection: Connection) -> object:
        where, parameters = to_driver_sql(compile_filter(filter_, item_table(PARCELS)))
        statement = sql.SQL("SELECT * FROM parcels s WHERE {} ORDER BY s.id LIMIT 51").format(where)
        rows = await (await connection.execute(statement, parameters)).fetchall()
        assert len(rows) == 51
        return rows

    return run


def count_some(filter_: str) -> Run:
    async def run(connection: Connection) -> object:
        where, parameters = to_driver_sql(compile_filter(filter_, item_table(PARCELS)))
        return await connection.execute(sql.SQL("SELECT count(*) FROM parcels s WHERE {}").format(where), parameters)

    return run


KEY, TURN, RUN_AT = "parcels_pkey", "ix_parcels_scan_turn", "ix_parcels_scan_run_at"
FAILURE = "ix_parcels_scan_failure"
STATEMENTS: dict[str, tuple[Run, set[str]]] = {
    "claim 500": (claim_some(500), {TURN, RUN_AT}),
    "claim 500, planned once": (planned_once(claim_some(500)), {TURN, RUN_AT, KEY}),
    "claim all that it may, planned once": (planned_once(claim_some(SIZE_MAX)), {TURN, RUN_AT, KEY}),
    "rescue": (rescue_some, {KEY}),
    "a worker's own": (find_own, {KEY}),
    "holds": (read_some_holds, {KEY}),
    "finish 1": (finish_some(1), {KEY}),
    "finish 500": (finish_some(500), {KEY}),
    "finish 500, some failed": (finish_some(500, failed=2), {KEY}),
    "curate 1": (curate_some(SCAN, 5, 1), {KEY, TURN}),
    "curate 1,000": (curate_some(SCAN, 5, 1_000), {KEY, TURN}),
    "validate 1,000": (validate_some, {KEY, TURN}),
    "curate each of 100": (curate_each_of_some, {KEY, TURN}),
    "requeue 1,000": (curate_some(REQUEUE, 3, 1_000), {KEY, TURN}),
    "count the queue": (count_all, {TURN, RUN_AT, KEY}),
    "count who is before an item": (count_before, {KEY, TURN, RUN_AT}),
    "list what is with workers": (list_some("queue_status = processing"), {KEY}),
    "count what is with workers": (count_some("queue_status = processing"), {KEY}),
    "list what waits": (list_some("queue_status = queued"), set()),
    "list groups": (list_groups(None), {FAILURE}),
    "list groups of a batch": (list_groups(1), {FAILURE}),
    "requeue a group": (requeue_group, {FAILURE, TURN}),
    "requeue what failed of a batch": (requeue_batch, {FAILURE, TURN}),
}
"""Each with the indexes that serve it."""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes, those below others too."""
    return [plan, *(node for below in plan.get("Plans", []) for node in nodes(below))]


LOG = """
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts, earlier,
                          steps, fractions)
SELECT nextval('status_event_position'), 1, 'parcels', CASE n % 2 WHEN 0 THEN 'claim' ELSE 'progress' END, 'Scan',
       'Scan',
       ARRAY['item ' || n / 2 % 1000], ARRAY[n], ARRAY[1], ARRAY[currval('status_event_position') - 2000],
       ARRAY['weighing'], ARRAY[0.5]
FROM generate_series(1, 200000) AS n
"""


BATCHES = """
INSERT INTO status_batch (resource, status, request_id, weight, requested, changed, queued)
SELECT 'parcels', 'Scan', gen_random_uuid(), 1, 1, 1, 1 FROM generate_series(1, 100000)
"""


async def read_some_history(connection: Connection) -> object:
    history = await read_history(connection, "item 0", last=await newest_position(connection), limit=50)
    assert len(history) == 50
    return history


async def read_some_underway(connection: Connection) -> object:
    last = await newest_position(connection)
    underway = await read_underway(connection, "item 999", 199_999, claim=last - 2)
    assert underway.step == "weighing"
    return underway


async def look_at_some(connection: Connection) -> object:
    after = await newest_position(connection) - 1_000
    look = Look(connection, Horizon())
    if not await (await connection.execute("SELECT 1 FROM pg_prepared_statements WHERE name = 'look'")).fetchone():
        await look.prepare()
    return await look.take(after=after, limit=250)


async def read_some_log(connection: Connection) -> object:
    newest = await newest_position(connection)
    return await read_log(connection, after=newest - 1_000, through=newest, limit=250)


async def explained(database: Database, run: Run) -> list[dict[str, Any]]:
    """Runs it, and gives the nodes of all its plans; nothing of it stays."""
    async with database.transaction() as connection:
        return await explained_on(connection, run)


async def explained_on(connection: Connection, run: Run) -> list[dict[str, Any]]:
    """The same over a connection that is in a transaction, and stays so."""
    found: list[dict[str, Any]] = []

    def on_notice(notice: Diagnostic) -> None:
        message = notice.message_primary or ""
        if "plan:" in message:
            found.extend(nodes(json.loads(message.partition("plan:")[2])["Plan"]))

    await connection.execute(
        "LOAD 'auto_explain'; SET LOCAL auto_explain.log_min_duration = 0;"
        "SET LOCAL auto_explain.log_format = json; SET LOCAL auto_explain.log_analyze = on;"
        "SET LOCAL client_min_messages = log",
        prepare=False,  # several statements
    )
    connection.add_notice_handler(on_notice)
    await run(connection)
    await connection.execute("SELECT")  # drops the portal of the statement before, which then tells its plan
    connection.remove_notice_handler(on_notice)
    await connection.execute("ROLLBACK AND CHAIN")
    assert found, "PostgreSQL told no plan"
    return found


@pytest.mark.timeout(240)
async def test_no_hot_statement_reads_the_whole_table(database_url: str) -> None:
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute("ALTER TABLE parcels SET (autovacuum_enabled = false)")
            await connection.execute(FILL, (ROWS,))
            await connection.execute(CLAIMS)
        for statistics in (False, True):
            if statistics:
                async with database.transaction() as connection:
                    await connection.execute("ANALYZE parcels")
            for name, (run, indexes) in STATEMENTS.items():
                plan = await explained(database, run)
                read = [node["Node Type"] for node in plan if node.get("Relation Name") == "parcels"]
                assert "Seq Scan" not in read, (name, f"statistics: {statistics}", read)
                assert indexes <= {node.get("Index Name") for node in plan}, (name, f"statistics: {statistics}")


@pytest.mark.parametrize("failed", [0, 1])
async def test_values_are_matched_with_what_has_changed_by_a_hash_however_many_there_are(
    database_url: str, failed: int
) -> None:
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute("ALTER TABLE parcels SET (autovacuum_enabled = false)")
            await connection.execute(FILL, (10 * UNDER_WAY,))
        for statistics in (False, True):
            if statistics:
                async with database.transaction() as connection:
                    await connection.execute("ANALYZE parcels")
            for count in (1, 10, 100, 500, 1_000, UNDER_WAY):
                plan = await explained(database, finish_some(count, failed=failed))
                [matched] = [node for node in plan if "SubPlan" in node.get("Filter", "")]
                assert "hashed SubPlan" in matched["Filter"], (count, f"statistics: {statistics}")


@pytest.mark.parametrize("limit", [1, 100, SIZE_MAX])
async def test_a_plan_for_claims_that_was_made_while_the_table_was_empty_reads_few_rows(
    database_url: str, limit: int
) -> None:
    run = claim_some(limit)
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute("ALTER TABLE parcels SET (autovacuum_enabled = false)")
        planner = await connect(database_url, name="plans once", options=PLANNED_ONCE)
        async with planner, planner.transaction():
            await run(planner)
            async with database.transaction() as connection:
                await connection.execute(FILL, (100_000,))
            plans = [await explained_on(planner, run)]
            async with database.transaction() as connection:
                await connection.execute("ANALYZE parcels")
            plans.append(await explained_on(planner, run))
    for plan in plans:
        read = [node for node in plan if node.get("Relation Name") == "parcels" and node["Node Type"] != "ModifyTable"]
        assert {node.get("Index Name") for node in read} == {KEY, TURN, RUN_AT}
        assert limit < sum(node["Actual Loops"] * node["Actual Rows"] for node in read) <= 3 * limit
        limits = [node for node in plan if node["Node Type"] == "Limit"]
        assert max(node["Plan Rows"] for node in limits) <= SIZE_MAX, "what the planner thinks of"


@pytest.mark.parametrize("run", [curate_these, curate_each_of_these])
async def test_updates_of_few_that_were_planned_for_an_empty_table_read_few_rows(database_url: str, run: Run) -> None:
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute("ALTER TABLE parcels SET (autovacuum_enabled = false)")
        planner = await connect(database_url, name="plans once", options=PLANNED_ONCE)
        planner.prepare_threshold = 0
        async with planner, planner.transaction():
            await run(planner)
            async with database.transaction() as connection:
                await connection.execute(FILL, (100_000,))
                await connection.execute(BATCHES)
            plan = await explained_on(planner, run)
    read = [node for node in plan if node.get("Relation Name") in ("parcels", "status_batch")]
    assert {KEY, "status_batch_request_id_key"} <= {node.get("Index Name") for node in read}
    for node in read:
        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= len(THESE), node


@pytest.mark.parametrize("run", [read_some_history, read_some_underway])
async def test_what_is_said_of_one_item_reads_little_of_the_log(database_url: str, run: Run) -> None:
    async with parcel_database(database_url) as database:
        async with database.transaction() as connection:
            await connection.execute(LOG)
        for statistics in (False, True):
            if statistics:
                async with database.transaction() as connection:
                    await connection.execute("ANALYZE status_event")
            plan = await explained(database, run)
            read = [node for node in plan if node.get("Relation Name", "").startswith("status_event_")]
            assert read, "of the log's partitions"
            looked_at = sum(
                node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in read
            )
            assert looked_at <= 1_000, f"statistics: {statistics}"


@pytest.mark.parametrize("run", [look_at_some, read_some_log])
async def test_a_tail_whose_plans_were_made_for_an_empty_log_reads_little_more_of_it_than_it_returns(
    database_url: str, run: Run
) -> None:
    async with parcel_database(database_url) as database:
        planner = await connect(database_url, name="tail", options=PLANS)
        async with planner, planner.transaction():
            await run(planner)
            async with database.transaction() as connection:
                await connection.execute(LOG)
            plans = [await explained_on(planner, run)]
            async with database.transaction() as connection:
                await connection.execute("ANALYZE status_event")
            plans.append(await explained_on(planner, run))
    for plan in plans:
        [cut] = [node for node in plan if node["Node Type"] == "Limit" and node["Actual Rows"] == 250]
        read = [node for node in nodes(cut) if node.get("Relation Name", "").startswith("status_event_")]
        assert (
            sum(node["Actual Loops"] * node["Actual Rows"] for node in read) <= 250 + 2
        )  # who looks whether more is of the last transaction
