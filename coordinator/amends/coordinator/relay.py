"""The relay: sends what a crash left in the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from amends.brokers import Broker
from amends.coordinator.store import SagaStore
from amends.coordinator.trouble import Trouble

log = structlog.get_logger("amends.coordinator")

GRACE_S: Final = 5.0
"""How old an outbox entry is before it is taken for forgotten: longer than a commit's messages take to be sent."""

LEASE_S: Final = 30.0
_BATCH: Final = 256


class Relay:
    """Sends outbox entries that outlived the grace time, under a lease of store time, and clears them.

    Sending twice does no harm: every message has its own id, and whoever gets it recognises it.
    """

    def __init__(self, store: SagaStore, broker: Broker, grace_s: float = GRACE_S) -> None:
        self._store, self._broker, self.grace_s = store, broker, grace_s
        self._slots: Sequence[range] = ()

    def own(self, slots: Sequence[range]) -> None:
        self._slots = slots

    async def relay(self) -> int:
        """Send everything overdue; give how many entries. Raises `StoreUnavailable` or `BrokerUnavailable`."""
        sent = 0
        while self._slots:
            entries = await self._store.overdue_outbox(self._slots, self.grace_s, _BATCH, LEASE_S)
            if not entries:
                break
            # what cannot be sent within the lease is dropped: somebody else may hold it by then
            async with asyncio.timeout(LEASE_S):
                await self._broker.publish([message for entry in entries for message in entry.messages])
            await self._store.commit((), [entry.key for entry in entries])
            sent += len(entries)
            log.info("sent what an earlier run had left in the outbox", commits=len(entries))
        return sent

    async def run(self, trouble: Trouble) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                await self.relay()
                trouble.over()
            except Exception as error:
                trouble.report(error)
            await asyncio.sleep(self.grace_s / 2)
