"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from amends.contracts import Duration, as_timedelta


class VirtualClock:
    """Time for tests: it starts at a fixed moment (2026-01-01 00:00 UTC by default) and only moves when told."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def advance(self, by: Duration) -> datetime:
        """Let time pass; give the new moment."""
        self.advance_to(self._now + as_timedelta(by))
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until `moment`; nothing happens if that is over. Whoever sleeps until then wakes up."""
        self._now = max(self._now, moment)
        for due, sleeper in self._sleepers:
            if due <= self._now and not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by `seconds`."""
        entry = (self._now + timedelta(seconds=seconds), asyncio.get_running_loop().create_future())
        self._sleepers.append(entry)
        try:
            await entry[1]
        finally:
            self._sleepers.remove(entry)

    def next_sleeper(self) -> datetime | None:
        """When the next one who sleeps wants to be woken."""
        return min((due for due, sleeper in self._sleepers if not sleeper.done()), default=None)
