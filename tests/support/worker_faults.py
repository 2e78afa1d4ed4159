"""What goes wrong with workers and with the API that they call, each way by its name."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping

from tests.support.crew import EXPIRY_S, Crew, Hand
from tests.support.faults import Fault, moment
from tests.support.proxy import Direction

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


async def database_cut(_: Crew, hand: Hand, __: random.Random) -> None:
    hand.back.cut()


async def database_cut_amid_an_answer(_: Crew, hand: Hand, dice: random.Random) -> None:
    hand.back.cut_after(dice.randrange(1, 5_000))


async def database_stalled(_: Crew, hand: Hand, dice: random.Random) -> None:
    hand.back.stall(*dice.choice(((), (Direction.ANSWERS,), (Direction.REQUESTS,))))
    await asyncio.sleep(dice.uniform(0.1, 2 * EXPIRY_S))
    hand.back.resume()


async def database_refused(_: Crew, hand: Hand, dice: random.Random) -> None:
    hand.back.refuse()
    await moment(dice)
    await hand.back.accept()


async def api_cut(crew: Crew, _: Hand, __: random.Random) -> None:
    crew.front.cut()


async def api_stalled(crew: Crew, _: Hand, dice: random.Random) -> None:
    crew.front.stall()
    await moment(dice)
    crew.front.resume()


async def api_refused(crew: Crew, _: Hand, dice: random.Random) -> None:
    crew.front.refuse()
    await moment(dice)
    await crew.front.accept()


async def api_down(crew: Crew, _: Hand, dice: random.Random) -> None:
    crew.api.is_down = True
    await moment(dice)
    crew.api.is_down = False


async def _freeze(crew: Crew, hand: Hand, seconds: float) -> None:
    process = await crew.ready(hand)
    crew.send(hand, process, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    crew.send(hand, process, signal.SIGCONT)


KILLS: Mapping[str, CrewFault] = {"worker killed (-9)": killed}
CREW_FAULTS: Mapping[str, CrewFault] = {
    "worker stopped in order": stopped,
    "worker stopped by two signals": stopped_at_once,
    "worker frozen": frozen,
    "worker frozen for longer than it may be silent": frozen_for_too_long,
    "worker's database connections cut": database_cut,
    "worker's database connections cut amid an answer": database_cut_amid_an_answer,
    "worker's database connections stalled": database_stalled,
    "worker's database connections refused": database_refused,
}
API_FAULTS: Mapping[str, CrewFault] = {
    "API connections cut": api_cut,
    "API connections stalled": api_stalled,
    "API connections refused": api_refused,
    "API down": api_down,
}
