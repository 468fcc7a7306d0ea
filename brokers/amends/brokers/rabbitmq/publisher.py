"""Publishing with confirms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.batches import BatchWriter
from amends.brokers.rabbitmq.link import Link, close_channel
from amends.brokers.rabbitmq.wire import Parcel

CONFIRM_S: Final = 30.0
"""How long RabbitMQ may take to confirm a batch."""


class Writer(Protocol):
    """Publishes on one channel: gives the numbers of the parcels that reached no queue."""

    async def publish(self, parcels: Sequence[Parcel]) -> list[int]: ...


class Publisher:
    """Publishes batches over one channel, so that what goes to one queue keeps its order.

    A batch is one write, where the version of the client library allows that (see `BatchWriter`), else one public call
    for each message, all at the same time.
    """

    def __init__(self, link: Link, *, bulk: bool = True, confirm_s: float = CONFIRM_S) -> None:
        self._link, self._bulk, self._confirm_s = link, bulk, confirm_s
        self._channel: AbstractChannel | None = None
        self._writer: Writer | None = None
        self._opening = asyncio.Lock()

    async def publish(self, parcels: Sequence[Parcel]) -> list[int]:
        """Store all of these at the broker; the numbers of the mandatory ones that reached no queue.

        Raises `BrokerUnavailable`; then nobody knows which of them were stored.
        """
        writer = await self._open()
        server = self._link.server
        try:
            async with server.speaking(self._confirm_s):
                return await writer.publish(parcels)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                await self._give_up(writer)
                raise BrokerUnavailable(
                    f"RabbitMQ at {server.where} has not confirmed {len(parcels)} messages within "
                    f"{self._confirm_s:g} s. It stops taking messages when its memory or disk is nearly full"
                ) from error
            raise

    async def _open(self) -> Writer:
        async with self._opening:
            if self._channel is None or self._channel.is_closed or self._writer is None:
                self._channel = await self._link.job(self._link.channel(confirms=True))
                whole = self._bulk and BatchWriter.works_on(self._channel)
                self._writer = BatchWriter(self._channel) if whole else SingleWriter(self._channel)
            return self._writer

    async def _give_up(self, writer: Writer) -> None:
        """What is still confirmed on this channel is of no use to anybody."""
        if self._writer is writer and self._channel is not None:
            channel, self._channel, self._writer = self._channel, None, None
            with suppress(BrokerUnavailable):
                await self._link.job(close_channel(channel))


class SingleWriter:
    """Publishes by the public API alone."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._count = 0

    async def publish(self, parcels: Sequence[Parcel]) -> list[int]:
        results = await asyncio.gather(*map(self._publish, parcels), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [number for number, result in enumerate(results) if isinstance(result, DeliveredMessage)]

    async def _publish(self, parcel: Parcel) -> object:
        self._count += 1
        properties = Basic.Properties(
            content_type=parcel.content_type,
            headers=parcel.headers,
            delivery_mode=2,
            # returned messages are told apart by it
            message_id=f"{self._count}",
        )
        return await self._channel.basic_publish(
            parcel.body,
            exchange=parcel.exchange,
            routing_key=parcel.key,
            properties=properties,
            mandatory=parcel.mandatory,
        )
