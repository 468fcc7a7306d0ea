"""The in-memory broker: the same promises as the others, but for surviving the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from amends.brokers.port import ConsumerClosed, DeadLetter, Delivery, Outgoing
from amends.brokers.queues import CLIENT, EVENT, queue_of, shard_queue, subscriber_queue
from amends.brokers.shards import ShardMap
from amends.brokers.shares import share_out
from amends.contracts import Clock, Envelope, SystemClock, UsageError
from amends.contracts.names import client_address, service_address

_SHARDS: Final = "shards"
_PRIVATE_PREFETCH: Final = 4096


class MemoryBroker:
    """A `Broker` in the memory of one event loop.

    Nothing in it takes time or waits for anything but messages, and it uses the given clock only, so that programs on a
    virtual clock can be run on it. `join` gives another broker on the same messages, as a second program would have;
    `close` closes the consumers of one.
    """

    shared = False

    def __init__(
        self, shard_map: ShardMap | None = None, clock: Clock | None = None, *, delivery_limit: int = 50
    ) -> None:
        self.shard_map = shard_map or ShardMap()
        self._medium = _Medium(self.shard_map, clock or SystemClock(), delivery_limit)
        self._consumers: list[MemoryConsumer] = []
        self._closed = False

    def join(self) -> MemoryBroker:
        """Another broker on the same messages."""
        other = MemoryBroker(self.shard_map)
        other._medium = self._medium
        return other

    @property
    def pending(self) -> int:
        """How many messages are queued or in hand: published, and neither acknowledged nor dead."""
        return self._medium.pending

    @property
    def in_hand(self) -> int:
        """How many messages consumers hold: taken, and not yet acknowledged or given back."""
        return self._medium.in_hand

    @property
    def published(self) -> int:
        """How many messages were ever put into queues: it stands still while nobody sends anything."""
        return self._medium.published

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._check_open()
        routed = [(queue_of(message.address, self.shard_map), message.envelope) for message in messages]
        for address, envelope in routed:
            self._medium.publish(address, envelope)

    async def consume_service(self, service: str, *, prefetch: int = 256) -> MemoryConsumer:
        return self._open(service_address(service), prefetch)

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> MemoryConsumer:
        consumer = self._open(_SHARDS, _PRIVATE_PREFETCH, on_change)
        self._medium.share_shards()
        # so that `on_change` has been called
        await asyncio.sleep(0)
        return consumer

    async def consume_client(self, client: str) -> MemoryConsumer:
        return self._open(client_address(client), _PRIVATE_PREFETCH)

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> MemoryConsumer:
        consumer = self._open(subscriber_queue(subscriber), 256)
        self._medium.subscriptions[subscriber_queue(subscriber)] = frozenset(event_types)
        return consumer

    def _open(
        self, name: str, prefetch: int, on_change: Callable[[frozenset[int]], None] | None = None
    ) -> MemoryConsumer:
        self._check_open()
        consumer = MemoryConsumer(self._medium, name, prefetch, on_change)
        self._medium.admit(consumer)
        self._consumers = [known for known in self._consumers if not known.closed]
        self._consumers.append(consumer)
        return consumer

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters, newest first."""
        self._check_open()
        return self._medium.dead[: -limit - 1 : -1]

    async def close(self) -> None:
        self._closed = True
        for consumer in self._consumers:
            await consumer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the broker in memory is closed. Open another one")


class _Item:
    """A message in its queue, or in the hands of `owner`."""

    __slots__ = ("deliveries", "envelope", "owner", "queue", "seq")

    def __init__(self, seq: int, queue: _Queue, envelope: Envelope) -> None:
        self.seq, self.queue, self.envelope = seq, queue, envelope
        self.deliveries = 0
        self.owner: MemoryConsumer | None = None


