"""Kafka as a `Broker`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from aiokafka import TopicPartition

from amends.brokers.kafka.consumer import KafkaConsumer
from amends.brokers.kafka.group import GroupReader
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.pack_readers import PackReaders
from amends.brokers.kafka.publisher import Publisher
from amends.brokers.kafka.reader import ClientReader, Reader
from amends.brokers.kafka.routes import Routes
from amends.brokers.kafka.topics import Topics
from amends.brokers.kafka.wire import unearthed
from amends.brokers.port import BrokerUnavailable, DeadLetter, Outgoing
from amends.brokers.queues import subscriber_queue
from amends.brokers.shards import ShardMap
from amends.contracts import UsageError
from amends.contracts.names import service_address

_PRIVATE_PREFETCH: Final = 4096
_PING_S: Final = 1.0


class KafkaBroker:
    """The `Broker` on Apache Kafka 3.9 and 4.x.

    A message is published when all copies in step have it. Messages with one key, which is the saga id, are in one
    partition and so in order; each partition is read by one consumer of its group at a time, so consumers of one
    service compete for sagas, not for single messages, and no more of them work than there are partitions.

    Acknowledgements are committed in one offset per partition, which stays at the oldest message in hand; what is
    acknowledged beyond it is in a note with the offset, as far as it fits. After a crash messages may therefore come
    again that were acknowledged before. The note also says what may be in hand, so that after a crash everything that
    perhaps was counts as handed out; a message that was there twice is handed out alone, and from then on counted to
    the one.

    Under load several messages travel in one record, a pack: to shards always, to a service while participants of ours
    consume it. A service in another language gets single messages; it and participants of ours cannot share one group.

    An event waits for those who had subscribed to its type before it was published. A subscription ends when nobody of
    its name was there for as long as Kafka keeps the offsets of idle groups (`offsets.retention.minutes`, a week).
    """

    shared = True

    def __init__(self, options: KafkaOptions, shard_map: ShardMap) -> None:
        self.shard_map = shard_map
        self.options = options
        self._topics = Topics(options, shard_map)
        self._publisher = Publisher(options)
        self._pack_readers = PackReaders(self._topics)
        self._routes = Routes(self._topics, shard_map, self._pack_readers)
        self._consumers: list[KafkaConsumer] = []
        self._away: BrokerUnavailable | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._closed = False

    @classmethod
    async def open(cls, url: str | KafkaOptions, shard_map: ShardMap | None = None) -> KafkaBroker:
        """Connect, and make the topics that are missing. See `KafkaOptions` for what a URL may say.

        Raises `UsageError` for a URL that cannot be, and for another shard map than that of the topics;
        `BrokerUnavailable` when Kafka cannot be reached or lets us not do what is necessary.
        """
        options = KafkaOptions.parse(url) if isinstance(url, str) else url
        broker = cls(options, shard_map or ShardMap())
        try:
            await broker._topics.start()
        except BaseException:
            await broker._topics.close()
            raise
        broker._watches = [asyncio.create_task(job) for job in (broker._look(), broker._pack_readers.watch())]
        return broker

    @property
    def messages_kept(self) -> timedelta:
        """How long its topics keep messages."""
        return timedelta(seconds=self.options.retention_s)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._check_open()
        routes = [self._routes.route(message.address) for message in messages]
        if not routes:
            return
        self._check_reachable()
        for route in dict.fromkeys(routes):
            await self._topics.ensure(route.topics)
        await self._publisher.publish(self._routes.records(routes, [message.envelope for message in messages]))

    async def consume_service(self, service: str, *, prefetch: int = 256) -> KafkaConsumer:
        self._check_open()
        self._check_reachable()
        topics = [self._topics.of_service(service), self._topics.of_packs(service)]
        for topic in topics:
            # one after the other: the second gets as many partitions as the first
            await self._topics.ensure([topic])
        reader = GroupReader(self.options, self._topics, service_address(service), topics)
        consumer = await self._consume(reader, prefetch)
        self._pack_readers.joined(service)
        return consumer

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> KafkaConsumer:
        self._check_open()
        self._check_reachable()
        reader = GroupReader(self.options, self._topics, "shards", [self._topics.shards], on_change=on_change)
        return await self._consume(reader, _PRIVATE_PREFETCH)

    async def consume_client(self, client: str) -> KafkaConsumer:
        self._check_open()
        self._check_reachable()
        return await self._consume(ClientReader(self.options, self._topics, client), _PRIVATE_PREFETCH)

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> KafkaConsumer:
        self._check_open()
        if not event_types:
            raise UsageError(f"{subscriber!r} subscribes to no type of event. Name at least one")
        self._check_reachable()
        name = subscriber_queue(subscriber)
        topics = [self._topics.of_event(event_type) for event_type in event_types]
        await self._topics.ensure(topics)
        # types that this subscriber never had begin now; the others where it stopped
        partitions = [TopicPartition(t, p) for t in topics for p in range(self._topics.partitions(t) or 0)]
        had = {tp.topic for tp in await self._topics.committed(self._topics.group_of(name), partitions)}
        starts = await self._topics.ends([topic for topic in topics if topic not in had])
        return await self._consume(GroupReader(self.options, self._topics, name, topics, starts=starts), 256)

    async def _consume(self, reader: Reader, prefetch: int) -> KafkaConsumer:
        consumer = KafkaConsumer(reader, self._topics, self._publisher, prefetch)
        self._consumers = [known for known in self._consumers if not known.closed]
        self._consumers.append(consumer)
        try:
            await reader.open()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters, newest first."""
        self._check_open()
        self._check_reachable()
        tp = TopicPartition(self._topics.dead_letters, 0)
        async with self._topics.reader("reading the dead letters") as reader:
            reader.assign([tp])
            first = (await reader.beginning_offsets([tp]))[tp]
            end = (await reader.end_offsets([tp]))[tp]
            # some may be there twice
            reader.seek(tp, max(first, end - 2 * limit))
            records = []
            while await reader.position(tp) < end:
                for batch in (await reader.getmany(timeout_ms=1000)).values():
                    records += batch
        return unearthed(records)[:limit]

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        try:
            await asyncio.gather(*(consumer.close() for consumer in self._consumers), return_exceptions=True)
        finally:
            try:
                await self._publisher.close()
            finally:
                await self._topics.close()

    async def _look(self) -> None:
        """See whether Kafka answers, and tell those who wait for it when it does not; and who is behind."""
        while True:
            await asyncio.sleep(_PING_S)
            try:
                await self._topics.ping()
            except BrokerUnavailable as error:
                self._away = error
                self._publisher.give_up(error)
                for consumer in self._consumers:
                    consumer.trouble(error)
            else:
                if self._away is not None:
                    self._away = None
                    settling = (consumer.recovered() for consumer in self._consumers if not consumer.closed)
                    await asyncio.gather(*settling, return_exceptions=True)
                for consumer in list(self._consumers):
                    await consumer.report_lag(time.time())

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"the broker of {self.options.place} is closed. Open another one")

    def _check_reachable(self) -> None:
        """In an outage, say so at once."""
        if self._away is not None:
            raise self._away
