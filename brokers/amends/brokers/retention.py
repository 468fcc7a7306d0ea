"""How long what is over is kept, and that these times go together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, TypeAlias

from msgspec import Struct

from amends.contracts import UsageError, as_timedelta

Kept: TypeAlias = timedelta | None
"""How long something is kept. None: for ever."""

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_FOREVER: Final = ("forever", "never", "0")


class Retention(Struct, frozen=True, kw_only=True):
    """How long what is over is kept; None stands for ever. By default what the settings say.

    `sagas`: an ended saga with its journal, from its end. `ledger`: how long after that its id is still known, so that
    a start that was delayed or repeated is recognised. `inbox`: what a participant remembers of an effect, since it was
    last asked about it. `messages`: how old a message may be when it arrives, after the longest outage that is to be
    survived without loss. Raises `UsageError` for times that do not go together.
    """

    sagas: Kept = timedelta(days=30)
    ledger: Kept = timedelta(days=60)
    inbox: Kept = timedelta(days=90)
    messages: timedelta = timedelta(days=14)

    @property
    def ids(self) -> Kept:
        """How long the id of a saga is known at least, from its start."""
        return None if self.sagas is None or self.ledger is None else self.sagas + self.ledger

    def __post_init__(self) -> None:
        if self.sagas is not None and self.ledger is not None and self.ledger < self.messages:
            raise UsageError(
                f"ledger_retention={span_text(self.ledger)} is shorter than message_age={span_text(self.messages)}: a "
                "start that is repeated by an old message would run a second time. Raise ledger_retention, or lower "
                "message_age"
            )
        if self.inbox is not None and self.inbox <= self.messages:
            raise UsageError(
                f"inbox_retention={span_text(self.inbox)} is not longer than message_age={span_text(self.messages)}: "
                "an old message would find its effect forgotten, and its saga get stuck. Raise inbox_retention, or "
                "lower message_age"
            )


FOREVER: Final = Retention(sagas=None, ledger=None, inbox=None)


def read_span(value: Any, what: str) -> Kept:
    """`30d`, `12h`, `90s`, a number of seconds, or `forever` (also `never`, `0`). Raises `UsageError`."""
    text = str(value).strip().lower()
    if text in _FOREVER:
        return None
    seconds = _UNITS.get(text[-1:], 0)
    try:
        span = as_timedelta(float(text[:-1]) * seconds if seconds else float(text), what)
    except ValueError:
        span = timedelta()
    if not span:
        raise UsageError(f"{what}: {value!r} is no length of time. Write 30d, 12h, 90s, seconds, or forever")
    return span


def span_text(span: Kept) -> str:
    """A length of time as `read_span` takes it."""
    if span is None:
        return "forever"
    seconds = span.total_seconds()
    for unit, length in _UNITS.items():
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
