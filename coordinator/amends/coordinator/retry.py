"""How often, and after which waits, the coordinator asks again."""

from __future__ import annotations

from datetime import timedelta
from zlib import crc32

from msgspec import Struct

from amends.contracts import Duration, UsageError, as_timedelta


class Retry(Struct, frozen=True, kw_only=True):
    """A policy of the coordinator: how it repeats a command whose participant failed, or an undo.

    `attempts` counts all tries, the first included; None means for ever. The wait before the next try is `delay` times
    `backoff` to the power of the failures so far less one, at most `max_delay`, spread by `jitter` (a share of the
    wait, 0 to 1) in a way that only depends on the effect, so that a decision taken twice is the same.
    """

    attempts: int | None = 3
    delay: Duration = 1.0
    backoff: float = 2.0
    max_delay: Duration = 300.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts is not None and (isinstance(self.attempts, bool) or self.attempts < 1):
            raise UsageError(f"Retry(attempts={self.attempts!r}): there is at least one attempt, or None for ever")
        if not self.backoff >= 1:
            raise UsageError(f"Retry(backoff={self.backoff!r}): waits cannot shrink; use 1 or more")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"Retry(jitter={self.jitter!r}): is a share of the wait, from 0 to 1")
        as_timedelta(self.delay, "Retry(delay)")
        as_timedelta(self.max_delay, "Retry(max_delay)")

    def exhausted(self, failures: int) -> bool:
        """Whether `failures` failed attempts are all there are."""
        return self.attempts is not None and failures >= self.attempts

    def wait(self, failures: int, spread_by: str = "") -> timedelta:
        """How long to wait after the `failures`-th failure (from 1)."""
        most = _seconds(self.max_delay)
        try:
            seconds = min(_seconds(self.delay) * self.backoff ** (failures - 1), most)
        except OverflowError:
            seconds = most if self.delay else 0.0
        share = crc32(f"{spread_by}/{failures}".encode()) / 0xFFFFFFFF
        return timedelta(seconds=seconds * (1 - self.jitter * share))


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
