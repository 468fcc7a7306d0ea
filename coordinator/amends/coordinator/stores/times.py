"""Moments as integers, as tables keep them: microseconds since 1970 in UTC. Exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, overload

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def micros(moment: datetime) -> int: ...
@overload
def micros(moment: datetime | None) -> int | None: ...
def micros(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@overload
def moment(micros: int) -> datetime: ...
@overload
def moment(micros: int | None) -> datetime | None: ...
def moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def span(seconds: float) -> int:
    """A duration in seconds, in whole microseconds."""
    return round(seconds * 1_000_000)
