"""A coordinator pumped by hand over in-memory adapters, with a participant that keeps the protocol and counts effects.

Nothing runs in the background: a test decides what happens next, and where the process dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from amends.brokers import Broker, Consumer, Delivery, Outgoing
from amends.brokers.memory import MemoryBroker
from amends.contracts import JSON, Command, Compensation, Envelope, Kind, Rejection, Reply, ReplyOutcome, Signal
from amends.contracts.names import client_address, slot_address
from amends.contracts.names import slot_of as slot_of_id
from amends.contracts.payloads import Control, Done, Notice, Start
from amends.coordinator import CoordinatorConfig, Policy, Saga, SagaStore, definition_of, step
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.registry import Registry
from amends.coordinator.stores import MemoryStore
from amends.coordinator.testing.clock import VirtualClock
from amends.coordinator.wire import word


class Reserved(Reply):
    reservation: str


class SoldOut(Rejection):
    pass


class Reserve(Command[Reserved, SoldOut], service="shop"):
    sku: str


class Release(Compensation[Reserve]):
    pass


class Charged(Reply):
    pass


class Refused(Rejection):
    pass


class Charge(Command[Charged, Refused], service="shop"):
    amount: int


class Approve(Signal):
    by: str


class Order(Saga, version=1):
    """Reserve, then charge: the smallest saga that completes or makes amends."""

    sku: str = "a"
    amount: int = 3
    reservation: str = ""

    @step
    def reserve(self) -> Reserve:
        return Reserve(sku=self.sku)

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.reservation = reply.reservation

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge(amount=self.amount)


Answer = tuple[ReplyOutcome, Any]


def answer(envelope: Envelope) -> Answer:
    """Reserve always succeeds; a charge of a negative amount is refused."""
    if envelope.type == Reserve.__tag__:
        return ReplyOutcome.DONE, Reserved(reservation=f"for {envelope.subject}")
    amount = JSON.decode(envelope.data, Charge).amount
    return (ReplyOutcome.DONE, Charged()) if amount >= 0 else (ReplyOutcome.REJECTED, Refused())


class Shop:
    """A participant that keeps the protocol: recorded replies, and an undo that closes what never happened."""

    def __init__(self, answer: Callable[[Envelope], Answer] = answer) -> None:
        self.effects: Counter[str] = Counter()
        """How often each effect happened: the effect key, and for its undo the same with a minus before it."""
        self.history: list[str] = []
        self._answer = answer
        self._records: dict[str, Answer] = {}
        self._closed: set[str] = set()

    async def work(self, broker: Broker, consumer: Consumer, deliveries: Iterable[Delivery]) -> None:
        deliveries = list(deliveries)
        await broker.publish([self.reply(d.envelope) for d in deliveries if d.envelope is not None])
        await consumer.ack(deliveries)

    def reply(self, envelope: Envelope) -> Outgoing:
        assert envelope.reply_to is not None
        outcome, payload = self._handle(envelope)
        return Outgoing(
            envelope.reply_to,
            Envelope(
                id=f"{envelope.id}.reply",
                kind=Kind.REPLY,
                type=type(payload).__tag__,
                source="/shop",
                subject=envelope.subject,
                time=envelope.time,
                data=JSON.encode(payload),
                effect_key=envelope.effect_key,
                revision=envelope.revision,
                attempt=envelope.attempt,
                incarnation=envelope.incarnation,
                outcome=outcome,
            ),
        )

    def _handle(self, envelope: Envelope) -> Answer:
        key = envelope.effect_key or ""
        if envelope.kind is Kind.UNDO:
            return self._undo(key)
        if envelope.kind is Kind.SETTLE and key not in self._records:
            self._closed.add(key)
        if key in self._closed:
            return ReplyOutcome.CLOSED, Done()
        if key not in self._records:
            self._records[key] = self._answer(envelope)
            if self._records[key][0] is ReplyOutcome.DONE:
                self.effects[key] += 1
                self.history.append(key)
        return self._records[key]

    def _undo(self, key: str) -> Answer:
        if key in self._records and self._records[key][0] is ReplyOutcome.DONE:
            if not self.effects[f"-{key}"]:
                self.effects[f"-{key}"] += 1
                self.history.append(f"-{key}")
            return ReplyOutcome.UNDONE, Done()
        self._closed.add(key)
        return ReplyOutcome.CLOSED, Done()


class Rig:
    """One coordinator process, one participant process and one client on a broker and a store."""

    def __init__(
        self,
        *,
        sagas: Iterable[type[Saga]] = (Order,),
        store: SagaStore | None = None,
        clock: VirtualClock | None = None,
        policy: Policy | None = None,
        shop: Shop | None = None,
        medium: MemoryBroker | None = None,
        wrap: Callable[[Broker], Broker] = lambda broker: broker,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.medium = medium or MemoryBroker(clock=self.clock)
        self.broker = wrap(self.medium.join())
        self.store = store or MemoryStore(self.clock)
        self.shop = shop or Shop()
        self.policy = policy or Policy()
        self.sagas = tuple(sagas)
        self.notices: list[tuple[str, Notice]] = []

    async def open(self) -> Rig:
        """Start the processes, or start them again on what the earlier ones left."""
        self.engine = Engine(Registry(self.sagas), self.broker, self.store, self.policy, CoordinatorConfig())
        await self.engine.open()
        self._participant = self.medium.join()
        self.service = await self._participant.consume_service("shop")
        self._client = self.medium.join()
        self.client = await self._client.consume_client("test")
        return self

    async def crash(self, wrap: Callable[[Broker], Broker] = lambda broker: broker) -> Rig:
        """The coordinator dies with all it had in memory; another one starts on the same broker and store."""
        await self.broker.close()
        rig = Rig(
            sagas=self.sagas,
            store=self.store,
            clock=self.clock,
            policy=self.policy,
            shop=self.shop,
            medium=self.medium,
            wrap=wrap,
        )
        rig.notices = self.notices
        await self._participant.close()
        await self._client.close()
        return await rig.open()

    async def coordinate(self) -> int:
        """Let the coordinator handle what waits for it; give how much that was."""
        assert self.engine.consumer is not None
        deliveries = take(self.engine.consumer)
        if deliveries:
            await self.engine.processor.process(self.engine.consumer, deliveries)
        events = [] if self.engine.events is None else take(self.engine.events)
        if events:
            assert self.engine.events is not None
            await self.engine.router.process(self.engine.events, events)
        return len(deliveries) + len(events)

    async def participate(self) -> int:
        """Let the participant handle what waits for it."""
        deliveries = take(self.service)
        if deliveries:
            await self.shop.work(self._participant, self.service, deliveries)
        return len(deliveries)

    async def listen(self) -> int:
        """Let the client hear what it is told."""
        deliveries = take(self.client)
        for delivery in deliveries:
            assert delivery.envelope is not None
            self.notices.append((delivery.envelope.subject, JSON.decode(delivery.envelope.data, Notice)))
        await self.client.ack(deliveries)
        return len(deliveries)

    async def run(self) -> None:
        """Let everybody work until nobody has anything to do."""
        while await self.coordinate() + await self.participate() + await self.listen():
            pass

    async def after(self, seconds: float) -> None:
        """Let time pass; timers fire and are handled, and the relay looks around."""
        self.clock.advance(seconds)
        await self.engine.sweeper.sweep()
        await self.engine.relay.relay()
        await self.run()

    async def start(
        self, saga: Saga, saga_id: str, message_id: str | None = None, *, version: int | None = None
    ) -> None:
        """Send the word that starts a saga."""
        start = Start(definition_of(type(saga)).name, msgspec.Raw(JSON.encode(saga)), version)
        await self.send(saga_id, Kind.START, Start.__tag__, JSON.encode(start), message_id or f"start-{saga_id}")

    async def control(self, saga_id: str, control: Control, message_id: str = "word") -> None:
        await self.send(saga_id, Kind.CONTROL, Control.__tag__, JSON.encode(control), message_id)

    async def send(self, saga_id: str, kind: Kind, type: str, data: bytes, id: str, **fields: Any) -> None:
        fields.setdefault("reply_to", client_address("test"))
        await self.medium.publish([word(saga_id, kind, type, data, id, self.clock.now(), source="/test", **fields)])

    async def put(self, envelope: Envelope) -> None:
        """Put any envelope into the queue of its saga."""
        await self.medium.publish([Outgoing(slot_address(slot_of_id(envelope.subject)), envelope)])

    async def snapshot(self, saga_id: str) -> Snapshot:
        snapshot = (await self.store.load([saga_id]))[0].snapshot
        assert snapshot is not None
        return snapshot


def take(consumer: Consumer) -> list[Delivery]:
    """What waits at an in-memory consumer, or at one in front of it."""
    inner: Any = getattr(consumer, "_inner", consumer)
    return list(inner.take(256))
