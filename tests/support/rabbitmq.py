"""A hand at RabbitMQ for tests, by the client library alone."""

from __future__ import annotations

import os
from collections.abc import Iterable

import aiormq
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic


def worker() -> str:
    """The name of this worker of the test run."""
    return os.environ.get("PYTEST_XDIST_WORKER", "gw0")


class Rabbit:
    """The queues of one namespace."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url, self.namespace = url, namespace

    def name(self, short: str) -> str:
        """`service.inventory` -> `<namespace>.v1.service.inventory`."""
        return f"{self.namespace}.v1.{short}"

    async def empty(
        self,
        shards: int = 8,
        services: Iterable[str] = ("inventory", "payments"),
        subscribers: Iterable[str] = ("one", "two"),
    ) -> None:
        """Leave no message behind; what is dear to set up stays."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            if await self._count(connection, "record.map") is None:
                return
            for queue in ("dead-letters", "returned", *(f"shard.{shard:02d}" for shard in range(shards))):
                await channel.queue_purge(self.name(queue))
            for queue in (
                *(f"{kind}.{service}" for kind in ("service", "packs") for service in services),
                *(f"subscriber.{subscriber}" for subscriber in subscribers),
                *(f"record.subscription.{subscriber}" for subscriber in subscribers),
            ):
                await channel.queue_delete(self.name(queue))
        finally:
            await connection.close()

    async def remove(self, shards: int = 8, services: Iterable[str] = (), subscribers: Iterable[str] = ()) -> None:
        """Delete the whole installation, also if it is not all there."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            for queue in (
                *("dead-letters", "returned", "record.map"),
                *(f"shard.{shard:02d}" for shard in range(shards)),
                *(f"{kind}.{service}" for service in services for kind in ("service", "packs")),
                *(f"subscriber.{subscriber}" for subscriber in subscribers),
                *(f"record.subscription.{subscriber}" for subscriber in subscribers),
            ):
                await channel.queue_delete(self.name(queue))
            for exchange in ("slots", "events", "members", "dead-letters"):
                await channel.exchange_delete(self.name(exchange))
        finally:
            await connection.close()

    async def put(
        self, queue: str, body: bytes, headers: dict[str, object] | None = None, content_type: str | None = None
    ) -> None:
        """Publish a message as a stranger would."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            properties = Basic.Properties(headers=headers, content_type=content_type, delivery_mode=2)  # type: ignore[arg-type]
            await channel.basic_publish(body, routing_key=self.name(queue), properties=properties, mandatory=True)
        finally:
            await connection.close()

    async def count(self, queue: str) -> int | None:
        """How many messages wait in a queue; None when there is no such queue."""
        connection = await aiormq.connect(self.url)
        try:
            return await self._count(connection, queue)
        finally:
            await connection.close()

    async def declare(self, queue: str, arguments: dict[str, object]) -> None:
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            await channel.queue_declare(self.name(queue), durable=True, arguments=arguments)  # type: ignore[arg-type]
        finally:
            await connection.close()

    async def give_back(self, queue: str, times: int) -> None:
        """Take the first message of a queue and give it back, again and again, or until it is gone."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            for _ in range(times):
                message = await channel.basic_get(self.name(queue))
                if not isinstance(message.delivery, Basic.GetOk):
                    return
                await channel.basic_nack(message.delivery.delivery_tag or 0)
        finally:
            await connection.close()

    async def reject(self, queue: str) -> None:
        """Take the first message of a queue and refuse it for good, as a stranger may."""
        connection = await aiormq.connect(self.url)
        try:
            channel = await connection.channel()
            message = await channel.basic_get(self.name(queue))
            await channel.basic_reject(message.delivery.delivery_tag or 0, requeue=False)
        finally:
            await connection.close()

    async def delete(self, queue: str) -> None:
        connection = await aiormq.connect(self.url)
        try:
            await (await connection.channel()).queue_delete(self.name(queue))
        finally:
            await connection.close()

    async def _count(self, connection: aiormq.abc.AbstractConnection, queue: str) -> int | None:
        channel: AbstractChannel = await connection.channel()
        try:
            return (await channel.queue_declare(self.name(queue), passive=True)).message_count or 0
        except aiormq.exceptions.ChannelNotFoundEntity:
            return None
