"""A consumer: what it has in hand, and what it hands out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from amends.brokers.port import BrokerUnavailable, ConsumerClosed, Delivery
from amends.brokers.rabbitmq.lane import Lane
from amends.brokers.rabbitmq.wire import unpack
from amends.contracts import UsageError

if TYPE_CHECKING:
    from amends.brokers.rabbitmq.link import Link
    from amends.brokers.rabbitmq.tap import Arrival

HANDOVER_S: Final = 1.0
"""How long what is in hand of a lost shard may take to be settled before the next owner gets it again."""


class Token(NamedTuple):
    """Names a delivery: its lane, its tag there, and its place among all that came to this consumer."""

    lane: Lane
    tag: int
    place: int


Bury = Callable[[Delivery, str, int, str, str], Awaitable[None]]
"""Stores a delivery among the dead letters: queue, how often it was handed out, reason, detail."""


class RabbitmqConsumer:
    """Takes messages ahead, up to `prefetch` of them from each queue, and hands them out from memory.

    `receive` opens what is not open: a lane to each queue, on a connection that works. So a consumer survives the loss
    of its connection by being asked again. A consumer that nobody asks takes nothing: in a long outage of the store its
    messages are not handed out again and again.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        prefetch: int,
        bury: Bury,
        delivery_limit: int,
        prepare: Callable[[], Awaitable[None]],
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        if prefetch < 1:
            raise UsageError(f"prefetch={prefetch} does not fit: a consumer must take at least 1 message")
        self.name = name
        self.closed = False
        self._link, self._prefetch, self._bury, self._delivery_limit = link, prefetch, bury, delivery_limit
        self._prepare, self._leave = prepare, leave
        self._queues: frozenset[str] = frozenset()
        self._lanes: dict[str, Lane] = {}
        self._buffer: deque[Delivery] = deque()
        self._overdue = 0
        self._places = 0
        self._waiter: asyncio.Future[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    # which queues

    def read_from(self, queues: frozenset[str]) -> None:
        """Read these queues from now on. Of those that are not among them nothing is handed out any more; what is in
        hand may still be settled for a moment, and is given back then."""
        self._queues = queues
        for queue in [queue for queue in self._lanes if queue not in queues]:
            lane = self._lanes.pop(queue)
            self._drop(lane)
            lane.retired = True
            task = asyncio.create_task(lane.close(HANDOVER_S))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._wake()

    async def open(self) -> None:
        """Open a lane to each queue that has none. Raises `BrokerUnavailable`."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        await self._prepare()
        queues = sorted(queue for queue in self._queues if queue not in self._lanes)
        results = await asyncio.gather(*map(self._open_lane, queues), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()

    async def _open_lane(self, queue: str) -> None:
        lane = await Lane.open(self._link, queue, self._prefetch, self._arrived, self._lost)
        if self.closed or queue not in self._queues or lane.closed:
            self._drop(lane)
            await lane.close()
        else:
            self._lanes[queue] = lane

    @property
    def _complete(self) -> bool:
        return len(self._lanes) == len(self._queues)

    # what comes in

    def _arrived(self, lane: Lane, arrival: Arrival) -> None:
        if self.closed or lane.retired:
            # it goes back when the lane closes
            return
        envelope, problem = unpack(arrival.headers, arrival.content_type, arrival.body)
        before = arrival.headers.get("x-delivery-count")
        # queues of clients do not count
        count = (before if type(before) is int else int(arrival.redelivered)) + 1
        self._places += 1
        body = b"" if envelope else arrival.body
        self._buffer.append(Delivery(envelope, count, Token(lane, arrival.tag, self._places), body, problem))
        if count > self._delivery_limit:
            self._overdue += 1
        self._wake()

    def _lost(self, lane: Lane) -> None:
        if self._lanes.get(lane.queue) is lane:
            del self._lanes[lane.queue]
        self._drop(lane)
        self._wake()

    def _drop(self, lane: Lane) -> None:
        """What is still in the buffer comes again elsewhere."""
        self._buffer = deque(delivery for delivery in self._buffer if delivery.token.lane is not lane)
        self._overdue = sum(delivery.deliveries > self._delivery_limit for delivery in self._buffer)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the port

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        # others get their turn, also when there is always something here
        await asyncio.sleep(0)
        while not self.closed:
            if self._overdue:
                await self._link.job(self._bury_overdue())
            if self._buffer:
                return self._take(limit)
            if self._waiter is not None:
                raise UsageError(f"two tasks receive from one consumer of {self.name}. Open a consumer for each")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                if not self._complete:
                    await self.open()
                if self._complete and not self._buffer:
                    await self._waiter
            finally:
                self._waiter = None
        raise ConsumerClosed(f"the consumer of {self.name} is closed")

    def _take(self, limit: int) -> Sequence[Delivery]:
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        for delivery in taken:
            delivery.token.lane.held[delivery.token.tag] = delivery.deliveries
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for lane, tags in self._mine(deliveries).items():
            await lane.settle(tags)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back to the front of what is here: they are not handed to another process before this consumer
        closes or loses them."""
        again: dict[int, Delivery] = {}
        for delivery in deliveries:
            token: Token = delivery.token
            if self._holds(delivery):
                del token.lane.held[token.tag]
                count = delivery.deliveries + 1
                again[token.place] = Delivery(delivery.envelope, count, token, delivery.body, delivery.problem)
                self._overdue += count > self._delivery_limit
        if again:
            waiting = [*again.values(), *self._buffer]
            self._buffer = deque(sorted(waiting, key=lambda delivery: delivery.token.place))
            self._wake()

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        if self._holds(delivery):
            await self._link.job(self._to_the_dead(delivery, delivery.deliveries, reason, detail))

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._wake()
        await self._link.job(self._close())

    async def _close(self) -> None:
        if self._opening is not None:
            await asyncio.wait({self._opening})
        self._buffer.clear()
        lanes, self._lanes = list(self._lanes.values()), {}
        # without a connection there is nothing to leave
        with suppress(BrokerUnavailable):
            await self._leave()
        await asyncio.gather(*(lane.close() for lane in lanes), *self._retiring)

    # the dead

    async def _bury_overdue(self) -> None:
        for delivery in [d for d in self._buffer if d.deliveries > self._delivery_limit]:
            times = delivery.deliveries - 1
            await self._to_the_dead(
                delivery, times, "delivery-limit", f"handed out {times} times and never acknowledged"
            )
            if delivery in self._buffer:
                self._buffer.remove(delivery)
                self._overdue -= 1

    async def _to_the_dead(self, delivery: Delivery, times: int, reason: str, detail: str) -> None:
        token: Token = delivery.token
        await self._bury(delivery, token.lane.queue, times, reason, detail)
        await token.lane.settle({token.tag})

    def _holds(self, delivery: Delivery) -> bool:
        lane, tag, _ = delivery.token
        return not self.closed and not lane.closed and lane.held.get(tag) == delivery.deliveries

    def _mine(self, deliveries: Sequence[Delivery]) -> Mapping[Lane, set[int]]:
        """The tags of those that are still in hand as they were handed out, for each lane."""
        found: dict[Lane, set[int]] = {}
        for delivery in deliveries:
            if self._holds(delivery):
                found.setdefault(delivery.token.lane, set()).add(delivery.token.tag)
        return found
