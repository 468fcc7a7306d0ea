"""A broker that fails on purpose: a fault is told of each operation before and after it, and may raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amends.brokers import Broker, Consumer, DeadLetter, Delivery, Outgoing, ShardMap

Fault = Callable[[str], None]


class Crash(BaseException):
    """The process dies here. Not an `Exception`, so that nothing survives it by catching."""


class FaultyBroker:
    """A broker in front of another: `publish:before`, `publish:after`, `ack:before` and `ack:after` are its points."""

    def __init__(self, inner: Broker, fault: Fault) -> None:
        self._inner, self._fault = inner, fault
        self.shard_map: ShardMap = inner.shard_map

    @property
    def shared(self) -> bool:
        return self._inner.shared

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._fault("publish:before")
        await self._inner.publish(messages)
        self._fault("publish:after")

    async def consume_service(self, service: str, *, prefetch: int = 256) -> Consumer:
        return FaultyConsumer(await self._inner.consume_service(service, prefetch=prefetch), self._fault)

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> Consumer:
        return FaultyConsumer(await self._inner.consume_shards(on_change), self._fault)

    async def consume_client(self, client: str) -> Consumer:
        return FaultyConsumer(await self._inner.consume_client(client), self._fault)

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> Consumer:
        return FaultyConsumer(await self._inner.subscribe(subscriber, event_types), self._fault)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return await self._inner.dead_letters(limit)

    async def close(self) -> None:
        await self._inner.close()


class FaultyConsumer:
    def __init__(self, inner: Consumer, fault: Fault) -> None:
        self._inner, self._fault = inner, fault

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        return await self._inner.receive(limit)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._fault("ack:before")
        await self._inner.ack(deliveries)
        self._fault("ack:after")

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._inner.release(deliveries)

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        await self._inner.dead_letter(delivery, reason, detail)

    async def close(self) -> None:
        await self._inner.close()
