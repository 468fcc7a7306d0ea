"""One consumer, and how much of it is in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from amends.brokers import Consumer, Delivery

_MOST_AT_ONCE: Final = 256


class Intake:
    """Receives from a consumer as long as no more than `limit` deliveries are in hand."""

    def __init__(self, consumer: Consumer, limit: int) -> None:
        self._consumer, self._limit = consumer, limit
        self._in_hand = 0
        self._room = asyncio.Event()
        self.closed = False

    async def receive(self) -> Sequence[Delivery]:
        """Wait for room, then for deliveries. Raises as `Consumer.receive`."""
        while (room := self._limit - self._in_hand) <= 0:
            self._room.clear()
            await self._room.wait()
        return await self._consumer.receive(min(room, _MOST_AT_ONCE))

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Count these as in hand."""
        self._in_hand += len(deliveries)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._consumer.ack(deliveries)
        self._gone(len(deliveries))

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        await self._consumer.dead_letter(delivery, reason, detail)
        self._gone(1)

    async def close(self) -> None:
        """Stop, and give back what is in hand."""
        self.closed = True
        await self._consumer.close()

    def _gone(self, count: int) -> None:
        self._in_hand -= count
        self._room.set()
