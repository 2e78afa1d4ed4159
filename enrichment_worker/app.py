"""Puts a worker together: its parts in the order of their start, so that leaving them in reverse drains it.

Claimers stop first, runners end what is in flight, completers commit it, and only then is the session closed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from random import SystemRandom

import httpx

from enrichment_worker.bell import Bell
from enrichment_worker.canceller import Canceller
from enrichment_worker.claimer import Claimer
from enrichment_worker.completer import LOCK_S, Completer, FlushLimits
from enrichment_worker.http import http_client
from enrichment_worker.keys import Door, Keys
from enrichment_worker.lane import Lane
from enrichment_worker.listener import Listener
from enrichment_worker.numbers import worker_numbers
from enrichment_worker.pacer import Pacer
from enrichment_worker.pinned import Pinned
from enrichment_worker.reporter import Reporter
from enrichment_worker.rescuer import Rescuer
from enrichment_worker.runner import Grace, Runner
from enrichment_worker.session import Session
from enrichment_worker.settings import WorkerSettings
from enrichment_worker.switch import Switch
from enrichment_worker.teller import Teller
from enrichment_worker.upstream import Upstream
from shared.attempt import Bench, load_enricher
from shared.db.access import WORKER
from shared.db.engine import PLANNED_ONCE
from shared.db.readiness import DatabaseReady
from shared.lifecycle import Part, run_parts
from shared.metrics import metrics_parts
from shared.probe import Probe
from shared.registry import Registry
from shared.secrets import Secrets
from shared.table import transition_table
from shared.workflow import Workflow

log = logging.getLogger(__name__)

random = SystemRandom().random
ANSWER_S_MIN = 5.0
"""PostgreSQL gets so long for an answer at least; the longer a worker may be silent, the longer."""
THREADS_SPARE = 32
"""More threads of the event loop than attempts, which may each use one: names are looked up in them, too."""
FILES_SPARE = 32
"""More open files than attempts, which have a connection each: those to PostgreSQL, and some to look up names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the parts of a worker share, and what is closed after them."""

    claims: Pinned
    """For claims, which are planned once there."""
    errands: Pinned
    """For what is asked and said now and then, and for claims with something around them."""
    completions: Sequence[Pinned]
    pulse: Callable[[], Pinned]
    """Makes the connection of a session's pulse, which is not shared."""
    http: httpx.AsyncClient
    environment: Mapping[str, str]
    """What enrichers see as `context.settings`."""
    probe: Probe


async def run_worker(settings: WorkerSettings, registry: Registry, environment: Mapping[str, str]) -> None:
    """Runs a worker until it is told to stop.

    Raises:
        DatabaseUnavailable: there was no database in time.
        DatabaseUnfit: the database is too old, a standby, or not migrated.
        UnknownResource: the settings name a resource that no workflow has.
        WorkflowError: an enricher cannot be loaded.
        EnrichersStuck: too many enrichers do not end.
    """
    workflows = chosen(settings, registry)
    _heed_open_files(_concurrency(workflows))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_concurrency(workflows) + THREADS_SPARE))
    ready = DatabaseReady(
        url=settings.database_url,
        workflows=workflows,
        access=WORKER,
        timeout_s=settings.start_timeout_s,
    )
    async with AsyncExitStack() as stack:
        means = await open_means(stack, settings, workflows, environment, Probe())
        parts = worker_parts(settings, workflows, means)
        # What is loaded by now stays: collections that skip it cost a sixth less of a busy worker's time.
        gc.collect()
        gc.freeze()
        served = ", ".join(workflow.resource for workflow in workflows)
        await run_parts([ready, *parts], on_ready=f"worker ready, serving {served}")


def chosen(settings: WorkerSettings, registry: Registry) -> list[Workflow]:
    """The workflows that this worker serves."""
    return [registry[resource] for resource in settings.resources or sorted(registry)]


async def open_means(
    stack: AsyncExitStack,
    settings: WorkerSettings,
    workflows: Sequence[Workflow],
    environment: Mapping[str, str],
    probe: Probe,
) -> Means:
    """Opens what the parts share; the stack closes it. No connection is made yet."""

    def pinned(name: str, timeout_s: float = max(ANSWER_S_MIN, settings.expiry_s / 2), options: str = "") -> Pinned:
        return Pinned(
            settings.database_url,
            name=f"curation worker, {name}",
            random=random,
            timeout_s=timeout_s,
            prepare_threshold=settings.prepare_threshold,
            options=options,
        )

    http = http_client(connections_max=_concurrency(workflows), version=version("curation"))
    return Means(
        claims=await stack.enter_async_context(pinned("claiming", options=PLANNED_ONCE)),
        errands=await stack.enter_async_context(pinned("on errands")),
        completions=[
            await stack.enter_async_context(pinned("completing", options=f"-c lock_timeout={int(LOCK_S * 1000)}"))
            for _ in range(settings.commits_at_once)
        ],
        # A beat that hangs must leave time for another one.
        pulse=partial(pinned, "beating", max(ANSWER_S_MIN, settings.expiry_s / 4)),
        http=await stack.enter_async_context(http),
        environment=environment,
        probe=probe,
    )


