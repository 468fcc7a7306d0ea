"""The Kafka part of docs/protocol.md, with plain aiokafka and `cloudevents`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from zlib import crc32

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cloudevents.core.bindings import kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from tests.support.plain.messages import Unreadable, about, slot_of


class FromKafka:
    """A record in hand."""

    def __init__(self, record: Any, service: str) -> None:
        self.record, self.service = record, service

    def read(self) -> CloudEvent:
        try:
            return _read(self.record)
        except Exception as error:
            raise Unreadable("undecodable", str(error)) from error


class Kafka:
    """The installation of a prefix."""

    def __init__(self, servers: str, prefix: str, admin: Any, producer: Any) -> None:
        self._servers, self._prefix = servers, prefix
        self._admin, self._producer = admin, producer
        self._group: Any = None
        self._shards = ""

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, prefix: str) -> AsyncIterator[Kafka]:
        servers = url.removeprefix("kafka://")
        async with AsyncExitStack() as stack:
            admin = AIOKafkaAdminClient(bootstrap_servers=servers)
            await admin.start()
            stack.push_async_callback(admin.close)
            producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
            await stack.enter_async_context(producer)
            yield cls(servers, prefix, admin, producer)

    async def commands(self, service: str) -> AsyncIterator[FromKafka]:
        topic = f"{self._prefix}.service.{service}"
        await self._make(topic)
        self._group = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self._servers,
            group_id=topic,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=3000,
            heartbeat_interval_ms=500,
        )
        async with self._group:
            print("Running", flush=True)
            async for record in self._group:
                yield FromKafka(record, service)

    async def done(self, received: FromKafka) -> None:
        # one after the other, so all below it is done
        record = received.record
        await self._group.commit({TopicPartition(record.topic, record.partition): record.offset + 1})

    async def bury(self, received: FromKafka, unreadable: Unreadable) -> None:
        record = received.record
        told = about(unreadable, received.service)
        told["amends-origin"] = f"{record.topic}/{record.partition}/{record.offset}"
        headers = [*record.headers, *((name, text.encode()) for name, text in told.items())]
        topic = f"{self._prefix}.dead-letters"
        await self._producer.send_and_wait(topic, record.value, record.key, partition=0, headers=headers)
        await self.done(received)

    async def listen(self, client: str) -> AsyncIterator[CloudEvent]:
        topic, key = f"{self._prefix}.clients", client.encode()
        mine = TopicPartition(topic, crc32(key) % await self._partitions(topic))
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, enable_auto_commit=False)
        consumer.assign([mine])
        await consumer.start()
        await consumer.seek_to_end(mine)
        # the end is where it is now, not where it will be
        await consumer.position(mine)

        async def said() -> AsyncIterator[CloudEvent]:
            try:
                async for record in consumer:
                    if record.key == key:
                        yield _read(record)
            finally:
                await consumer.stop()

        return said()

    async def send(self, address: str, event: CloudEvent) -> None:
        kind, _, name = address.partition(":")
        key = event.get_extension("partitionkey") or event.get_subject() or event.get_id()
        match kind:
            case "slot":
                topic = await self._find_shards()
                partition = int(name) * await self._partitions(topic) // 1024
            case "client":
                topic, key = f"{self._prefix}.clients", name
                partition = crc32(name.encode()) % await self._partitions(topic)
            case _:
                topic = f"{self._prefix}.{address.replace(':', '.')}"
                partition = slot_of(key) * await self._partitions(topic) // 1024
        written = kafka.to_binary(event, JSONFormat(), lambda _: key)
        headers = list(written.headers.items())
        await self._producer.send_and_wait(topic, written.value, key.encode(), partition=partition, headers=headers)

    async def _find_shards(self) -> str:
        """The one topic of the shards, whatever the version of the map."""
        if not self._shards:
            pattern = re.escape(f"{self._prefix}.shards.v") + r"\d+"
            (self._shards,) = [topic for topic in await self._admin.list_topics() if re.fullmatch(pattern, topic)]
        return self._shards

    async def _partitions(self, topic: str) -> int:
        return len(await self._producer.partitions_for(topic))

    async def _make(self, topic: str) -> None:
        config = {
            "cleanup.policy": "delete",
            "retention.ms": "604800000",
            "max.message.bytes": "1001024",
            "min.insync.replicas": "1",
        }
        # that it is there already is no error of the call
        await self._admin.create_topics([NewTopic(topic, 8, 1, topic_configs=config)])


def _read(record: Any) -> CloudEvent:
    headers = dict(record.headers)
    event = kafka.from_binary(kafka.KafkaMessage(headers, record.key, record.value or b""), JSONFormat())
    assert isinstance(event, CloudEvent)
    return event
