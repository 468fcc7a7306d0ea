"""Time that a test moves: a clock, and sleepers that wake when it has come far enough."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Timeline:
    """Give `now` (it is a `Clock`) and `sleep` to what is tested; move it with `advance`."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []
        self._someone_sleeps = asyncio.Event()

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + timedelta(seconds=seconds), future))
        self._someone_sleeps.set()
        await future

    async def nap(self, seconds: float) -> None:
        """A sleep that moves time itself."""
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        for due, future in self._sleepers:
            if due <= self._now and not future.done():
                future.set_result(None)
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].done()]

    def pass_unnoticed(self, seconds: float) -> None:
        """Time passes while the sleepers stand still, as in a process that is paused. `advance(0)` lets them go on."""
        self._now += timedelta(seconds=seconds)

    async def asleep(self) -> float:
        """Wait until somebody sleeps; how many seconds the first of them has left."""
        while True:
            self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].done()]
            if self._sleepers:
                return (min(due for due, _ in self._sleepers) - self._now).total_seconds()
            self._someone_sleeps.clear()
            await self._someone_sleeps.wait()
