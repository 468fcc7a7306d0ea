"""One queue read through one channel, from the opening of the channel to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from amends.brokers.packing import OpenPack
from amends.brokers.rabbitmq.link import close_channel
from amends.brokers.rabbitmq.problems import BROKEN
from amends.brokers.rabbitmq.tap import Arrival

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage

    from amends.brokers.rabbitmq.link import Link


class Token(NamedTuple):
    """Names a delivery: its lane, the tag of its message there, its place among all that came to this consumer, its
    part of the message if that is a pack, and how often it had been handed out when it came, that time included."""

    lane: Lane
    tag: int
    place: int
    part: int
    came: int


class Lane:
    """Deliveries are bound to the channel they came by. What is left of them when it ends comes again by another lane:
    so a lane is the epoch of its deliveries, and a closed one ignores what is said of them.

    `held` has what was handed out and is not settled: its place, with how often it was delivered. `packs` has the packs
    of which something is still open, by their tags.
    """

    def __init__(self, queue: str, channel: AbstractChannel) -> None:
        self.queue = queue
        self.held: dict[int, int] = {}
        self.packs: dict[int, OpenPack] = {}
        self.closed = False
        self.retired = False
        """Nothing new is taken from it."""
        self._channel = channel
        self._unsettled: dict[int, None] = {}
        self._idle: asyncio.Event | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        link: Link,
        queue: str,
        prefetch: int,
        arrived: Callable[[Lane, Arrival], None],
        lost: Callable[[Lane], None],
    ) -> Lane:
        """Consume a queue. `lost` is called when the channel ends for any reason. Raises `BrokerUnavailable`."""
        channel = await link.channel()
        lane = cls(queue, channel)

        def take(arrival: Arrival) -> None:
            lane._unsettled[arrival.tag] = None
            arrived(lane, arrival)

        async def on_message(message: DeliveredMessage) -> None:
            properties = message.header.properties
            headers = dict(properties.headers or {})
            redelivered = bool(message.redelivered)
            take(Arrival(message.delivery_tag or 0, redelivered, properties.content_type, headers, message.body))

        def on_cancel(_: Any) -> None:
            # we are inside the reader of the channel here, and must not wait for it
            lane._begin_to_close()

        def on_end(_: Any) -> None:
            if tap is not None:
                tap.leave(channel.number)
            lane.closed = True
            lane.held.clear()
            lane.packs.clear()
            if lane._idle is not None:
                lane._idle.set()
            lost(lane)

        tap = link.tap_of(channel)
        if tap is not None:
            tap.take(channel.number, take)
        channel.closing.add_done_callback(on_end)
        channel.on_consumer_cancel_callbacks.add(on_cancel)
        async with link.server.speaking():
            await channel.basic_qos(prefetch_count=prefetch)
            await channel.basic_consume(queue, on_message)
        return lane

    async def settle(self, tokens: Iterable[Token]) -> None:
        """These deliveries are dealt with. The messages that this completes are acknowledged: with one word, as far as
        nothing unsettled lies before them."""
        if self.closed:
            return
        tags: set[int] = set()
        for _, tag, place, part, _ in tokens:
            self.held.pop(place, None)
            pack = self.packs.get(tag)
            if pack is None:
                tags.add(tag)
            elif pack.settle(part):
                del self.packs[tag]
                tags.add(tag)
        await self.acknowledge(tags)
        if not self.held and self._idle is not None:
            self._idle.set()

    async def acknowledge(self, tags: Set[int]) -> None:
        """These messages are done with, packs as a whole."""
        upto = 0
        for tag in self._unsettled:
            if tag not in tags:
                break
            upto = tag
        singles = sorted(tag for tag in tags if tag > upto and tag in self._unsettled)
        for tag in tags:
            self._unsettled.pop(tag, None)
        # when the channel ends meanwhile, they come again
        with suppress(*BROKEN):
            if upto:
                await self._channel.basic_ack(upto, multiple=True, wait=False)
            for tag in singles:
                await self._channel.basic_ack(tag, wait=False)

    async def idle(self, patience_s: float) -> None:
        """Wait up to so long until all that was handed out is settled."""
        if self.held and not self.closed:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._idle.wait()

    async def close(self) -> None:
        """Give back what is not settled."""
        await asyncio.shield(self._begin_to_close())

    def _begin_to_close(self) -> asyncio.Task[None]:
        """Once: a queue that is deleted while its consumer leaves ends the channel from both sides."""
        if self._closing is None:
            self._closing = asyncio.create_task(close_channel(self._channel))
        return self._closing
