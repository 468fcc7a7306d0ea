"""Sharing the shards out among the processes that consume them.

RabbitMQ sees to what must be right: each shard's queue has a single active consumer, so that a shard has one reader at
a time, and the next in line takes over when that one's channel or connection ends. What it does not do is spread them,
as the first who comes would be active on all, and tell a consumer that it is active. So members tell each other which
shards they hold, by messages to a queue that each has for itself, and everyone consumes the share that follows from it
(`Roll.share`). A member's queue is exclusive: the broker deletes it together with the connection of a member that died,
and the next greeting to it comes back. That is noticed within `GREET_S`; a member that leaves says so.

While views differ, two may think that they hold a shard. Then one waits in line, and the store's compare-and-set takes
care of the rest. That nobody holds one lasts no longer than until the next greeting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.link import close_channel
from amends.brokers.rabbitmq.roll import Greeting, Roll
from amends.brokers.rabbitmq.wire import Parcel
from amends.contracts import JSON

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage

    from amends.brokers.rabbitmq.consumer import RabbitmqConsumer
    from amends.brokers.rabbitmq.link import Link
    from amends.brokers.rabbitmq.names import Names
    from amends.brokers.rabbitmq.publisher import Publisher

log = structlog.get_logger("amends.brokers")

GREET_S: Final = 1.0
"""How often members greet each other when there is no news."""
SHARD_PREFETCH: Final = 64
"""How many messages are taken ahead from each shard: each may be a pack, so that a shard has some 2,000 envelopes in
memory at most, and a crash that many to be split."""
_FIRST_WORD_S: Final = 2.0
"""How long one who joins waits for the first word of those who are there."""


class Sharing:
    """One member: keeps `consumer` reading the queues of its share, and tells `on_change` about each change."""

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        names: Names,
        shards: int,
        on_change: Callable[[frozenset[int]], None],
    ) -> None:
        self._link, self._publisher, self._names = link, publisher, names
        self._on_change = on_change
        self._roll = Roll(int.from_bytes(os.urandom(8)) or 1, shards)
        self._consumer: RabbitmqConsumer | None = None
        self._channel: AbstractChannel | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, consumer: RabbitmqConsumer) -> None:
        """Take part; `on_change` is called before this returns. Raises `BrokerUnavailable`."""
        self._consumer = consumer
        await self._link.job(self._join())
        self._task = asyncio.create_task(self._run())
        # so that `on_change` has been called
        await asyncio.sleep(0)

    async def leave(self) -> None:
        """Give the shards back, and say so. Raises `BrokerUnavailable`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._hold(frozenset())
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            await self._greet(leaves=True)
            await close_channel(channel)

    async def _run(self) -> None:
        away = False
        while True:
            try:
                if self._channel is None or self._channel.is_closed:
                    self._let_go()
                    await self._link.job(self._join())
                if away:
                    log.info("the shards are shared again")
                    away = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(GREET_S):
                        await self._news.wait()
                self._news.clear()
                self._settle()
                await self._greet()
            except BrokerUnavailable as error:
                if not away:
                    log.warning("this process holds no shards until the broker is back", problem=str(error))
                away = True
                self._let_go()
                await asyncio.sleep(GREET_S)

    async def _join(self) -> None:
        names, roll = self._names, self._roll
        queue = names.member(roll.me)
        call = self._parcel(Greeting(0), exchange=names.members)
        # it comes back when there is nobody
        alone = bool(await self._publisher.publish([call]))
        channel = await self._link.channel()
        async with self._link.server.speaking():
            await channel.queue_declare(queue, exclusive=True, auto_delete=True)
            await channel.queue_bind(queue, names.members)
            await channel.basic_consume(queue, self._heard, no_ack=True)
        channel.closing.add_done_callback(lambda _: self._news.set())
        self._channel = channel
        self._news.clear()
        await self._publisher.publish([self._parcel(Greeting(roll.me), exchange=names.members)])
        if not alone:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_WORD_S):
                    await self._news.wait()
        self._settle()

    async def _heard(self, message: DeliveredMessage) -> None:
        if self._roll.hear(JSON.decode(message.body, Greeting)):
            self._news.set()

    def _settle(self) -> None:
        """Hold what is ours by all that is known."""
        if self._channel is not None and self._hold(self._roll.share()):
            self._news.set()

    def _hold(self, shards: frozenset[int]) -> bool:
        changed = shards != self._roll.mine
        self._roll.mine = shards
        assert self._consumer is not None
        self._consumer.read_from(dict.fromkeys(map(self._names.shard, shards), SHARD_PREFETCH))
        if changed:
            # on its own, so that an error in it is nobody else's
            asyncio.get_running_loop().call_soon(self._on_change, shards)
        return changed

    def _let_go(self) -> None:
        """Without the broker there is nobody, and nothing to hold."""
        self._roll.clear()
        self._hold(frozenset())

    async def _greet(self, *, leaves: bool = False) -> None:
        """Tell the others, and strike those off whose queue is gone."""
        others = self._roll.others
        if not others:
            return
        greeting = Greeting(self._roll.me, self._roll.mine, leaves)
        for number in await self._publisher.publish(self._parcels(greeting, others)):
            if self._roll.strike(others[number]):
                self._news.set()

    def _parcels(self, greeting: Greeting, members: Sequence[int]) -> list[Parcel]:
        return [self._parcel(greeting, key=self._names.member(member)) for member in members]

    def _parcel(self, greeting: Greeting, **where: Any) -> Parcel:
        address = {"exchange": "", "key": "", **where}
        return Parcel(**address, body=JSON.encode(greeting), headers={}, content_type="application/json")
