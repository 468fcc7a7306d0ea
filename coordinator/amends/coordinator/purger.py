"""The purger: removes what has been over for long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from amends.brokers import Retention
from amends.coordinator.store import SagaStore
from amends.coordinator.trouble import Trouble

log = structlog.get_logger("amends.coordinator")

_BATCH: Final = 200
_BREATH_S: Final = 0.05
"""Between two batches: a store that has much to remove is not kept from its work."""

_SHORTEST_S, _LONGEST_S = 0.2, 600.0


class Purger:
    """Removes ended sagas of the slots that this coordinator owns, and later the memory of their ids.

    It looks now and then: what is due waits for a twentieth of its retention more, ten minutes at most.
    """

    def __init__(self, store: SagaStore, retention: Retention) -> None:
        self._store, self._retention = store, retention
        self._slots: Sequence[range] = ()
        self._changed = asyncio.Event()

    def own(self, slots: Sequence[range]) -> None:
        """The slots to look after from now on."""
        self._slots = slots
        self._changed.set()

    async def purge(self) -> int:
        """Remove everything that is due; give how many sagas and ids. Raises `StoreUnavailable`."""
        if self._retention.sagas is None:
            return 0
        before = await self._store.now() - self._retention.sagas
        sagas = ids = 0
        while self._slots:
            sagas += (purged := await self._store.purge(before, _BATCH, self._slots))
            if purged < _BATCH:
                break
            await asyncio.sleep(_BREATH_S)
        while self._slots and self._retention.ledger is not None:
            ids += (forgotten := await self._store.purge_ledger(before - self._retention.ledger, _BATCH, self._slots))
            if forgotten < _BATCH:
                break
            await asyncio.sleep(_BREATH_S)
        if sagas or ids:
            log.info("removed what ended long ago", sagas=sagas, ids=ids)
        return sagas + ids

    async def run(self, trouble: Trouble) -> None:
        """Look now and then, until cancelled; what passes is tried again."""
        if self._retention.sagas is None:
            await asyncio.Event().wait()  # there will never be anything to do
            return
        wait = min(max(self._retention.sagas.total_seconds() / 20, _SHORTEST_S), _LONGEST_S)
        while True:
            self._changed.clear()
            try:
                await self.purge()
                trouble.over()
            except Exception as error:
                trouble.report(error)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
