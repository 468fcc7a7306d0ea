"""The time of the server: what leases and timers are measured by, whichever process asks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from amends.contracts import Clock

_FRESH_US: Final = 5_000_000
_DRIFT: Final = 0.0005
"""How much faster the server's clock may run than ours, at most, while one of them is being corrected."""
_STEP_US: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class ServerTime:
    """The server's time without asking it each time: it is asked every few seconds and reckoned on in between.

    `now` is never behind the server, and ahead by a round trip at most: what the server has found to be due is due for
    every process that hears of it. It never goes back, unless the server's clock was set back by more than a second.
    With a `clock`, as tests give, that is the time, in scripts too.
    """

    def __init__(self, ask: Callable[[], Awaitable[int]], clock: Clock | None = None) -> None:
        self._ask, self._clock = ask, clock
        self._offset = 0
        self._asked_at: int | None = None
        self._latest = 0

    async def now(self) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        if self._asked_at is None or _monotonic() - self._asked_at > _FRESH_US:
            await self._compare()
        at = _monotonic()
        reckoned = at + self._offset + round((at - (self._asked_at or at)) * _DRIFT)
        if reckoned > self._latest or reckoned < self._latest - _STEP_US:
            self._latest = reckoned
        return _EPOCH + self._latest * _MICROSECOND

    async def _compare(self) -> None:
        sent = _monotonic()
        told = await self._ask()
        received = _monotonic()
        offset = told - sent
        if self._asked_at is not None:
            # a slow answer says little: what was known before is better, if it is still possible
            known = self._offset + round((received - self._asked_at) * _DRIFT)
            offset = min(known, offset) if known >= told - received else offset
        self._offset, self._asked_at = offset, received

    def word(self) -> str:
        """What scripts are told: the microseconds of the clock, or nothing when they are to use the server's."""
        return "" if self._clock is None else str((self._clock.now() - _EPOCH) // _MICROSECOND)


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
