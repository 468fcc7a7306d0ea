"""Dead letters: a queue that is written with the reason, and read without being emptied."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from pamqp.commands import Basic

from amends.brokers.port import BrokerUnavailable, DeadLetter, Delivery
from amends.brokers.rabbitmq.records import locked
from amends.brokers.rabbitmq.wire import Headers, Parcel, unwrap, wrap
from amends.contracts.packs import Unpacked

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel, DeliveredMessage

    from amends.brokers.rabbitmq.link import Link
    from amends.brokers.rabbitmq.names import Names
    from amends.brokers.rabbitmq.publisher import Publisher

_QUEUE: Final = "amends-queue"
_REASON: Final = "amends-reason"
_DETAIL: Final = "amends-detail"
_AT: Final = "amends-at"
_DELIVERIES: Final = "amends-deliveries"
_LONGEST_DETAIL: Final = 8_000
_BACK_WAITS_S: Final = (0.01,) * 20 + (0.1,) * 20


class DeadLetters:
    """The dead-letter queue of an installation.

    In it are the letters that were given up, with their reason in headers.
    """

    def __init__(self, link: Link, publisher: Publisher, names: Names) -> None:
        self._link, self._publisher, self._names = link, publisher, names

    async def bury(self, delivery: Delivery, queue: str, times: int, reason: str, detail: str) -> None:
        """Store a message with its reason. Raises `BrokerUnavailable`."""
        parcel = self.letter(Unpacked(delivery.envelope, delivery.body), queue, times, reason, detail)
        if await self._publisher.publish([parcel]):
            raise self.missing()

    def letter(self, message: Unpacked, queue: str, times: int, reason: str, detail: str) -> Parcel:
        """The message as it is to be stored."""
        if message.envelope is not None:
            parcel = wrap(message.envelope, "", self._names.dead_letters, mandatory=True)
        else:
            parcel = Parcel("", self._names.dead_letters, message.body, {}, "application/octet-stream")
        parcel.headers |= {
            _QUEUE: self._names.address_of(queue),
            _REASON: reason,
            _DETAIL: detail[:_LONGEST_DETAIL],
            _AT: datetime.now(UTC).isoformat(),
            _DELIVERIES: times,
        }
        return parcel

    def missing(self) -> BrokerUnavailable:
        """The error when a letter reached no queue."""
        return BrokerUnavailable(
            f"RabbitMQ at {self._link.server.where} has no queue {self._names.dead_letters!r} any more. "
            "It is declared again when a process of this installation starts"
        )

    async def newest(self, limit: int) -> Sequence[DeadLetter]:
        """The newest letters, newest first. Reads all that are there, and leaves them there."""
        if limit < 1:
            return []
        async with locked(self._link, self._names, "dead-letters"):
            channel = await self._link.channel()
            async with self._link.server.speaking():
                return await self._peek(channel, limit)

    async def _peek(self, channel: AbstractChannel, limit: int) -> Sequence[DeadLetter]:
        queue = self._names.dead_letters
        count = (await channel.queue_declare(queue, passive=True)).message_count or 0
        kept: deque[DeadLetter] = deque(maxlen=limit)
        last = 0
        for _ in range(count):
            message = await channel.basic_get(queue)
            if not isinstance(message.delivery, Basic.GetOk):
                break
            last = message.delivery.delivery_tag or 0
            kept.append(self._letter(message))
        if last:
            await channel.basic_nack(last, multiple=True, requeue=True)
            await self._until_back(channel, count)
        await channel.close()
        return list(reversed(kept))

    async def _until_back(self, channel: AbstractChannel, count: int) -> None:
        """Giving back is not confirmed; whoever looks next must find all of them."""
        for wait_s in _BACK_WAITS_S:
            waiting = (await channel.queue_declare(self._names.dead_letters, passive=True)).message_count or 0
            if waiting >= count:
                return
            await asyncio.sleep(wait_s)

    def _letter(self, message: DeliveredMessage) -> DeadLetter:
        properties = message.header.properties
        headers: Headers = dict(properties.headers or {})
        envelope, problem = unwrap(headers, properties.content_type, message.body)
        queue, reason, detail, at, times = self._circumstances(headers, problem)
        named = "\0".join((properties.message_id or "", queue, reason, at.isoformat()))
        id = int.from_bytes(blake2b(named.encode() + message.body, digest_size=7).digest())
        return DeadLetter(id, queue, reason, detail, at, times, envelope, b"" if envelope else message.body)

    def _circumstances(self, headers: Headers, problem: str) -> tuple[str, str, str, datetime, int]:
        if isinstance(reason := headers.get(_REASON), str):
            at = datetime.fromisoformat(str(headers.get(_AT)))
            return str(headers.get(_QUEUE)), reason, str(headers.get(_DETAIL)), at, int(headers.get(_DELIVERIES) or 0)
        return self._names.dead_letters, "undecodable" if problem else "unknown", problem, datetime.now(UTC), 0