def _concurrency(workflows: Sequence[Workflow]) -> int:
    """Attempts at once, of all workflows."""
    return sum(workflow.limits.concurrency for workflow in workflows)


def _heed_open_files(attempts: int) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < attempts + FILES_SPARE:
        log.warning(
            "%d attempts may run at once, but only %d files be open (ulimit -Hn): some may not reach their API",
            attempts,
            files,
        )


def worker_parts(settings: WorkerSettings, workflows: Sequence[Workflow], means: Means) -> list[Part]:
    """All parts of a worker, in the order of their start. Raises `WorkflowError`: an enricher cannot be loaded."""
    probe, errands = means.probe, means.errands
    news = Bell()
    upstreams = {workflow.api: Upstream(workflow.api, news=news) for workflow in workflows}
    lanes = [
        Lane(w, transition_table(w), ahead_max=_ahead_max(w, settings), upstream=upstreams[w.api]) for w in workflows
    ]
    flush = FlushLimits(size=settings.flush_size, age_s=settings.flush_age_s, progress_s=settings.progress_s)
    secrets = Secrets.of(means.environment)
    completers = [
        Completer(lane=lane, pinned=means.completions, secrets=secrets, limits=flush, probe=probe) for lane in lanes
    ]
    grace = Grace(settings.grace_s)
    keys = {
        api: Keys(
            api=api,
            limits=[lane.workflow.limits for lane in upstream.lanes],
            session=lambda: session.id,
            pinned=errands,
            probe=probe,
        )
        for api, upstream in upstreams.items()
    }
    limited_keys = [each for each in keys.values() if each.are_limited]
    runners = [
        Runner(lane=lane, bench=_bench(lane, means, keys[lane.workflow.api]), completer=c, grace=grace, probe=probe)
        for lane, c in zip(lanes, completers, strict=True)
    ]
    pacers = [Pacer(lane=lane, runner=r) for lane, r in zip(lanes, runners, strict=True) if lane.workflow.limits.rate]
    switch = Switch(lanes=lanes, runners=runners, pinned=errands, poll_s=settings.poll_s, random=random, probe=probe)
    canceller = Canceller(
        lanes=lanes, runners=runners, pinned=errands, poll_s=settings.poll_s, random=random, probe=probe
    )
    session = Session(
        lanes=lanes,
        pinned=errands,
        pulse_pinned=means.pulse,
        on_lost=canceller.ring,
        host=platform.node(),
        version=version("curation"),
        beat_s=settings.beat_s,
        expiry_s=settings.expiry_s,
        probe=probe,
    )
    return [
        *metrics_parts(worker_numbers(lanes, pacers, limited_keys), settings.metrics_listen),
        session,
        Rescuer(lanes=lanes, pinned=errands, expiry_s=settings.expiry_s, random=random, probe=probe),
        Listener(
            lanes=lanes,
            on_state=switch.ring,
            on_taken=canceller.ring,
            url=settings.direct_url,
            random=random,
            probe=probe,
        ),
        Reporter(upstreams=[*upstreams.values()], news=news, pinned=errands, random=random, probe=probe),
        *completers,
        *limited_keys,
        *runners,
        *pacers,
        switch,
        canceller,
        *(Teller(lane=lane, session=session, pinned=errands) for lane in lanes),
        *(_claimer(lane, r, session, settings, means) for lane, r in zip(lanes, runners, strict=True)),
    ]


def _claimer(lane: Lane, runner: Runner, session: Session, settings: WorkerSettings, means: Means) -> Claimer:
    return Claimer(
        lane=lane,
        session=session,
        pinned=means.claims,
        shared_pinned=means.errands,
        end_doubt=runner.end_doubt,
        poll_s=settings.poll_s,
        random=random,
        probe=means.probe,
    )


def _ahead_max(workflow: Workflow, settings: WorkerSettings) -> int:
    """How many items may wait in a lane: none under limits for all workers, of which they would keep a share idle."""
    limits = workflow.limits
    return settings.claim_ahead_max if limits.rate is None and limits.concurrency_total is None else 0


def _bench(lane: Lane, means: Means, keys: Keys) -> Bench:
    return Bench(
        gate=Door.of(keys, lane.workflow.limits) if keys.are_limited else None,
        enricher=load_enricher(lane.workflow),
        limits=lane.workflow.limits,
        api=lane.workflow.api,
        http=means.http,
        settings=means.environment,
        report=lane.report,
        random=random,
    )
