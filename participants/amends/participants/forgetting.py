"""Removing rows of the inbox that nobody will ask for any more."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from amends.brokers import Retention
from amends.contracts import Clock, TransientError
from amends.contracts.errors import stack_of
from amends.participants.inbox import Inbox
from amends.participants.retries import Sleep

_log: Any = structlog.get_logger("amends.participants")

_SHORTEST_S, _LONGEST_S = 0.2, 86_400.0
_SOON_S: Final = 60.0
"""How soon it looks first, when the rush of a start is over, and again after trouble."""


class Forgetter:
    """Purges the inbox of one service: of all processes that share it, one each time."""

    def __init__(self, service: str, inbox: Inbox, retention: Retention, clock: Clock, sleep: Sleep) -> None:
        self._service, self._inbox, self._kept = service, inbox, retention.inbox
        self._clock, self._sleep = clock, sleep

    async def run(self) -> None:
        """Purge now and then, until cancelled: a row is there for a twentieth of its retention more, a day at most."""
        if self._kept is None:
            await asyncio.Event().wait()  # there will never be anything to do
            return
        every_s = min(max(self._kept.total_seconds() / 20, _SHORTEST_S), _LONGEST_S)
        wait = min(every_s, _SOON_S)
        while True:
            await self._sleep(wait)
            wait = every_s
            try:
                await self.purge(every_s)
            except TransientError as error:
                _log.info("the inbox is not purged now", service=self._service, reason=str(error))
                wait = min(every_s, _SOON_S)
            except Exception as error:
                _log.error("the inbox cannot be purged", service=self._service, stack=stack_of(error))

    async def purge(self, every_s: float = 0.0) -> int:
        """Forget what is old enough, unless that was done within the last `every_s` seconds; give how many rows."""
        if self._kept is None:
            return 0
        before = self._clock.now() - self._kept
        mark = await self._inbox.low_water_mark()
        if mark is not None and (before - mark).total_seconds() < every_s / 2:
            return 0
        purged = await self._inbox.purge(before)
        if purged:
            _log.info("forgot effects of long ago", service=self._service, rows=purged)
        return purged
