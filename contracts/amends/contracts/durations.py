"""Durations: a `timedelta`, or seconds as a number."""

from datetime import timedelta
from typing import TypeAlias

from amends.contracts.errors import UsageError

Duration: TypeAlias = timedelta | float | int


def as_timedelta(duration: Duration, what: str = "duration") -> timedelta:
    """`duration` as a `timedelta`. Raises `UsageError` when it is negative, not finite or no duration."""
    if isinstance(duration, bool) or not isinstance(duration, timedelta | float | int):
        raise UsageError(f"{what}={duration!r} is no duration. Give a timedelta or seconds")
    try:
        value = duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
    except (ValueError, OverflowError):
        raise UsageError(f"{what}={duration!r} is no duration that can be waited") from None
    if value < timedelta():
        raise UsageError(f"{what}={duration!r} is negative")
    return value
