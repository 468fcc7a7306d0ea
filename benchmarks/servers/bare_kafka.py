"""Letters over Kafka with aiokafka: a batch for each partition, of single letters or of packs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from amends.contracts.packs import PACK_TYPE
from benchmarks.servers.letters import (
    BATCH,
    BOXES,
    CLIENT,
    PACK,
    SHARD_COUNT,
    Letter,
    Post,
    Sendings,
    alike,
    envelope_of,
)
from benchmarks.servers.packs import event_of, pack_of, read_pack
from benchmarks.servers.recording import Recording, names

Record: TypeAlias = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""

_WAIT_MS: Final = 250
_BATCH_BYTES: Final = 512 * 1024


class KafkaPost(Post):
    """`Post` with an idempotent producer, and a consumer that has all partitions of its topics."""

    def __init__(self, producer: Any, consumer: Any, records: Callable[[Sendings], Iterator[Record]]) -> None:
        self._producer, self._consumer, self._records = producer, consumer, records
        self._committing: asyncio.Future[None] | None = None

    @classmethod
    async def single(cls, url: str, recording: Recording, boxes: frozenset[str]) -> KafkaPost:
        """A record for each letter."""
        return await cls._open(url, boxes, lambda sendings: _singles(recording, sendings))

    @classmethod
    async def packed(cls, url: str, recording: Recording, boxes: frozenset[str]) -> KafkaPost:
        """A record for up to 32."""
        return await cls._open(url, boxes, lambda sendings: _packs(recording, sendings))

    @classmethod
    async def _open(cls, url: str, boxes: frozenset[str], records: Callable[[Sendings], Iterator[Record]]) -> KafkaPost:
        servers = url.removeprefix("kafka://")
        await _make_topics(servers)
        producer = AIOKafkaProducer(
            bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=_BATCH_BYTES
        )
        await producer.start()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, group_id="bare", enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        consumer.assign([tp for box in boxes for tp in _partitions(box)])
        return cls(producer, consumer, records)

    async def publish(self, sendings: Sendings) -> None:
        stored: list[asyncio.Future[Any]] = []
        by_partition: dict[TopicPartition, list[tuple[str, Letter]]] = {}
        for box, letter in sendings:
            partition = 0 if box == CLIENT else letter.shard
            by_partition.setdefault(TopicPartition(_topic(box), partition), []).append((box, letter))
        for tp, some in by_partition.items():
            batch = self._producer.create_batch()
            for key, value, headers in self._records(some):
                if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                    stored.append(await self._send(tp, batch))
                    batch = self._producer.create_batch()
                    batch.append(timestamp=None, key=key, value=value, headers=headers)
            stored.append(await self._send(tp, batch))
        await asyncio.gather(*stored)

    async def _send(self, tp: TopicPartition, batch: Any) -> asyncio.Future[Any]:
        batch.close()
        sent: asyncio.Future[Any] = await self._producer.send_batch(batch, tp.topic, partition=tp.partition)
        return sent

    async def receive(self) -> tuple[Sequence[Letter], Any]:
        while not (found := await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=BATCH)):
            pass
        letters: list[Letter] = []
        for records in found.values():
            for record in records:
                name, value = record.headers[0]
                letters += read_pack(record.value) if name == _CONTENT_TYPE else [Letter.read(value.decode())]
        return letters, {tp: records[-1].offset + 1 for tp, records in found.items()}

    async def ack(self, token: Any) -> None:
        self._committing = asyncio.ensure_future(self._consumer.commit(token))
        await asyncio.shield(self._committing)

    async def close(self) -> None:
        if self._committing is not None:
            await asyncio.wait({self._committing})
        await self._consumer.stop()
        await self._producer.stop()


_CONTENT_TYPE: Final = "content-type"


def _topic(box: str) -> str:
    return f"bare.{box}"


def _partitions(box: str) -> list[TopicPartition]:
    return [TopicPartition(_topic(box), n) for n in range(1 if box == CLIENT else SHARD_COUNT)]


async def _make_topics(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        made = await admin.create_topics([NewTopic(_topic(box), len(_partitions(box)), 1) for box in BOXES])
        for topic, code, *_ in made.topic_errors:
            assert code in (0, TopicAlreadyExistsError.errno), f"{topic}: error {code}"
    finally:
        await admin.close()


def _singles(recording: Recording, sendings: Sendings) -> Iterator[Record]:
    for box, letter in sendings:
        key = (box, *alike(recording, letter))
        blank = _blanks.get(key)
        envelope = envelope_of(recording, box, letter)
        if blank is None:
            attributes = envelope.attributes()
            attributes["content-type"] = attributes.pop("datacontenttype")
            del attributes["id"]
            blank = _blanks[key] = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
        yield names(letter.number)[0], envelope.data, [("ce_id", letter.mark.encode()), *blank]


_blanks: dict[tuple[str, bool, int], list[tuple[str, bytes]]] = {}


def _packs(recording: Recording, sendings: Sendings) -> Iterator[Record]:
    for at in range(0, len(sendings), PACK):
        some = sendings[at : at + PACK]
        value = pack_of([event_of(recording, box, letter) for box, letter in some])
        yield names(some[0][1].number)[0], value, [(_CONTENT_TYPE, PACK_TYPE.encode())]
