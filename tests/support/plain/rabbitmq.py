"""The RabbitMQ part of docs/protocol.md, with plain aio-pika and `cloudevents`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError
from cloudevents.core.bindings import amqp
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from tests.support.plain.messages import Unreadable, about

PREFETCH = 64


class FromRabbitmq:
    """A message in hand."""

    def __init__(self, message: AbstractIncomingMessage, service: str) -> None:
        self.message, self.service = message, service

    def read(self) -> CloudEvent:
        try:
            return _read(self.message)
        except Exception as error:
            raise Unreadable("undecodable", str(error)) from error


class Rabbitmq:
    """The installation of a namespace."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, namespace: str) -> None:
        self._connection, self._channel, self._prefix = connection, channel, f"{namespace}.v1"

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, namespace: str) -> AsyncIterator[Rabbitmq]:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            yield cls(connection, channel, namespace)

    async def commands(self, service: str) -> AsyncIterator[FromRabbitmq]:
        queue = await self._queue(f"{self._prefix}.service.{service}")
        print("Running", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                yield FromRabbitmq(message, service)

    async def done(self, received: FromRabbitmq) -> None:
        await received.message.ack()

    async def bury(self, received: FromRabbitmq, unreadable: Unreadable) -> None:
        message = received.message
        headers: Any = {**message.headers, **about(unreadable, received.service)}
        letter = aio_pika.Message(
            message.body,
            headers=headers,
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._channel.default_exchange.publish(letter, f"{self._prefix}.dead-letters")
        await self.done(received)

    async def listen(self, client: str) -> AsyncIterator[CloudEvent]:
        queue = await self._channel.declare_queue(f"{self._prefix}.client.{client}", exclusive=True, auto_delete=True)

        async def said() -> AsyncIterator[CloudEvent]:
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    yield _read(message)

        return said()

    async def send(self, address: str, event: CloudEvent) -> None:
        kind, _, name = address.partition(":")
        match kind:
            case "slot":
                exchange, key = await self._exchange("slots"), address
            case "event":
                exchange, key = await self._exchange("events"), name
            case _:
                exchange, key = self._channel.default_exchange, f"{self._prefix}.{address.replace(':', '.')}"
        written = amqp.to_binary(event, JSONFormat())
        message = aio_pika.Message(
            written.application_data,
            headers=written.application_properties,
            content_type=written.properties.get("content-type"),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        if kind in ("client", "event"):
            # a caller that is gone, an event that nobody subscribes to: dropped
            with suppress(DeliveryError):
                await exchange.publish(message, key)
        else:
            await exchange.publish(message, key)

    async def _exchange(self, name: str) -> Any:
        return await self._channel.get_exchange(f"{self._prefix}.{name}", ensure=False)

    async def _queue(self, name: str) -> AbstractQueue:
        """Declare it passively, and really only when it is not there; on a channel of its own."""
        try:
            channel = await self._connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            return await channel.get_queue(name)
        except ChannelNotFoundEntity:
            channel = await self._connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            arguments: Any = {
                "x-queue-type": "quorum",
                "x-delivery-limit": 50,
                "x-dead-letter-exchange": f"{self._prefix}.returned",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            return await channel.declare_queue(name, durable=True, arguments=arguments)


def _read(message: AbstractIncomingMessage) -> CloudEvent:
    properties = {} if message.content_type is None else {"content-type": message.content_type}
    event = amqp.from_binary(amqp.AMQPMessage(properties, dict(message.headers), message.body), JSONFormat())
    assert isinstance(event, CloudEvent)
    return event
