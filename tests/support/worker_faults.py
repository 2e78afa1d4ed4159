"""What goes wrong with workers and with the API that they call, each way by its name."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping

from tests.support.crew import EXPIRY_S, Crew, Hand
from tests.support.faults import Fault, cut, cut_amid_an_answer, moment, refused, stalled
from tests.support.proxy import Proxy

CrewFault = Fault[Crew, Hand]


async def killed(crew: Crew, hand: Hand, _: random.Random) -> None:
    process = await crew.ready(hand)
    crew.send(hand, process, signal.SIGKILL)
    await process.ended()


async def stopped(crew: Crew, hand: Hand, _: random.Random) -> None:
    process = await crew.ready(hand)
    crew.send(hand, process, signal.SIGTERM)
    await process.ended()


async def stopped_at_once(crew: Crew, hand: Hand, dice: random.Random) -> None:
    process = await crew.ready(hand)
    crew.send(hand, process, signal.SIGTERM)
    await asyncio.sleep(dice.uniform(0, 0.5))
    crew.send(hand, process, signal.SIGTERM)
    await process.ended()


async def frozen(crew: Crew, hand: Hand, dice: random.Random) -> None:
    await _freeze(crew, hand, dice.uniform(0.1, EXPIRY_S / 2))


async def frozen_for_too_long(crew: Crew, hand: Hand, dice: random.Random) -> None:
    await _freeze(crew, hand, EXPIRY_S * dice.uniform(1.2, 2.0))


async def api_down(crew: Crew, _: Hand, dice: random.Random) -> None:
    crew.api.is_down = True
    await moment(dice)
    crew.api.is_down = False


async def _freeze(crew: Crew, hand: Hand, seconds: float) -> None:
    process = await crew.ready(hand)
    crew.send(hand, process, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    crew.send(hand, process, signal.SIGCONT)


def _back(_: Crew, hand: Hand) -> Proxy:
    return hand.back


def _api(crew: Crew, _: Hand) -> Proxy:
    return crew.front


KILLS: Mapping[str, CrewFault] = {"worker killed (-9)": killed}
CREW_FAULTS: Mapping[str, CrewFault] = {
    "worker stopped in order": stopped,
    "worker stopped by two signals": stopped_at_once,
    "worker frozen": frozen,
    "worker frozen for longer than it may be silent": frozen_for_too_long,
    "worker's database connections cut": cut(_back),
    "worker's database connections cut amid an answer": cut_amid_an_answer(_back, 5_000),
    "worker's database connections stalled": stalled(_back, for_s=2 * EXPIRY_S),
    "worker's database connections refused": refused(_back),
}
API_FAULTS: Mapping[str, CrewFault] = {
    "API connections cut": cut(_api),
    "API connections stalled": stalled(_api, [()]),
    "API connections refused": refused(_api),
    "API down": api_down,
}
