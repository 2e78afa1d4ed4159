"""A drain beside those of other queues, in one run, by turns, on one PostgreSQL.

`python -m benchmarks.against_peers [--items 100000] [--rounds 9]`. No-op jobs of graphile-worker and pgqueuer beside
our whole job; then the whole job written in a handler of each queue in Python: status row, upsert, status row. Peers
are installed into `.cache/peers`; those that cannot be are left out. Slow ones get fewer items, and those that are far
behind fewer rounds: from one to the next a rate differs by a fifth.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from statistics import median

from benchmarks.bed import database
from benchmarks.drain import drain
from benchmarks.peer_runs import PeerMissing, Peers, install
from benchmarks.report import at_least, doing, table


@dataclass(frozen=True, slots=True)
class Rival:
    """One peer at one kind of work."""

    name: str
    script: str
    mode: str
    share: float
    """Of our items, so that it takes as long."""
    goal: float
    """So many times its rate is ours to be."""
    every: int = 3
    """It takes part in one round of so many."""


RIVALS = (
    Rival("graphile-worker, no-op", "graphile.mjs", "drain", 1.0, 1.0, every=1),
    Rival("pgqueuer, no-op", "pgqueuer_peer.py", "noop", 0.5, 1.5),
    Rival("pgqueuer, whole job", "pgqueuer_peer.py", "job", 0.05, 10.0),
    Rival("Oban for Python, whole job", "oban_peer.py", "job", 0.04, 10.0),
    Rival("DBOS, whole job", "dbos_peer.py", "job", 0.02, 10.0),
)


async def main(items: int, rounds: int) -> None:
    """Prints the table."""
    peers = await install()
    ours: list[float] = []
    theirs: dict[str, dict[int, float]] = {}
    """By the number of the round."""
    async with database(durable=True) as url:
        for number in range(rounds):
            ours.append((await drain(url, items)).per_s)
            for rival in RIVALS:
                if number % rival.every == 0:
                    await _measure(peers, url, rival, items, theirs, number)
            doing("   ".join([f"  round {number + 1}: ours {ours[-1]:,.0f}/s", *_of_round(theirs, number)]))
    measured = [rival for rival in RIVALS if rival.name in theirs]
    table(
        ("", "items/s"),
        [
            ("ours", f"{median(ours):,.0f}"),
            *((each.name, f"{median(theirs[each.name].values()):,.0f}") for each in measured),
        ],
    )
    for rival in measured:
        times = median(ours[number] / rate for number, rate in theirs[rival.name].items())
        at_least(rival.name, times, rival.goal, " times")


async def _measure(
    peers: Peers, url: str, rival: Rival, items: int, into: dict[str, dict[int, float]], number: int
) -> None:
    try:
        found = await peers.run(url, rival.script, rival.mode, int(items * rival.share))
    except PeerMissing as error:
        doing(f"left out: {rival.name}: {error}")
    else:
        into.setdefault(rival.name, {})[number] = found["per_s"]


def _of_round(theirs: dict[str, dict[int, float]], number: int) -> list[str]:
    return [f"{name} {rates[number]:,.0f}" for name, rates in theirs.items() if number in rates]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    asyncio.run(main(options.items, options.rounds))
