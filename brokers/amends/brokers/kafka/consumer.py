"""A consumer of Kafka: hands out what its reader has read, and keeps account of what is in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from amends.brokers.kafka.items import Item, Pack
from amends.brokers.kafka.lag import Lag, LagReport, is_late, lag_of
from amends.brokers.kafka.partition import Partition
from amends.brokers.kafka.publisher import Publisher
from amends.brokers.kafka.reader import Reader
from amends.brokers.kafka.topics import Topics
from amends.brokers.kafka.wire import BURIAL_BYTES, SPLIT_BYTES, buried, read, split_off
from amends.brokers.port import BrokerUnavailable, ConsumerClosed, Delivery
from amends.brokers.queues import shard_queue
from amends.contracts import UsageError


class KafkaConsumer:
    """A `Consumer` of one service, one subscriber, one client, or of shards."""

    def __init__(self, reader: Reader, topics: Topics, publisher: Publisher, prefetch: int) -> None:
        if prefetch < 1:
            raise UsageError(f"prefetch={prefetch} does not fit: a consumer must take at least 1 message")
        self.closed = False
        self._reader, self._topics, self._publisher = reader, topics, publisher
        self._prefetch = prefetch
        self._lag_report = LagReport(reader.name)
        self._problem: BrokerUnavailable | None = None
        self._waiter: asyncio.Future[None] | None = None
        reader.on_news, reader.on_trouble = self._wake, self.trouble

    def trouble(self, error: BrokerUnavailable) -> None:
        """Kafka is away. Whoever receives, now or next, gets this error once; who acknowledges gets it now."""
        self._problem = error
        self._reader.give_up(error)
        self._wake()

    async def recovered(self) -> None:
        """Kafka is back: tell it what was acknowledged meanwhile. Raises `BrokerUnavailable`."""
        self._problem = None
        await self._reader.settle()

    async def lag(self, now_s: float) -> Lag:
        """How far behind it is at this time (of `time.time`). Raises `BrokerUnavailable`."""
        ends = await self._reader.ends(self._reader.partitions)
        return lag_of(self._reader.partitions, ends, now_s)

    async def report_lag(self, now_s: float) -> None:
        """Say so in the log when that is too far, every minute, and when it is over."""
        if self._lag_report.is_due(late=is_late(self._reader.partitions, now_s), now_s=now_s):
            with suppress(BrokerUnavailable):
                self._lag_report.tell(await self.lag(now_s), now_s)

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        while not self.closed:
            problem, self._problem = self._problem, None
            if problem is not None:
                raise problem
            if taken := await self._take(limit):
                return taken
            if self._waiter is not None:
                raise UsageError(
                    f"two tasks receive from one consumer of {self._reader.name}. Open a consumer for each"
                )
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise ConsumerClosed(f"the consumer of {self._reader.name} is closed")

    async def _take(self, limit: int) -> list[Delivery]:
        if packs := [pack for partition in self._reader.partitions.values() for pack in partition.to_split]:
            await self._split(packs)
        taken, overdue = self._pick(limit)
        while overdue:
            try:
                await self._bury(overdue)
            except BaseException:
                for item in (back := [*taken, *overdue]):
                    item.deliveries -= 1
                self._put_back(back)
                raise
            taken = [item for item in taken if item.in_hand and not item.partition.lost]
            if taken:
                break
            # what was behind them
            taken, overdue = self._pick(limit)
        if self._reader.wants_commit:
            self._reader.ask_for_more()
        if taken:
            self._reader.read_on()
        return [_delivery(item) for item in taken]

    async def _split(self, packs: Sequence[Pack]) -> None:
        """Publish what is in packs as single messages, behind all that is there, and be done with the packs.

        They were in the hands of somebody who may have died of one message in them.
        """
        for pack in packs:
            singles = [split_off(pack.record, part, pack.deliveries) for part in pack.parts]
            await self._publisher.publish(singles, extra_bytes=SPLIT_BYTES)
            if not pack.partition.lost:
                pack.partition.split(pack)
        # before any of them can kill us, so that it is done once
        await self._reader.settle()

    def _pick(self, limit: int) -> tuple[list[Item], list[Item]]:
        """What is there now, oldest first; and what was handed out too often."""
        taken: list[Item] = []
        overdue: list[Item] = []
        if self._reader.resting:
            return taken, overdue
        partitions = self._reader.partitions.values()
        limit = min(limit, self._prefetch - sum(partition.in_hand for partition in partitions))
        filled = [partition for partition in partitions if partition.ready]
        most = self._topics.options.delivery_limit
        while filled and len(taken) < limit:
            partition = filled[0] if len(filled) == 1 else min(filled, key=_age)
            record = partition.waiting[0].record
            # a pack as a whole, without looking at the others in between
            while partition.ready and partition.waiting[0].record is record and len(taken) < limit:
                item = partition.take()
                (taken if item.deliveries <= most else overdue).append(item)
            if not partition.ready:
                filled.remove(partition)
        return taken, overdue

    async def _bury(self, items: list[Item]) -> None:
        letters = []
        for item in items:
            times = item.deliveries - 1
            detail = f"handed out {times} times and never acknowledged"
            letters.append(self._letter(item, "delivery-limit", detail, times))
        await self._publisher.publish(letters, extra_bytes=BURIAL_BYTES)
        for item in items:
            if item.in_hand and not item.partition.lost:
                item.partition.done(item)
        await self._reader.settle()

    def _letter(self, item: Item, reason: str, detail: str, deliveries: int) -> Any:
        tp = item.partition.tp
        queue = shard_queue(tp.partition) if tp.topic == self._topics.shards else self._reader.name
        part = (item.place, item.part) if item.part is not None else None
        return buried(self._topics.dead_letters, item.record, queue, reason, detail, deliveries, part)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if items := self._mine(deliveries):
            for item in items:
                item.partition.done(item)
            self._reader.read_on()
            self._wake()
            await self._reader.settle()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self._put_back(self._mine(deliveries))
        self._wake()

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        for item in self._mine([delivery]):
            letter = self._letter(item, reason, detail, item.deliveries)
            await self._publisher.publish([letter], extra_bytes=BURIAL_BYTES)
            await self.ack([delivery])

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._wake()
        await self._reader.close()

    def _put_back(self, items: Sequence[Item]) -> None:
        of: dict[Partition, list[Item]] = {}
        for item in items:
            if item.in_hand:
                of.setdefault(item.partition, []).append(item)
        for partition, back in of.items():
            partition.put_back(back)

    def _mine(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """What is still in hand here, each once."""
        items = dict.fromkeys(delivery.token for delivery in deliveries)
        return [item for item in items if item.in_hand and not item.partition.lost]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _age(partition: Partition) -> int:
    return partition.waiting[0].record.timestamp  # type: ignore[no-any-return]


def _delivery(item: Item) -> Delivery:
    if (part := item.part) is not None:
        return Delivery(part.envelope, item.deliveries, item, part.body if part.envelope is None else b"", part.problem)
    envelope, problem = read(item.record)
    if envelope is None:
        return Delivery(None, item.deliveries, item, item.record.value or b"", problem)
    return Delivery(envelope, item.deliveries, item)
