"""An inbox in memory: for tests, and for brokers that live in this process alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from amends.brokers.handlings import MemoryHandlings
from amends.contracts import Clock, SystemClock, UsageError
from amends.participants.decisions import closing, opening
from amends.participants.rows import Closing, ClosingAnswer, Opening, OpeningAnswer, Row


class MemoryInbox:
    """An `Inbox` that dies with its process. It has no transactions to share with handlers."""

    shared = False

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rows: dict[str, Row] = {}
        self._mark: datetime | None = None
        self._handlings = MemoryHandlings(self._clock)

    async def begin(self, requests: Sequence[Opening]) -> Sequence[OpeningAnswer]:
        now = self._clock.now()
        answers: list[OpeningAnswer] = []
        for request in requests:
            row, answer = opening(self._rows.get(request.effect_key), request, now, self._mark)
            if row is not None:
                self._rows[request.effect_key] = row
            answers.append(answer)
        return answers

    async def finish(self, requests: Sequence[Closing]) -> Sequence[ClosingAnswer]:
        now = self._clock.now()
        answers: list[ClosingAnswer] = []
        for request in requests:
            row, answer = closing(self._rows.get(request.effect_key), request, now)
            if row is not None:
                self._rows[request.effect_key] = row
            answers.append(answer)
        return answers

    async def count_handlings(self, messages: Sequence[str]) -> None:
        self._handlings.count(messages)

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        return self._handlings.counts(messages)

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        self._handlings.forget(messages)

    async def purge(self, before: datetime) -> int:
        check_purge(before, self._clock.now())
        self._mark = before if self._mark is None else max(self._mark, before)
        old = [key for key, row in self._rows.items() if row.touched < before]
        for key in old:
            del self._rows[key]
        return len(old)

    async def low_water_mark(self) -> datetime | None:
        return self._mark

    async def ping(self) -> None:
        pass

    async def close(self) -> None:
        pass


def check_purge(before: datetime, now: datetime) -> None:
    """Raise `UsageError` when rows of the future would be purged."""
    if before > now:
        raise UsageError(
            f"purge(before={before.isoformat()}) lies ahead of {now.isoformat()}. Give a moment of the past"
        )
