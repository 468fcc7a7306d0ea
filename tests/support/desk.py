"""A participant at work on an in-memory broker, a batch at a time, and what a coordinator would send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from tests.support.timeline import Timeline

from amends.brokers import Broker, MemoryBroker, Outgoing
from amends.brokers.retention import FOREVER
from amends.contracts import (
    JSON,
    Codec,
    Command,
    Compensation,
    Envelope,
    Kind,
    Message,
    Rejection,
    Reply,
    ReplyOutcome,
    codec_for,
)
from amends.contracts.names import client_address, service_address
from amends.contracts.payloads import Recorded, Settle, Undo
from amends.participants import Inbox, Participant, ParticipantRunner

SERVICE = "inventory"
ME = "coordinator"


class Reserved(Reply):
    reservation: str


class SoldOut(Rejection):
    left: int


class Reserve(Command[Reserved, SoldOut], service=SERVICE):
    sku: str
    quantity: int = 1


class Release(Compensation[Reserve]):
    reason: str = ""


class Count(Command[None], service=SERVICE):
    sku: str


class Uncount(Compensation[Count]):
    pass


def key(step: str = "reserve#0", saga_id: str = "order-1") -> str:
    return f"{saga_id}~i1/{step}"


def asked(kind: Kind, type: str, data: bytes, *, at: datetime, codec: Codec = JSON, **fields: Any) -> Outgoing:
    """A message as the coordinator sends it."""
    effect_key = fields.pop("effect_key", key())
    attempt = fields.pop("attempt", 1)
    defaults: dict[str, Any] = {
        "id": f"{kind}-{effect_key}-{fields.get('revision', 0)}-{attempt}",
        "source": "/amends/coordinator",
        "subject": "order-1",
        "time": at,
        "content_type": codec.content_type,
        "correlation_id": "order-1",
        "reply_to": client_address(ME),
        "issued_at": at,
        "incarnation": "i1",
        "version": 3,
        "commit_id": "commit-3",
        "partition_key": "order-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    envelope = Envelope(kind=kind, type=type, data=data, effect_key=effect_key, attempt=attempt, **defaults | fields)
    return Outgoing(service_address(SERVICE), envelope)


class Desk:
    """Handles what it is given to the end, and gives the answers.

    Where a test needs time to stand still while handlers work, it drives `runner` itself. `medium` is a broker to join,
    `wrap` puts something between it and the runner.
    """

    def __init__(
        self,
        participant: Participant,
        inbox: Inbox,
        time: Timeline,
        *,
        medium: MemoryBroker | None = None,
        wrap: Callable[[Broker], Broker] = lambda broker: broker,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        codec: Codec = JSON,
        threads: bool = False,
    ) -> None:
        self.time, self.codec, self.inbox = time, codec, inbox
        self.medium = medium or MemoryBroker(clock=time)
        self.runner = ParticipantRunner(
            participant,
            wrap(self.medium.join()),
            inbox,
            retention=FOREVER,
            clock=time,
            sleep=sleep or time.nap,
            threads=threads,
        )

    async def open(self) -> Desk:
        self.client = await self.medium.consume_client(ME)
        self.intake = await self.runner.open()
        return self

    async def close(self) -> None:
        await self.runner.stop(0)
        await self.medium.close()
        await self.inbox.close()

    def command(self, message: Command[Any, Any], **fields: Any) -> Outgoing:
        fields = {"not_after": self.time.now() + timedelta(minutes=1)} | fields
        tag = type(message).__tag__
        return asked(Kind.COMMAND, tag, self.codec.encode(message), at=self.time.now(), codec=self.codec, **fields)

    def undo(
        self,
        message: Compensation[Any],
        command: Command[Any, Any],
        reply: Recorded | Reply | None = None,
        **fields: Any,
    ) -> Outgoing:
        recorded = self.recorded(reply) if isinstance(reply, Reply) else reply
        data = Undo(msgspec.Raw(self.codec.encode(message)), self.recorded(command), recorded)
        tag = type(message).__tag__
        return asked(Kind.UNDO, tag, self.codec.encode(data), at=self.time.now(), codec=self.codec, **fields)

    def settle(self, command: type[Command[Any, Any]], **fields: Any) -> Outgoing:
        data = self.codec.encode(Settle(command.__tag__))
        return asked(Kind.SETTLE, Settle.__tag__, data, at=self.time.now(), codec=self.codec, **fields)

    def recorded(self, message: Message) -> Recorded:
        return Recorded(type(message).__tag__, msgspec.Raw(self.codec.encode(message)))

    async def put(self, *messages: Outgoing) -> None:
        """Lay messages in the service's queue."""
        await self.medium.publish(messages)

    async def work(self) -> None:
        """Handle what is in the queue."""
        await self.runner.process(await self.intake.receive())

    async def handle(self, *messages: Outgoing) -> list[Envelope]:
        await self.put(*messages)
        await self.work()
        return await self.answers()

    async def answer(self, message: Outgoing) -> Envelope:
        (answer,) = await self.handle(message)
        return answer

    async def outcome(self, message: Outgoing) -> ReplyOutcome | None:
        return (await self.answer(message)).outcome

    async def outcomes(self, *messages: Outgoing) -> list[ReplyOutcome | None]:
        return [answer.outcome for answer in await self.handle(*messages)]

    async def answers(self) -> list[Envelope]:
        """What has come for the coordinator since the last time."""
        deliveries = self.client.take()
        await self.client.ack(deliveries)
        return [delivery.envelope for delivery in deliveries if delivery.envelope is not None]

    async def next_answer(self) -> Envelope:
        """Wait for an answer."""
        (delivery,) = await self.client.receive(1)
        await self.client.ack([delivery])
        assert delivery.envelope is not None
        return delivery.envelope


def data_of(envelope: Envelope, type: Any) -> Any:
    return codec_for(envelope.content_type).decode(envelope.data, type)


def tags(envelopes: Sequence[Envelope]) -> list[str]:
    return [envelope.type for envelope in envelopes]
