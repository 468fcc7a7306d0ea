"""The sweeper: tells sagas, through their own queue, that their timers are due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from amends.brokers import Broker
from amends.coordinator.store import SagaStore
from amends.coordinator.trouble import Trouble
from amends.coordinator.wire import timer

LEASE_S: Final = 30.0
"""How long a due saga is left alone after it was told. If the message is lost, it is told again after that."""

_BATCH: Final = 256
_LONGEST_WAIT_S: Final = 60.0


class Sweeper:
    """Sweeps the slots that this coordinator owns. It sleeps until the next timer, or until an earlier one is set.

    Timers are leased by store time, and the message that tells of one lines up behind whatever waits in the saga's
    queue: a reply that was there first is handled first.
    """

    def __init__(self, store: SagaStore, broker: Broker) -> None:
        self._store, self._broker = store, broker
        self._slots: Sequence[range] = ()
        self._changed = asyncio.Event()
        self._next: datetime | None = None

    def own(self, slots: Sequence[range]) -> None:
        """The slots to sweep from now on."""
        self._slots = slots
        self._changed.set()

    def expect(self, due: datetime) -> None:
        """A timer was set."""
        if self._next is None or due < self._next:
            self._next = due
            self._changed.set()

    async def sweep(self) -> int:
        """Tell every saga with a due timer; give how many. Raises `StoreUnavailable` or `BrokerUnavailable`."""
        told = 0
        while self._slots:
            due = await self._store.due(self._slots, _BATCH, LEASE_S)
            if due:
                now = await self._store.now()
                await self._broker.publish([timer(saga, now) for saga in due])
            told += len(due)
            if len(due) < _BATCH:
                break
        return told

    async def next_due(self) -> datetime | None:
        """When the next timer of our slots is due."""
        return await self._store.next_due(self._slots) if self._slots else None

    async def run(self, trouble: Trouble) -> None:
        """Sweep until cancelled; what passes is tried again."""
        while True:
            self._changed.clear()
            try:
                await self.sweep()
                self._next = await self.next_due()
                wait = _LONGEST_WAIT_S
                if self._next is not None:
                    wait = min(wait, max(0.0, (self._next - await self._store.now()) / timedelta(seconds=1)))
            except Exception as error:
                trouble.report(error)
                wait = 1.0
            else:
                trouble.over()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
