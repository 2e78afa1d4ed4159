"""`docker-compose.yml` as it is: the images are built, everything starts in order, an item goes all the way."""

from __future__ import annotations

import os
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from curation.v1 import curation_pb2 as pb
from curation_client.aio import CurationClient
from curation_client.watch import Update
from shared.db.embedded_settings import server_settings
from tests.docs.pages import ROOT
from tests.support.eventually import eventually_async
from tests.support.ports import free_port

BUILD_TIMEOUT_S = 1_500
READY_TIMEOUT_S = 120
BUSINESS = "INSERT INTO local_businesses (place_id, name) VALUES ('a', 'without a website') RETURNING id"

Compose = Callable[..., str]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def compose(request: pytest.FixtureRequest, port: int) -> Iterator[Compose]:
    """Calls compose for a project of this test's own, which is taken down at the end."""
    command = [*shlex.split(request.config.getoption("--compose")), "--project-name", f"curation{uuid.uuid4().hex[:8]}"]
    environment = {**os.environ, "CURATION_PORT": str(port)}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=True,
        )
        return done.stdout

    yield call
    call("down", "--volumes", "--remove-orphans")


@pytest.mark.timeout(2 * BUILD_TIMEOUT_S)
async def test_everything_starts_in_containers_and_an_item_goes_all_the_way(compose: Compose, port: int) -> None:
    compose("up", "--build", "--detach")
    async with CurationClient(f"127.0.0.1:{port}") as client:

        async def served() -> bool:
            workers = (await client.list_workers(pb.ListWorkersRequest(resource="local_businesses"))).workers
            return [worker.state for worker in workers] == [pb.WORKER_STATE_ALIVE]

        await eventually_async(served, within_s=READY_TIMEOUT_S)
        psql = ("exec", "-T", "postgres", "psql", "--username=curation", "--quiet", "--tuples-only", "--no-align")
        for name in ("autovacuum_naptime", "max_wal_size"):
            assert compose(*psql, f"--command=SHOW {name}").strip() == server_settings()[name]
        key = compose(*psql, f"--command={BUSINESS}").strip()
        answer = await client.set_status("local_businesses", "ReadWebsite", ids=[key], actor="test")
        watching = client.watch(
            "local_businesses",
            batch_id=answer.batch.batch_id,
            resume_token=answer.resume_token,
            end_when_done=True,
        )
        kinds = [event.kind async for update in watching for event in events_of(update)]
    assert kinds[0] == "claim"
    assert kinds[-1] == "find_nothing"
    compose("stop")
    assert "Traceback" not in compose("logs")


def events_of(update: Update) -> Sequence[pb.StatusEvent]:
    return update.part.events if isinstance(update.part, pb.StatusEvents) else ()
