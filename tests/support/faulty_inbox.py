"""An inbox that fails on purpose, as `tests.support.faults` does for brokers; and faults to give to either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from tests.support.faults import Fault, FaultyBroker

from amends.brokers import Consumer
from amends.participants import Inbox, TransactionalInbox
from amends.participants.inbox import Work, WorkAnswer
from amends.participants.rows import Closing, ClosingAnswer, Opening, OpeningAnswer


class Trap:
    """A fault that springs at one point, `times` times. `passed` counts how often each point was passed."""

    def __init__(self, point: str, error: Exception, times: int = 1) -> None:
        self.point, self.error, self.left = point, error, times
        self.passed: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        self.passed[point] += 1
        if point == self.point and self.left:
            self.left -= 1
            raise self.error


class FaultyInbox:
    """An inbox in front of another. Its points are `begin`, `finish`, `transact` and `ping`, `:before` and `:after`,
    and `count_handlings`, `handlings` and `forget_handlings`, `:before`.
    """

    def __init__(self, inner: Inbox, fault: Fault) -> None:
        self._inner, self._fault = inner, fault

    @property
    def shared(self) -> bool:
        return self._inner.shared

    async def begin(self, requests: Sequence[Opening]) -> Sequence[OpeningAnswer]:
        self._fault("begin:before")
        answers = await self._inner.begin(requests)
        self._fault("begin:after")
        return answers

    async def finish(self, requests: Sequence[Closing]) -> Sequence[ClosingAnswer]:
        self._fault("finish:before")
        answers = await self._inner.finish(requests)
        self._fault("finish:after")
        return answers

    async def count_handlings(self, messages: Sequence[str]) -> None:
        self._fault("count_handlings:before")
        await self._inner.count_handlings(messages)

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        self._fault("handlings:before")
        return await self._inner.handlings(messages)

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        self._fault("forget_handlings:before")
        await self._inner.forget_handlings(messages)

    async def purge(self, before: datetime) -> int:
        return await self._inner.purge(before)

    async def low_water_mark(self) -> datetime | None:
        return await self._inner.low_water_mark()

    async def ping(self) -> None:
        self._fault("ping:before")
        await self._inner.ping()

    async def close(self) -> None:
        await self._inner.close()


class FaultyTransactionalInbox(FaultyInbox):
    def __init__(self, inner: TransactionalInbox, fault: Fault) -> None:
        super().__init__(inner, fault)
        self._transactions = inner

    async def transact(self, works: Sequence[Work]) -> Sequence[WorkAnswer]:
        self._fault("transact:before")
        answers = await self._transactions.transact(works)
        self._fault("transact:after")
        return answers


class UnreachableBroker(FaultyBroker):
    """A faulty broker with one more point: `consume:before`."""

    async def consume_service(self, service: str, *, prefetch: int = 256) -> Consumer:
        self._fault("consume:before")
        return await super().consume_service(service, prefetch=prefetch)
