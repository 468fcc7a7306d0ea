"""Messages on their way from a transaction to the consumers of this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from amends.brokers.embedded import tables
from amends.brokers.embedded.consumer import EmbeddedConsumer
from amends.brokers.port import Delivery
from amends.brokers.queues import CLIENT, EVENT, shard_queue
from amends.contracts import Envelope, SystemClock

if TYPE_CHECKING:
    from amends.brokers.embedded.member import Member

_decode = msgspec.msgpack.Decoder(Envelope).decode


class Parcel:
    """Deliveries that a transaction promises to consumers; they get them when it is on disk."""

    __slots__ = ("_contents", "_promised")

    def __init__(self) -> None:
        self._promised: dict[EmbeddedConsumer, int] = {}
        self._contents: dict[tuple[EmbeddedConsumer, int], list[Delivery]] = {}

    def promise(self, consumer: EmbeddedConsumer) -> None:
        """Keep room for one more at a consumer."""
        self._promised[consumer] = self._promised.get(consumer, 0) + 1
        consumer.promised += 1

    def add(self, consumer: EmbeddedConsumer, delivery: Delivery) -> None:
        self._contents.setdefault((consumer, delivery.token[1]), []).append(delivery)

    def give(self) -> None:
        self._end_promises()
        for (consumer, owner), deliveries in self._contents.items():
            if consumer.id == owner:
                consumer.give(deliveries)

    def take_back(self) -> None:
        self._end_promises()
        self._contents.clear()

    def _end_promises(self) -> None:
        for consumer, count in self._promised.items():
            consumer.promised -= count
        self._promised.clear()


class _Lane:
    """One queue, as one publication finds it: who here may have its messages at once."""

    __slots__ = ("queue", "short", "takers")

    def __init__(self, queue: str, takers: list[EmbeddedConsumer]) -> None:
        self.queue, self.takers = queue, takers
        self.short = not takers
        """Whether messages of this publication have to wait in the file."""

    def taker(self) -> EmbeddedConsumer | None:
        if self.short:
            return None
        best = self.takers[0] if len(self.takers) == 1 else max(self.takers, key=_room)
        if best.room <= 0:
            # from here on all have to wait, lest one overtakes
            self.short = True
            return None
        return best


def _room(consumer: EmbeddedConsumer) -> int:
    return consumer.room


Waiting = tuple[set[str], set[tables.Peer]]
"""The queues in which messages are waiting, and the other members to tell."""

Stamped = tuple[str, Envelope, bytes]
"""A message ready to be stored: its queue or event address, itself, and its bytes."""


class Publication:
    """One call of `publish`: a job for `SqliteFile.write`, with what belongs after it.

    A message for a queue in which nothing waits is stored as owned by a consumer of this process that has room, and
    handed over in memory: so it is not read back. The others wait in the file.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._parcel = Parcel()

    def insert(self, db: sqlite3.Connection, messages: Iterable[Stamped]) -> Waiting:
        """Store the messages. Returns the queues in which some are waiting, and the other members to tell."""
        lanes: dict[str, _Lane] = {}
        routes: dict[str, list[_Lane]] = {}
        values: list[Any] = []
        placed: list[tuple[int, EmbeddedConsumer, Envelope, str]] = []
        count = 0
        self._parcel = parcel = Parcel()
        for address, envelope, body in messages:
            route = routes.get(address)
            if route is None:
                route = routes[address] = self._route(db, address, lanes)
            for lane in route:
                taker = lane.taker()
                if taker is None:
                    values += (lane.queue, body, None, 0)
                else:
                    parcel.promise(taker)
                    placed.append((count, taker, envelope, lane.queue))
                    values += (lane.queue, body, taker.id, 1)
                count += 1
        if not count:
            return set(), set()
        first = tables.insert(db, values)
        for index, taker, envelope, queue in placed:
            parcel.add(taker, Delivery(envelope, 1, (first + index, taker.id, queue)))
        short = {lane.queue for lane in lanes.values() if lane.short}
        return short, self._member.peers_at(db, short)

    def _route(self, db: sqlite3.Connection, address: str, lanes: dict[str, _Lane]) -> list[_Lane]:
        if not address.startswith(EVENT):
            queues = [address]
        else:
            queues = tables.subscribed(db, address[len(EVENT) :])
        route = []
        for queue in queues:
            if queue not in lanes:
                consumers = tables.consumers_of(db, queue)
                if not consumers and queue.startswith(CLIENT):
                    continue
                here = [found for id, _ in consumers if (found := self._member.consumer(id)) is not None]
                lanes[queue] = _Lane(queue, [] if here and tables.is_waiting(db, queue) else here)
            route.append(lanes[queue])
        return route

    def done(self, result: Waiting) -> None:
        self._parcel.give()
        if result[0]:
            self._member.spread(*result)

    def undone(self) -> None:
        self._parcel.take_back()


class Claim:
    """Fetches what waits in the file for one consumer: a job for `SqliteFile.write`."""

    def __init__(self, member: Member, consumer: EmbeddedConsumer) -> None:
        self._member, self._consumer = member, consumer
        self._owner = consumer.id
        self._parcel = Parcel()

    def take(self, db: sqlite3.Connection) -> bool | None:
        """Claim messages. Returns whether more may be waiting, None when the consumer was expelled."""
        consumer = self._consumer
        if not consumer.wants():
            return True
        self._owner = consumer.id
        if not tables.is_registered(db, consumer.id):
            return None
        asked = consumer.room
        queues = consumer.queues
        if consumer.on_change is not None:
            # a shard may have been given up earlier in this very transaction
            queues = [shard_queue(shard) for shard in sorted(tables.shards_of(db, consumer.id))]
        found = tables.claim(db, consumer.id, queues, asked)
        self._parcel = Parcel()
        for message in found:
            if message.deliveries > self._member.options.delivery_limit:
                self._bury(db, message)
            else:
                self._parcel.promise(consumer)
                self._parcel.add(consumer, _delivery(message, consumer.id))
        return len(found) == asked

    def _bury(self, db: sqlite3.Connection, message: tables.Message) -> None:
        times = message.deliveries - 1
        db.execute("UPDATE broker_messages SET deliveries=? WHERE seq=?", (times, message.seq))
        detail = f"handed out {times} times and never acknowledged"
        tables.bury(db, self._consumer.id, message.seq, "delivery-limit", detail, SystemClock().now())

    def done(self, more: bool | None) -> None:
        self._consumer.behind = self._consumer.behind or more is not False
        self._consumer.claiming = False
        self._parcel.give()
        if more is None and self._consumer.id == self._owner:
            self._member.rejoin()

    def undone(self) -> None:
        self._parcel.take_back()


def read(body: bytes) -> tuple[Envelope | None, str]:
    """The envelope in a body, or None and why it cannot be read."""
    try:
        return _decode(body), ""
    except Exception as error:
        # whatever it is, it must not keep what comes after it
        return None, str(error)


def _delivery(message: tables.Message, owner: int) -> Delivery:
    token = (message.seq, owner, message.queue)
    envelope, problem = read(message.body)
    if envelope is None:
        body: Any = message.body
        kept = body if isinstance(body, bytes) else str(body).encode()
        return Delivery(None, message.deliveries, token, kept, problem)
    return Delivery(envelope, message.deliveries, token)
