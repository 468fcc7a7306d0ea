"""A consumer: what it has in hand, and what it hands out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from amends.brokers.packing import OpenPack, parts_of
from amends.brokers.port import BrokerUnavailable, ConsumerClosed, Delivery
from amends.brokers.rabbitmq.lane import Lane, Token
from amends.brokers.rabbitmq.splitting import Splitter, Torn
from amends.brokers.rabbitmq.wire import times_before, unwrap
from amends.contracts import UsageError
from amends.contracts.packs import Unpacked

if TYPE_CHECKING:
    from amends.brokers.rabbitmq.dead import DeadLetters
    from amends.brokers.rabbitmq.link import Link
    from amends.brokers.rabbitmq.returned import ReturnedLetters
    from amends.brokers.rabbitmq.tap import Arrival
    from amends.contracts import Envelope

HANDOVER_S: Final = 1.0
"""How long what is in hand of a lost shard may take to be settled before the next owner gets it again."""


class Exits(NamedTuple):
    """Where messages go that are not acknowledged: to the dead letters, to those that are judged when `delivery_limit`
    is reached, or back as single messages."""

    dead: DeadLetters
    returned: ReturnedLetters
    splitter: Splitter
    delivery_limit: int


class RabbitmqConsumer:
    """Takes messages ahead, up to a number of them from each queue, and hands them out from memory.

    `receive` opens what is not open: a lane to each queue, on a connection that works. So a consumer survives the loss
    of its connection by being asked again. A consumer that nobody asks takes nothing: in a long outage of the store its
    messages are not handed out again and again.

    The envelopes of a pack are deliveries of their own. A pack that was handed out before, wherever, is split first;
    so is one that goes back when a part of it is settled.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        exits: Exits,
        prepare: Callable[[], Awaitable[None]],
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.closed = False
        self._link, self._exits = link, exits
        self._prepare, self._leave = prepare, leave
        self._queues: Mapping[str, int] = {}
        self._lanes: dict[str, Lane] = {}
        self._buffer: deque[Delivery] = deque()
        self._torn: list[Torn] = []
        self._overdue: list[Delivery] = []
        self._spent: list[Delivery] = []
        self._tidying = asyncio.Lock()
        self._places = 0
        self._waiter: asyncio.Future[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    # which queues

    def read_from(self, queues: Mapping[str, int]) -> None:
        """Read these queues from now on, taking so many messages ahead from each.

        Of those that are not among them nothing is handed out any more; what is in hand may still be settled for a
        moment, and is given back then.
        """
        self._queues = queues
        for queue in [queue for queue in self._lanes if queue not in queues]:
            lane = self._lanes.pop(queue)
            self._drop(lane)
            lane.retired = True
            task = asyncio.create_task(self._close_lane(lane, HANDOVER_S))
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
        missing = sorted((queue, ahead) for queue, ahead in self._queues.items() if queue not in self._lanes)
        results = await asyncio.gather(*(self._open_lane(*one) for one in missing), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()

    async def _open_lane(self, queue: str, ahead: int) -> None:
        lane = await Lane.open(self._link, queue, ahead, self._arrived, self._lost)
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
        count = times_before(arrival.headers, redelivered=arrival.redelivered) + 1
        parts = parts_of(arrival.content_type, arrival.body)
        if parts is None:
            envelope, problem = unwrap(arrival.headers, arrival.content_type, arrival.body)
            self._keep(Token(lane, arrival.tag, self._places, 0, count), envelope, arrival.body, problem)
        elif count > 1 and any(part.envelope for part in parts):
            self._torn.append(Torn(lane, arrival.tag, parts, count - 1))
        else:
            lane.packs[arrival.tag] = OpenPack(parts)
            for number, part in enumerate(parts):
                token = Token(lane, arrival.tag, self._places, number, count)
                self._keep(token, part.envelope, part.body, part.problem)
        self._wake()

    def _keep(self, token: Token, envelope: Envelope | None, body: bytes, problem: str) -> None:
        self._places += 1
        delivery = Delivery(envelope, token.came, token, b"" if envelope else body, problem)
        if token.came > self._exits.delivery_limit:
            self._overdue.append(delivery)
        else:
            self._buffer.append(delivery)

    def _lost(self, lane: Lane) -> None:
        if self._lanes.get(lane.queue) is lane:
            del self._lanes[lane.queue]
        self._drop(lane)
        self._wake()

    def _drop(self, lane: Lane) -> None:
        """What is still in the buffer comes again elsewhere."""
        self._buffer = deque(delivery for delivery in self._buffer if delivery.token.lane is not lane)
        self._torn = [pack for pack in self._torn if pack.lane is not lane]
        self._overdue = [delivery for delivery in self._overdue if delivery.token.lane is not lane]
        self._spent = [delivery for delivery in self._spent if delivery.token.lane is not lane]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the port

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        # others get their turn, also when there is always something here
        await asyncio.sleep(0)
        while not self.closed:
            if self._torn or self._overdue or self._spent:
                await self._link.job(self._tidy())
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
            token: Token = delivery.token
            token.lane.held[token.place] = delivery.deliveries
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for lane, tokens in self._mine(deliveries).items():
            await lane.settle(tokens)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back to the front of what is here: they are not handed to another process before this consumer
        closes or loses them."""
        again: list[Delivery] = []
        for delivery in deliveries:
            token: Token = delivery.token
            if self._holds(delivery):
                del token.lane.held[token.place]
                count = delivery.deliveries + 1
                released = Delivery(delivery.envelope, count, token, delivery.body, delivery.problem)
                (self._spent if count - token.came >= self._exits.delivery_limit else again).append(released)
        self._buffer = deque(sorted([*again, *self._buffer], key=lambda delivery: delivery.token.place))
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
        for kept in (self._torn, self._overdue, self._spent):
            kept.clear()
        lanes, self._lanes = list(self._lanes.values()), {}
        # without a connection there is nothing to leave
        with suppress(BrokerUnavailable):
            await self._leave()
        # those with packs last: what they give back must not be sent to another lane that is about to close
        await asyncio.gather(*(lane.close() for lane in lanes if not lane.packs), *self._retiring)
        await asyncio.gather(*(self._close_lane(lane) for lane in lanes if lane.packs))

    async def _close_lane(self, lane: Lane, patience_s: float = 0) -> None:
        """Give back what is in hand, after waiting a moment for the rest of it to be settled. What is settled of a pack
        does not come again."""
        if patience_s:
            await lane.idle(patience_s)
        touched = [Torn(lane, tag, pack.left, 1) for tag, pack in lane.packs.items() if pack.touched]
        # whoever gets the pack then splits it
        with suppress(BrokerUnavailable):
            await self._exits.splitter.split(touched)
        await lane.close()

    # what is not handed out

    async def _tidy(self) -> None:
        """Split the packs that came again. Bury what was released here too often, and give up what others had too
        often: nobody here knows whether they ever saw it."""
        async with self._tidying:
            # a copy: more may come meanwhile
            torn = list(self._torn)
            await self._exits.splitter.split(torn)
            self._torn = [pack for pack in self._torn if pack not in torn]
            while self._spent:
                delivery = self._spent[0]
                times = delivery.deliveries - 1
                detail = f"handed out {times} times and never acknowledged"
                await self._to_the_dead(delivery, times, "delivery-limit", detail)
                self._spent = [other for other in self._spent if other is not delivery]
            while self._overdue:
                delivery = self._overdue[0]
                token: Token = delivery.token
                await self._exits.returned.give_up(Unpacked(delivery.envelope, delivery.body), token.lane.queue)
                await token.lane.settle([token])
                self._overdue = [other for other in self._overdue if other is not delivery]

    async def _to_the_dead(self, delivery: Delivery, times: int, reason: str, detail: str) -> None:
        token: Token = delivery.token
        await self._exits.dead.bury(delivery, token.lane.queue, times, reason, detail)
        await token.lane.settle([token])

    def _holds(self, delivery: Delivery) -> bool:
        lane: Lane = delivery.token.lane
        return not self.closed and not lane.closed and lane.held.get(delivery.token.place) == delivery.deliveries

    def _mine(self, deliveries: Sequence[Delivery]) -> Mapping[Lane, list[Token]]:
        """Those that are still in hand as they were handed out, for each lane."""
        found: dict[Lane, list[Token]] = {}
        for delivery in deliveries:
            if self._holds(delivery):
                found.setdefault(delivery.token.lane, []).append(delivery.token)
        return found
