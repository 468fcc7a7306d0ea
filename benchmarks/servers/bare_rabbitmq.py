"""Letters over RabbitMQ with aio-pika: one by one, a batch of them in one write, or packed as well."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aiormq.abc import ChannelFrame
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amends.contracts import Envelope
from amends.contracts.packs import PACK_TYPE, is_pack
from benchmarks.servers.letters import (
    BATCH,
    CLIENT,
    PACK,
    SERVICE,
    SHARD_COUNT,
    SHARDS,
    Letter,
    Post,
    Sendings,
    alike,
    envelope_of,
)
from benchmarks.servers.packs import MARK, event_of, filled, pack_of, read_pack
from benchmarks.servers.recording import Recording

_PREFETCH: Final = 1024
_QUEUES: Final = {
    SHARDS: [f"bare.shard.{shard}" for shard in range(SHARD_COUNT)],
    SERVICE: ["bare.service"],
    CLIENT: ["bare.client"],
}


class RabbitPost(Post):
    """`Post` on two channels of one connection; the queues are quorum queues, but for that of the load."""

    def __init__(self, connection: AbstractConnection, channel: Any, consuming: Any, publish: Any) -> None:
        self._connection, self._channel, self._consuming, self._publish = connection, channel, consuming, publish
        self._arrived: deque[tuple[int, list[Letter]]] = deque()
        self._some = asyncio.Event()

    @classmethod
    async def plain(cls, url: str, recording: Recording, boxes: frozenset[str]) -> RabbitPost:
        """Each message by a call of its own, all those of a batch at the same time."""
        return await cls._open(
            url, boxes, lambda channel, _: partial(_publish_each, channel.default_exchange, recording)
        )

    @classmethod
    async def batched(cls, url: str, recording: Recording, boxes: frozenset[str]) -> RabbitPost:
        """The frames of a batch in one write, which takes what the library does not document."""
        return await cls._open(url, boxes, lambda _, raw: partial(_write_all, raw, partial(_singles, raw, recording)))

    @classmethod
    async def packed(cls, url: str, recording: Recording, boxes: frozenset[str]) -> RabbitPost:
        """The same, with up to 32 letters in a message."""
        return await cls._open(url, boxes, lambda _, raw: partial(_write_all, raw, partial(_packs, raw, recording)))

    @classmethod
    async def _open(
        cls, url: str, boxes: frozenset[str], publishing: Callable[[Any, Any], Callable[[Sendings], Any]]
    ) -> RabbitPost:
        connection = await aio_pika.connect(url)
        channel, consuming = await connection.channel(), await connection.channel()
        await consuming.set_qos(prefetch_count=_PREFETCH)
        raw = await channel.get_underlay_channel()
        post = cls(connection, channel, await consuming.get_underlay_channel(), publishing(channel, raw))
        for box, queues in _QUEUES.items():
            for name in queues:
                arguments: Any = {"x-queue-type": "quorum"} if box != CLIENT else {}
                queue = await channel.declare_queue(name, durable=True, arguments=arguments)
                if box in boxes:
                    queue = await consuming.get_queue(name)
                    await queue.consume(post._take)
        return post

    async def _take(self, message: AbstractIncomingMessage) -> None:
        if is_pack(message.content_type):
            letters = read_pack(message.body)
        else:
            letters = [Letter.read(message.message_id or "")]
        self._arrived.append((message.delivery_tag or 0, letters))
        self._some.set()

    async def publish(self, sendings: Sendings) -> None:
        await self._publish(sendings)

    async def receive(self) -> tuple[Sequence[Letter], Any]:
        await self._some.wait()
        letters: list[Letter] = []
        tag = 0
        while self._arrived and len(letters) < BATCH:
            tag, some = self._arrived.popleft()
            letters += some
        if not self._arrived:
            self._some.clear()
        return letters, tag

    async def ack(self, token: Any) -> None:
        """All up to this one."""
        await self._consuming.basic_ack(token, multiple=True, wait=False)

    async def close(self) -> None:
        await self._connection.close()


def _queue(box: str, letter: Letter) -> str:
    return _QUEUES[box][letter.shard if box == SHARDS else 0]


def _headers(envelope: Envelope) -> tuple[str, dict[str, Any]]:
    attributes = envelope.attributes()
    content_type = attributes.pop("datacontenttype")
    return content_type, {f"cloudEvents:{name}": value for name, value in attributes.items()}


# one by one


async def _publish_each(exchange: aio_pika.abc.AbstractExchange, recording: Recording, sendings: Sendings) -> None:
    async def publish(box: str, letter: Letter) -> None:
        envelope = envelope_of(recording, box, letter)
        content_type, headers = _known_headers(envelope)
        message = aio_pika.Message(
            envelope.data,
            headers=headers,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=letter.mark,
        )
        await exchange.publish(message, _queue(box, letter))

    await asyncio.gather(*(publish(box, letter) for box, letter in sendings))


_known: dict[int, tuple[str, dict[str, Any]]] = {}


def _known_headers(envelope: Envelope) -> tuple[str, dict[str, Any]]:
    # recorded envelopes live as long as the process
    found = _known.get(id(envelope))
    if found is None:
        found = _known[id(envelope)] = _headers(envelope)
    return found


# in one write


async def _write_all(channel: Any, frames: Callable[[Sendings], list[bytes]], sendings: Sendings) -> None:
    messages = frames(sendings)
    confirmed = _Confirmed(len(messages))
    first = channel.delivery_tag + 1
    channel.delivery_tag += len(messages)
    channel.confirmations.update(dict.fromkeys(range(first, first + len(messages)), confirmed))
    await channel.write_queue.put(ChannelFrame(payload=b"".join(messages), should_close=False))
    await confirmed.all


class _Confirmed:
    """What the library takes for the future of each message of a write."""

    def __init__(self, count: int) -> None:
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def done(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        self._left -= 1
        if not self._left:
            self.all.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        if not self.all.done():
            self.all.set_exception(error)


def _message(channel: Any, queue: str, body: bytes, properties: Basic.Properties) -> bytes:
    number = channel.number
    parts = (
        frame.marshal(Basic.Publish(exchange="", routing_key=queue), number),
        frame.marshal(ContentHeader(body_size=len(body), properties=properties), number),
        frame.marshal(ContentBody(body), number),
    )
    return b"".join(parts)


def _singles(channel: Any, recording: Recording, sendings: Sendings) -> list[bytes]:
    found = []
    for box, letter in sendings:
        blank = _blank_message(channel, recording, box, _queue(box, letter), *alike(recording, letter))
        found.append(filled(blank, letter))
    return found


_blank_messages: dict[tuple[str, str, bool, int], bytes] = {}


def _blank_message(channel: Any, recording: Recording, box: str, queue: str, refused: bool, place: int) -> bytes:
    found = _blank_messages.get((box, queue, refused, place))
    if found is None:
        envelope = envelope_of(recording, box, Letter(9 if refused else 0, place, False))
        content_type, headers = _headers(envelope)
        properties = Basic.Properties(content_type, headers=headers, delivery_mode=2, message_id=MARK.decode())
        found = _message(channel, queue, envelope.data, properties)
        _blank_messages[box, queue, refused, place] = found
    return found


def _packs(channel: Any, recording: Recording, sendings: Sendings) -> list[bytes]:
    found = []
    properties = Basic.Properties(PACK_TYPE, delivery_mode=2)
    by_queue = sorted(((_queue(box, letter), box, letter) for box, letter in sendings), key=lambda one: one[0])
    for queue, group in groupby(by_queue, key=lambda one: one[0]):
        events = [event_of(recording, box, letter) for _, box, letter in group]
        for at in range(0, len(events), PACK):
            found.append(_message(channel, queue, pack_of(events[at : at + PACK]), properties))
    return found
