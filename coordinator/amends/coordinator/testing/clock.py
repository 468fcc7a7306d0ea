"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from datetime import UTC, datetime

from amends.contracts import Duration, as_timedelta


class VirtualClock:
    """Time for tests: it starts at a fixed moment (2026-01-01 00:00 UTC by default) and only moves forward, when told."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: Duration) -> datetime:
        """Let time pass; give the new moment."""
        self._now += as_timedelta(by)
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until `moment`; nothing happens if that is over."""
        self._now = max(self._now, moment)
