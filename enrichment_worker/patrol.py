"""Parts that look now and then at all lanes, and at once when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enrichment_worker.bell import Bell
from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.runner import Runner
from shared.lifecycle import Part
from shared.probe import Probe
from shared.waits import about


class Patrol(Part):
    """What such parts have in common. Nothing depends on their being told: they poll besides."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        runners: Sequence[Runner],
        pinned: Pinned,
        poll_s: float,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`runners` are those of the lanes, in the same order."""
        super().__init__()
        self._lanes, self._runners, self._pinned = lanes, runners, pinned
        self._poll_s, self._random, self._probe = poll_s, random, probe or Probe()
        self._bell = Bell()

    def ring(self) -> None:
        """Looks at once."""
        self._bell.ring()

    async def stop(self) -> None:
        """Looks no more."""
        self._bell.ring()
        await super().stop()

    async def _rest(self) -> None:
        """Rests until told, or for about the time of a poll: workers that began together do not look together."""
        await self._bell.wait(about(self._poll_s, self._random))
