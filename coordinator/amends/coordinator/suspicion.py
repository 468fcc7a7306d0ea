"""Finding the message that kills its process, without blaming those that were beside it.

A message that was delivered before may be why its process died. So the handling of such a message is counted in the
store before it begins, and the count is forgotten when it has ended in whatever way but a crash. From its third counted
handling on a message is handled alone, so that what kills its process then is found out and takes nobody along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from msgspec import Struct

from amends.brokers import Consumer, Delivery, Returned
from amends.brokers.handlings import TOGETHER, Handlings
from amends.brokers.queues import subscriber_queue
from amends.contracts import Envelope
from amends.coordinator.router import SUBSCRIBER

log = structlog.get_logger("amends.coordinator")

_SHARDS: Final = "shard"
_EVENTS: Final = subscriber_queue(SUBSCRIBER)


class Batch(Struct, frozen=True, eq=False):
    """Deliveries to handle together. `suspects` are the names of those that are counted."""

    deliveries: list[Delivery]
    suspects: list[str] = []
    alone: bool = False


class Suspicion:
    """Sorts deliveries by what the store knows of their earlier handlings. `limit`: how many handlings one may have."""

    def __init__(self, store: Handlings, limit: int) -> None:
        self._store, self._limit = store, limit

    async def sort(self, consumer: Consumer, deliveries: Sequence[Delivery], *, events: bool = False) -> list[Batch]:
        """The batches to handle, one after the other; each is to be begun with `begin`.

        What has had its handlings goes to the dead letters here. Raises `StoreUnavailable` and `BrokerUnavailable`.
        """
        where = _EVENTS if events else _SHARDS
        names = [
            _name(where, delivery.envelope) if delivery.deliveries > 1 and delivery.envelope is not None else None
            for delivery in deliveries
        ]
        suspects = list(dict.fromkeys(name for name in names if name is not None))
        if not suspects:
            return [Batch(list(deliveries))]
        counts = dict(zip(suspects, await self._store.handlings(suspects), strict=True))
        together = Batch([])
        batches = [together]
        for delivery, name in zip(deliveries, names, strict=True):
            count = counts.get(name, 0) if name is not None else 0
            if name is None or count < TOGETHER:
                together.deliveries.append(delivery)
                if name is not None and name not in together.suspects:
                    together.suspects.append(name)
            elif count < self._limit:
                batches.append(Batch([delivery], [name], alone=True))
            else:
                log.error("a message took its process along too often; it is now a dead letter", message=name)
                await consumer.dead_letter(delivery, "delivery-limit", _sentence(count))
        return [batch for batch in batches if batch.deliveries]

    async def begin(self, batch: Batch) -> None:
        """Count what is suspect. Raises `StoreUnavailable`."""
        if batch.suspects:
            await self._store.count_handlings(batch.suspects)

    async def end(self, batch: Batch) -> None:
        """Its handling has ended, well or not, and this process lives. Raises `StoreUnavailable`."""
        if batch.suspects:
            await self._store.forget_handlings(batch.suspects)

    async def judge(self, returned: Sequence[Returned]) -> list[str | None]:
        """What is wrong with messages that the broker has handed out too often: see `ReturningBroker`.

        Those to sagas go back as long as no coordinator has had its fill of them. Whether others have died of a
        message to a service or subscriber nobody here knows: it goes back once. Raises `StoreUnavailable`.
        """
        counts = await self._store.handlings([_name(_where(one.queue), one.envelope) for one in returned])
        return [self._wrong(one, count) for one, count in zip(returned, counts, strict=True)]

    def _wrong(self, one: Returned, count: int) -> str | None:
        if count >= self._limit:
            return _sentence(count)
        if one.times and _where(one.queue) not in (_SHARDS, _EVENTS):
            return "the broker has reached its delivery limit twice, and nobody has ever acknowledged it"
        return None


def _where(queue: str) -> str:
    return _SHARDS if queue.startswith("shard:") else queue


def _name(where: str, envelope: Envelope | None) -> str:
    """One event goes to several sagas under one id."""
    return where if envelope is None else f"{where}/{envelope.subject}/{envelope.id}"


def _sentence(count: int) -> str:
    return f"its handling was begun {count} times, and each time the process died"
