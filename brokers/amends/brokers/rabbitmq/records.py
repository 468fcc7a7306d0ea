"""Small durable records at the broker, and locks to change them under.

AMQP can neither list bindings nor store a value. A record is the one message in a queue of its own; a lock is an
exclusive queue, which vanishes with the connection of its holder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelLockedResource
from pamqp.commands import Basic

from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.link import Link, close_channel
from amends.brokers.rabbitmq.names import Names
from amends.brokers.rabbitmq.topology import Topology

_LOCK_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.05


@asynccontextmanager
async def locked(link: Link, names: Names, what: str) -> AsyncIterator[AbstractChannel]:
    """Nobody else is in a block with the same `what`. Gives a channel with confirms. Raises `BrokerUnavailable`."""
    queue = names.lock(what)
    async with link.alone(queue):
        channel = await _acquire(link, queue)
        try:
            async with link.server.speaking():
                yield channel
                await channel.queue_delete(queue)
        finally:
            await close_channel(channel)


async def _acquire(link: Link, queue: str) -> AbstractChannel:
    until = asyncio.get_running_loop().time() + _LOCK_S
    while True:
        channel = await link.channel(confirms=True)
        async with link.server.speaking():
            try:
                await channel.queue_declare(queue, exclusive=True)
                return channel
            except ChannelLockedResource:
                if asyncio.get_running_loop().time() > until:
                    raise BrokerUnavailable(
                        f"RabbitMQ at {link.server.where}: another process has held {queue!r} for {_LOCK_S:.0f} s"
                    ) from None
        await asyncio.sleep(_LOOK_AGAIN_S)


class Record:
    """One record: read and written within `locked`, on its channel."""

    def __init__(self, topology: Topology, names: Names, what: str) -> None:
        self._topology, self._what, self._queue = topology, what, names.record(what)

    async def read(self, channel: AbstractChannel) -> list[bytes]:
        """What is recorded: nothing, one thing, or several when somebody died while writing.

        `write` must follow, else it is lost sight of for a moment when the channel closes.
        """
        await self._topology.record(self._what)
        found: list[bytes] = []
        while True:
            message = await channel.basic_get(self._queue)
            if not isinstance(message.delivery, Basic.GetOk):
                return found
            found.append(message.body)

    async def write(self, channel: AbstractChannel, body: bytes) -> None:
        """Record this. What was read before stays recorded as well until `replace`."""
        properties = Basic.Properties(delivery_mode=2, content_type="application/json")
        await channel.basic_publish(body, routing_key=self._queue, properties=properties, mandatory=True)

    async def replace(self, channel: AbstractChannel, old: Sequence[bytes]) -> None:
        """Forget what was read."""
        if old:
            await channel.basic_ack(0, multiple=True)
