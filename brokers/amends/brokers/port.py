"""The `Broker` port: what amends asks of whatever carries its messages.

An adapter passes the suite in `tests/contract/broker.py`. Addresses are made by `amends.contracts.names`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from amends.brokers.shards import ShardMap
from amends.contracts import AmendsError, Envelope, TransientError


class BrokerUnavailable(TransientError):
    """The broker cannot be reached or cannot take messages now. Nothing was acknowledged; go on when it is back."""


class ConsumerClosed(AmendsError):
    """`receive` was called on, or interrupted by closing, a consumer that is closed."""


class Outgoing(Struct, frozen=True, array_like=True, gc=False):
    """A message and the address it goes to."""

    address: str
    envelope: Envelope


class Delivery(Struct, frozen=True, eq=False):
    """One message in the hands of one consumer until it is acknowledged, released or dead-lettered.

    `envelope` is None when the bytes in `body` could not be read; `problem` then says why. `deliveries` counts how
    often the message has been handed out, this time included; some brokers also count when it went to a consumer that
    ended before it was received there. `token` belongs to the adapter.
    """

    envelope: Envelope | None
    deliveries: int
    token: Any
    body: bytes = b""
    problem: str = ""


class DeadLetter(Struct, frozen=True):
    """A message that nobody can process, kept with its reason.

    `reason` is a short stable word (`undecodable`, `unknown-type`, `no-such-saga`, `refused`, `delivery-limit`, …),
    `detail` the sentence for people, `queue` where it lay.
    """

    id: int
    queue: str
    reason: str
    detail: str
    at: datetime
    deliveries: int
    envelope: Envelope | None
    body: bytes = b""


class Consumer(Protocol):
    """A stream of deliveries. Not for use by several tasks at once, but for `ack` and the like."""

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        """Wait until there is something, then take what is there, oldest first, up to `limit`.

        Deliveries that are neither acknowledged nor released go to another consumer when this one closes or its process
        dies. Raises `ConsumerClosed` once closed and `BrokerUnavailable` when the broker is away.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are dealt with, durably; they never come again.

        Messages of one call of `publish` may travel together. When this process is killed, those that are acknowledged
        come again with those that are not. A delivery that meanwhile went to somebody else is ignored.
        """
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back: they are delivered again, here or elsewhere, in their old place."""
        ...

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        """Move one to the dead letters, atomically, with a short stable reason and a sentence for people."""
        ...

    async def close(self) -> None:
        """Stop, and release whatever is still in hand."""
        ...


class Broker(Protocol):
    """Carries messages at least once.

    Durability: when `publish` returns, every message of the call is stored so that it survives the death of this
    process (and, but for in-memory brokers, of the machine). When it raises, any of them may or may not have been
    stored: the caller sends them again. Ordering: messages to one address from one publisher are handed out in the
    order of publishing, as long as none is released or redelivered, and to a service as long as they were published in
    one call, since large calls and small ones may take different ways; nothing may rely on more. Redelivery: a message
    is handed out again when its consumer died, closed or released it, and perhaps when a message of the same call is.
    """

    shard_map: ShardMap

    @property
    def shared(self) -> bool:
        """Whether several processes can be on it, so that consumers' own memory is not enough to deduplicate."""
        ...

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Store all of these, in one go. Events go to the queue of every subscriber of their type; an event without
        subscribers, or a message to a client that is gone, is dropped. Raises `BrokerUnavailable`."""
        ...

    async def consume_service(self, service: str, *, prefetch: int = 256) -> Consumer:
        """The commands of a service. Consumers of one service compete: each message goes to one of them."""
        ...

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> Consumer:
        """The shards of this broker's map: each is consumed by one process at a time.

        The broker shares the shards out among all processes that ask, and moves those of one that dies. `on_change`
        gets the set of shards this consumer holds, at each change; deliveries of a shard that was lost may still be in
        hand, and their acknowledgements are ignored.
        """
        ...

    async def consume_client(self, client: str) -> Consumer:
        """A private address; what is left in it vanishes with the client."""
        ...

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> Consumer:
        """The events of these types. Consumers with one subscriber name compete; each name gets a copy of each event.

        The subscription is durable: events published while no consumer is there wait for the next one. A later call
        with other types replaces the types.
        """
        ...

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters."""
        ...

    async def close(self) -> None:
        """Close every consumer, then the connection."""
        ...


class Returned(Struct, frozen=True, eq=False):
    """A message that the broker itself took out of a queue, as it had been handed out too often.

    `queue` is as in `DeadLetter`; `times` says how often it was put back into it before. `envelope` is None when it
    could not be read.
    """

    queue: str
    envelope: Envelope | None
    times: int


Judge = Callable[[Sequence[Returned]], Awaitable[Sequence[str | None]]]
"""Says of each what is wrong with it, in a sentence for people, or None when it is to be put back."""


@runtime_checkable
class ReturningBroker(Broker, Protocol):
    """A broker that counts what it hands out, and takes what it handed out too often out of its queue.

    It counts also what was never received: a process that dies again and again uses up messages that it never saw.
    """

    async def judge_returned(self, judge: Judge) -> None:
        """Work until cancelled: put each such message back into its queue, or file it as a dead letter of reason
        `delivery-limit`. Several processes may do it; killed in between, it leaves a message twice at most, and never
        loses one. Raises `BrokerUnavailable`, and what `judge` raises; then nothing of that batch has happened.
        """
        ...


@runtime_checkable
class ForgettingBroker(Broker, Protocol):
    """A broker that removes messages when they are so old, handled or not."""

    @property
    def messages_kept(self) -> timedelta: ...
