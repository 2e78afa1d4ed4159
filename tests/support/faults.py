"""What goes wrong in a run, each way by its name: it is caused, lasts a moment, and is taken back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from tests.support.proxy import Direction
from tests.support.replicas import Replica, Replicas

S = TypeVar("S")
V = TypeVar("V")
Fault: TypeAlias = Callable[[S, V, random.Random], Awaitable[None]]
"""Done to one of a site; what it does is over when it returns."""
ReplicaFault: TypeAlias = Fault[Replicas, Replica]


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


async def clients_cut(_: Replicas, replica: Replica, __: random.Random) -> None:
    replica.front.cut()


async def clients_cut_amid_an_answer(_: Replicas, replica: Replica, dice: random.Random) -> None:
    replica.front.cut_after(dice.randrange(1, 20_000))


async def clients_stalled(_: Replicas, replica: Replica, dice: random.Random) -> None:
    replica.front.stall(*dice.choice(((), (Direction.ANSWERS,), (Direction.REQUESTS,))))
    await moment(dice)
    replica.front.resume()


async def clients_refused(_: Replicas, replica: Replica, dice: random.Random) -> None:
    replica.front.refuse()
    await moment(dice)
    await replica.front.accept()


async def database_cut(_: Replicas, replica: Replica, __: random.Random) -> None:
    replica.back.cut()


async def database_stalled(_: Replicas, replica: Replica, dice: random.Random) -> None:
    replica.back.stall(*dice.choice(((), (Direction.ANSWERS,), (Direction.REQUESTS,))))
    await moment(dice)
    replica.back.resume()


async def database_refused(_: Replicas, replica: Replica, dice: random.Random) -> None:
    replica.back.refuse()
    await moment(dice)
    await replica.back.accept()


PROCESS_FAULTS: Mapping[str, ReplicaFault] = {
    "service killed (-9)": service_killed,
    "service stopped in order": service_stopped,
    "PostgreSQL killed (-9)": postgres_killed,
    "PostgreSQL restarted": postgres_restarted,
}
NETWORK_FAULTS: Mapping[str, ReplicaFault] = {
    "clients cut": clients_cut,
    "clients cut amid an answer": clients_cut_amid_an_answer,
    "clients stalled": clients_stalled,
    "clients refused": clients_refused,
    "database connections cut": database_cut,
    "database connections stalled": database_stalled,
    "database connections refused": database_refused,
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


async def moment(dice: random.Random) -> None:
    await asyncio.sleep(dice.uniform(0.1, 1.5))