class _Queue:
    __slots__ = ("consumers", "items", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: deque[_Item] = deque()
        self.consumers: list[MemoryConsumer] = []

    def put_back(self, items: Sequence[_Item]) -> None:
        """Items that had been taken wait in their old places again."""
        for item in items:
            item.owner = None
        self.items = deque(sorted([*items, *self.items], key=_seq))
        self.wake()

    def wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()


def _seq(item: _Item) -> int:
    return item.seq


class _Medium:
    """What the brokers that were joined have in common: queues, subscriptions, dead letters."""

    def __init__(self, shard_map: ShardMap, clock: Clock, delivery_limit: int) -> None:
        self.clock = clock
        self.delivery_limit = delivery_limit
        self.pending = 0
        self.subscriptions: dict[str, frozenset[str]] = {}
        self.dead: list[DeadLetter] = []
        self._shards = shard_map.shards
        self._queues: dict[str, _Queue] = {}
        self._holders: dict[int, int] = {}
        self._shard_consumers: dict[int, MemoryConsumer] = {}
        self._last_seq = 0
        self._last_consumer = 0

    @property
    def published(self) -> int:
        return self._last_seq

    @property
    def in_hand(self) -> int:
        return self.pending - sum(len(queue.items) for queue in self._queues.values())

    def queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name)
        return queue

    def publish(self, address: str, envelope: Envelope) -> None:
        if address.startswith(EVENT):
            event_type = address[len(EVENT) :]
            for name, types in self.subscriptions.items():
                if event_type in types:
                    self._put(self.queue(name), envelope)
        elif address in self._queues or not address.startswith(CLIENT):
            self._put(self.queue(address), envelope)

    def _put(self, queue: _Queue, envelope: Envelope) -> None:
        self._last_seq += 1
        self.pending += 1
        queue.items.append(_Item(self._last_seq, queue, envelope))
        queue.wake()

    def admit(self, consumer: MemoryConsumer) -> None:
        self._last_consumer += 1
        consumer.id = self._last_consumer
        if consumer.on_change is not None:
            self._shard_consumers[consumer.id] = consumer
        else:
            self.attach(consumer, self.queue(consumer.name))

    def attach(self, consumer: MemoryConsumer, queue: _Queue) -> None:
        queue.consumers.append(consumer)
        consumer.queues.append(queue)
        consumer.wake()

    def detach(self, consumer: MemoryConsumer, queue: _Queue) -> None:
        """A consumer leaves a queue; what it has of it waits again. The last one of a client takes the queue along."""
        queue.consumers.remove(consumer)
        consumer.queues.remove(queue)
        queue.put_back([item for item in consumer.held.values() if item.queue is queue])
        consumer.held = {seq: item for seq, item in consumer.held.items() if item.queue is not queue}
        if queue.name.startswith(CLIENT) and not queue.consumers:
            del self._queues[queue.name]
            self.pending -= len(queue.items)

    def leave(self, consumer: MemoryConsumer) -> None:
        for queue in list(consumer.queues):
            self.detach(consumer, queue)
        if self._shard_consumers.pop(consumer.id, None) is not None:
            self._holders = {s: holder for s, holder in self._holders.items() if holder != consumer.id}
            self.share_shards()

    def share_shards(self) -> None:
        """Share the shards out anew, and tell those whose share has changed: the losers first."""
        before = {id: consumer.shards for id, consumer in self._shard_consumers.items()}
        shares = share_out(self._shards, list(self._shard_consumers), self._holders)
        self._holders = {shard: id for id, share in shares.items() for shard in share}
        for id, consumer in self._shard_consumers.items():
            for shard in sorted(before[id] - shares[id]):
                self.detach(consumer, self.queue(shard_queue(shard)))
        for id, consumer in self._shard_consumers.items():
            for shard in sorted(shares[id] - before[id]):
                self.attach(consumer, self.queue(shard_queue(shard)))
            consumer.shards = shares[id]
        changed = [consumer for id, consumer in self._shard_consumers.items() if before[id] != shares[id]]
        for consumer in sorted(changed, key=lambda consumer: consumer.shards >= before[consumer.id]):
            consumer.tell_shards()

    def bury(self, item: _Item, reason: str, detail: str) -> None:
        self.pending -= 1
        self.dead.append(
            DeadLetter(
                len(self.dead) + 1, item.queue.name, reason, detail, self.clock.now(), item.deliveries, item.envelope
            )
        )


class MemoryConsumer:
    """Takes messages straight from the queues, up to `prefetch` of them not acknowledged."""

    def __init__(
        self, medium: _Medium, name: str, prefetch: int, on_change: Callable[[frozenset[int]], None] | None
    ) -> None:
        if prefetch < 1:
            raise UsageError(f"prefetch={prefetch} does not fit: a consumer must take at least 1 message")
        self.id = 0
        self.name = name
        self.queues: list[_Queue] = []
        self.held: dict[int, _Item] = {}
        self.shards: frozenset[int] = frozenset()
        self.on_change = on_change
        self._medium = medium
        self._prefetch = prefetch
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def tell_shards(self) -> None:
        if self.on_change is not None:
            # on its own, so that an error in it is nobody else's
            asyncio.get_running_loop().call_soon(self.on_change, self.shards)

    def take(self, limit: int = 256) -> Sequence[Delivery]:
        """What is there now, oldest first, up to `limit`; maybe nothing. Never waits."""
        taken: list[Delivery] = []
        limit = min(limit, self._prefetch - len(self.held))
        filled = [queue for queue in self.queues if queue.items]
        while filled and len(taken) < limit:
            queue = filled[0] if len(filled) == 1 else min(filled, key=_head)
            item = queue.items.popleft()
            if not queue.items:
                filled.remove(queue)
            if item.deliveries >= self._medium.delivery_limit:
                times = f"handed out {item.deliveries} times and never acknowledged"
                self._medium.bury(item, "delivery-limit", times)
                continue
            item.deliveries += 1
            item.owner = self
            self.held[item.seq] = item
            taken.append(Delivery(item.envelope, item.deliveries, item))
        return taken

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        # others get their turn, also when there is always something here
        await asyncio.sleep(0)
        while not self.closed:
            if taken := self.take(limit):
                return taken
            if self._waiter is not None:
                raise UsageError(f"two tasks receive from one consumer of {self.name}. Open a consumer for each")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise ConsumerClosed(f"the consumer of {self.name} is closed")

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for item in self._mine(deliveries):
            self._let_go(item)
            self._medium.pending -= 1

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        items = self._mine(deliveries)
        for item in items:
            self._let_go(item)
        for queue in {id(item.queue): item.queue for item in items}.values():
            queue.put_back([item for item in items if item.queue is queue])

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        for item in self._mine([delivery]):
            self._let_go(item)
            self._medium.bury(item, reason, detail)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.wake()
        self._medium.leave(self)

    def _mine(self, deliveries: Sequence[Delivery]) -> list[_Item]:
        """The messages that are still in hand here, each once."""
        found = {delivery.token.seq: delivery.token for delivery in deliveries if delivery.token.owner is self}
        return list(found.values())

    def _let_go(self, item: _Item) -> None:
        del self.held[item.seq]
        item.owner = None
        self.wake()


def _head(queue: _Queue) -> int:
    return queue.items[0].seq
