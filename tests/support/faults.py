"""What goes wrong in a run, each way by its name: it is caused, lasts a moment, and is taken back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from tests.support.proxy import Direction, Proxy
from tests.support.replicas import Replica, Replicas

S = TypeVar("S")
V = TypeVar("V")
Fault: TypeAlias = Callable[[S, V, random.Random], Awaitable[None]]
"""Done to one of a site; what it does is over when it returns."""
ReplicaFault: TypeAlias = Fault[Replicas, Replica]
STALLS: Sequence[Sequence[Direction]] = ((), (Direction.ANSWERS,), (Direction.REQUESTS,))
"""Directions; none is both."""


async def service_killed(site: Replicas, replica: Replica, dice: random.Random) -> None:
    await site.kill(replica)
    await moment(dice)
    await site.start(replica)


async def service_stopped(site: Replicas, replica: Replica, dice: random.Random) -> None:
    await site.stop(replica)
    await moment(dice)
    await site.start(replica)


async def postgres_killed(site: Replicas, _: Replica, dice: random.Random) -> None:
    await site.kill_postgres()
    await moment(dice)
    await site.start_postgres()


async def postgres_restarted(site: Replicas, _: Replica, dice: random.Random) -> None:
    await site.stop_postgres()
    await moment(dice)
    await site.start_postgres()


ProxyOf: TypeAlias = Callable[[S, V], Proxy]
"""Which of the proxies a fault is of."""


def cut(proxy_of: ProxyOf[S, V]) -> Fault[S, V]:
    """Connections are cut."""

    async def fault(site: S, victim: V, _: random.Random) -> None:
        proxy_of(site, victim).cut()

    return fault


def cut_amid_an_answer(proxy_of: ProxyOf[S, V], bytes_max: int) -> Fault[S, V]:
    """Connections are cut after so many bytes of answers, or fewer."""

    async def fault(site: S, victim: V, dice: random.Random) -> None:
        proxy_of(site, victim).cut_after(dice.randrange(1, bytes_max))

    return fault


def stalled(
    proxy_of: ProxyOf[S, V], ways: Sequence[Sequence[Direction]] = STALLS, *, for_s: float = 1.5
) -> Fault[S, V]:
    """Connections let nothing through for a moment, in one or both directions."""

    async def fault(site: S, victim: V, dice: random.Random) -> None:
        proxy = proxy_of(site, victim)
        proxy.stall(*dice.choice(ways))
        await moment(dice, for_s)
        proxy.resume()

    return fault


def refused(proxy_of: ProxyOf[S, V]) -> Fault[S, V]:
    """Connections are cut, and refused for a moment."""

    async def fault(site: S, victim: V, dice: random.Random) -> None:
        proxy = proxy_of(site, victim)
        proxy.refuse()
        await moment(dice)
        await proxy.accept()

    return fault


def _front(_: Replicas, replica: Replica) -> Proxy:
    return replica.front


def _back(_: Replicas, replica: Replica) -> Proxy:
    return replica.back


PROCESS_FAULTS: Mapping[str, ReplicaFault] = {
    "service killed (-9)": service_killed,
    "service stopped in order": service_stopped,
    "PostgreSQL killed (-9)": postgres_killed,
    "PostgreSQL restarted": postgres_restarted,
}
NETWORK_FAULTS: Mapping[str, ReplicaFault] = {
    "clients cut": cut(_front),
    "clients cut amid an answer": cut_amid_an_answer(_front, 20_000),
    "clients stalled": stalled(_front),
    "clients refused": refused(_front),
    "database connections cut": cut(_back),
    "database connections stalled": stalled(_back),
    "database connections refused": refused(_back),
}


async def misbehave(
    site: S,
    victims: Sequence[V],
    faults: Mapping[str, Fault[S, V]],
    counts: Counter[str],
    *,
    seed: int,
    pause_s: float,
    going: Callable[[], bool],
) -> None:
    """One fault after another, each kind in its turn in an order of chance, for as long as it is going."""
    dice = random.Random(seed)
    while going():
        for name in dice.sample(sorted(faults), len(faults)):
            if going():
                await faults[name](site, dice.choice(victims), dice)
                counts[name] += 1
                await asyncio.sleep(dice.uniform(0.5, 1.5) * pause_s)


async def moment(dice: random.Random, seconds_max: float = 1.5) -> None:
    await asyncio.sleep(dice.uniform(0.1, seconds_max))
