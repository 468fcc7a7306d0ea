"""Queues, exchanges and bindings: declared where they are missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.names import Names
from amends.brokers.shards import ShardMap
from amends.contracts.names import slot_address

Arguments = dict[str, Any]

UNLIMITED: Final = 1_000_000_000
"""As a delivery limit: RabbitMQ 4 has one of 20 for queues that say nothing, RabbitMQ 3 knows no word for none."""


class Topology:
    """What must exist at the broker for one installation.

    A queue that exists is used as it is, whatever its arguments: operators may have declared it. Ours are quorum queues
    that hand a message out `delivery_limit` times, and then move it to the returned ones without losing it on the way.
    """

    def __init__(self, link: Link, names: Names, delivery_limit: int) -> None:
        self._link, self._names, self._delivery_limit = link, names, delivery_limit
        self._known: set[str] = set()

    def knows_service(self, service: str) -> bool:
        """Whether the queue of a service has been seen."""
        return self._names.service(service) in self._known

    async def service(self, service: str) -> None:
        await self._queue(self._names.service(service), self._work())

    async def packs(self, service: str) -> None:
        await self._queue(self._names.packs(service), self._work())

    async def subscriber(self, subscriber: str) -> None:
        await self._queue(self._names.subscriber(subscriber), self._work())

    async def record(self, what: str) -> None:
        await self._queue(self._names.record(what), {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED})

    def forget(self) -> None:
        """Something that was there is not there any more: look again."""
        self._known.clear()

    async def set_up(self, shard_map: ShardMap) -> None:
        """Everything that does not depend on who takes part: exchanges, dead letters, the queues of the shards."""
        names = self._names
        for exchange, kind in (
            (names.slots, "direct"),
            (names.events, "direct"),
            (names.members, "fanout"),
            (names.returned, "fanout"),
        ):
            await self._exchange(exchange, kind)
        for kept in (names.dead_letters, names.returned):
            await self._queue(kept, {"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED})
        for shard in range(shard_map.shards):
            await self._queue(names.shard(shard), {**self._work(), "x-single-active-consumer": True})
        await self._link.ask(lambda channel: self._bind_all(channel, shard_map))

    async def _bind_all(self, channel: AbstractChannel, shard_map: ShardMap) -> None:
        for shard in range(shard_map.shards):
            for slot in shard_map.slots_of(shard):
                await channel.queue_bind(self._names.shard(shard), self._names.slots, slot_address(slot), nowait=True)
        # the answer to the last one says that all are done
        await channel.queue_bind(self._names.returned, self._names.returned)

    def _work(self) -> Arguments:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": self._delivery_limit,
            "x-dead-letter-exchange": self._names.returned,
            "x-dead-letter-strategy": "at-least-once",
            # at-least-once asks for it; without a maximum length nothing is ever rejected
            "x-overflow": "reject-publish",
        }

    async def _exchange(self, name: str, kind: str) -> None:
        await self._missing(
            lambda channel: channel.exchange_declare(name, passive=True),
            lambda channel: channel.exchange_declare(name, exchange_type=kind, durable=True),
        )

    async def _queue(self, name: str, arguments: Arguments) -> None:
        await self._missing(
            lambda channel: channel.queue_declare(name, passive=True),
            lambda channel: channel.queue_declare(name, durable=True, arguments=arguments),
        )
        self._known.add(name)

    async def _missing(
        self,
        look: Callable[[AbstractChannel], Awaitable[object]],
        declare: Callable[[AbstractChannel], Awaitable[object]],
    ) -> None:
        async with self._link.server.speaking():
            try:
                await self._link.ask(look)
            except (ChannelNotFoundEntity, ChannelAccessRefused):
                await self._link.ask(declare)
