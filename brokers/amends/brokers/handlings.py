"""Counting the handlings of messages, so that one which kills its process is found out: port, and what adapters share.

Whoever handles a message that was delivered before counts that first, and forgets the count when the handling has ended
in whatever way but the death of the process.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from amends.contracts.clock import Clock

HANDLINGS_KEPT: Final = timedelta(days=7)
"""How long it is remembered that a message took a process along: longer than a crash loop goes unseen."""

TOGETHER: Final = 2
"""How many counted handlings a message shares with others. From the next one on it is handled alone."""


class Handlings(Protocol):
    """Counts as durable as whatever they are kept beside. All raise a `TransientError` when that is away."""

    async def count_handlings(self, messages: Sequence[str]) -> None:
        """One more handling of each of these messages begins. Counts are kept for `HANDLINGS_KEPT` after the last."""
        ...

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        """How many handlings of each have begun since they were last forgotten."""
        ...

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        """The handlings of these have ended, and took no process along."""
        ...


class MemoryHandlings:
    """Counts in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[int, datetime]] = {}

    def count(self, messages: Sequence[str]) -> None:
        now = self._clock.now()
        kept = {name: found for name, found in self._counts.items() if found[1] > now - HANDLINGS_KEPT}
        self._counts = kept | {name: (kept.get(name, (0, now))[0] + 1, now) for name in messages}

    def counts(self, messages: Sequence[str]) -> list[int]:
        oldest = self._clock.now() - HANDLINGS_KEPT
        found = [self._counts.get(name, (0, oldest)) for name in messages]
        return [count if at > oldest else 0 for count, at in found]

    def forget(self, messages: Sequence[str]) -> None:
        for name in messages:
            self._counts.pop(name, None)


class HandlingsTable:
    """Counts in a table of a SQLite file; each method is for one transaction on it."""

    def __init__(self, name: str) -> None:
        self.schema = (
            f"CREATE TABLE IF NOT EXISTS {name} (message TEXT PRIMARY KEY, count INTEGER, at INTEGER) WITHOUT ROWID"
        )
        chosen = "message IN (SELECT value FROM json_each(?))"
        self._old = f"DELETE FROM {name} WHERE at <= ?"
        self._count = (
            f"INSERT INTO {name} (message, count, at) SELECT value, 1, ? FROM json_each(?) WHERE true "
            "ON CONFLICT (message) DO UPDATE SET count = count + 1, at = excluded.at"
        )
        self._read = f"SELECT message, count FROM {name} WHERE at > ? AND {chosen}"
        self._forget = f"DELETE FROM {name} WHERE {chosen}"

    def count(self, connection: sqlite3.Connection, messages: Sequence[str], now: datetime) -> None:
        connection.execute(self._old, (_micros(now - HANDLINGS_KEPT),))
        connection.execute(self._count, (_micros(now), json.dumps(list(messages))))

    def counts(self, connection: sqlite3.Connection, messages: Sequence[str], now: datetime) -> list[int]:
        asked = (_micros(now - HANDLINGS_KEPT), json.dumps(list(messages)))
        found: dict[str, int] = dict(connection.execute(self._read, asked).fetchall())
        return [found.get(message, 0) for message in messages]

    def forget(self, connection: sqlite3.Connection, messages: Sequence[str]) -> None:
        connection.execute(self._forget, (json.dumps(list(messages)),))


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
