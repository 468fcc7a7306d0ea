"""The messages of one order, as our own code makes them: what docs/protocol.md shows is compared with these."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from examples.orders.messages import HandedOver, NoCarrier, PaymentRefused, PaymentTaken, StockReserved
from examples.orders.saga import PlaceOrder
from msgspec.structs import replace

from amends.brokers import Outgoing
from amends.contracts import JSON, Envelope, Event, Failure, Kind, ReplyOutcome, Signal
from amends.contracts.names import client_address, topic_address
from amends.contracts.payloads import Control, Start
from amends.coordinator.core import Policy, Snapshot, Transition, encode_state, start, transition
from amends.coordinator.core.effects import SendSettle
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.wire import outgoing, read_input, word
from amends.participants.answers import reply_to
from amends.participants.rows import Answered, Recording

ORDER: Final = "order-7"
CLIENT: Final = "checkout-3"
T0: Final = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
INPUT: Final = JSON.encode(
    {
        "order_id": "7",
        "sku": "article-12",
        "quantity": 2,
        "account": "customer-3",
        "amount": 4999,
        "address": "4 Mill Road, North",
    }
)


INCARNATION = "9c41d7be03a25f6871"


class Approve(Signal):
    by: str


class Conversation:
    """One saga and those it talks to. The coordinator takes half a second for everything, the others no time at all."""

    def __init__(self) -> None:
        self.now = T0
        self._commits = 0
        self._definition = definition_of(PlaceOrder)
        self.snapshot: Snapshot

    def start(self) -> tuple[Outgoing, dict[str, Outgoing]]:
        """The start, and what the coordinator says to it, by type."""
        data = JSON.encode(Start("place-order", msgspec.Raw(INPUT)))
        asked = self.word(Kind.START, Start.__tag__, data, "checkout-3.1")
        envelope = asked.envelope
        state = encode_state(JSON.decode(INPUT, PlaceOrder))
        commit_id = self._commit()
        begun = start(
            self._definition,
            ORDER,
            state,
            self.now,
            commit_id,
            Policy(),
            cause=envelope.id,
            reply_to=envelope.reply_to,
            incarnation=INCARNATION,
        )
        return asked, self._messages(begun, envelope.id)

    def hear(self, said: Outgoing) -> dict[str, Outgoing]:
        """What the coordinator says to a message, by type."""
        commit_id = self._commit()
        content = read_input(said.envelope)
        done = transition(self._definition, self.snapshot, content, self.now, commit_id, Policy())
        return self._messages(done, said.envelope.id)

    def answer(self, asked: Outgoing, outcome: ReplyOutcome, message: Any = None) -> Outgoing:
        """What a participant answers."""
        recording = None if message is None else Recording(message.__tag__, JSON.encode(message), JSON.content_type)
        service = asked.address.removeprefix("service:")
        reply = reply_to(asked.envelope, service, Answered(outcome, recording), self.now)
        assert reply is not None
        return reply

    def settle(self) -> Outgoing:
        """What would be asked ten minutes later, if the charge were a pivot and nobody had answered."""
        run = self.snapshot.runs["charge#0"]
        assert run.command is not None
        assert run.issued_at is not None
        effect = SendSettle(run.key, run.service, run.command.type, run.revision, run.sent + 1, run.issued_at)
        self.now += timedelta(minutes=10)
        before = self.snapshot
        asking = replace(before, version=before.version + 1, commit_id=self._commit(), clock=self.now)
        (message,) = outgoing(asking, [effect], f"{asking.incarnation}.due.{self.now.timestamp():.6f}")
        return message

    def word(self, kind: Kind, type: str, data: bytes, id: str) -> Outgoing:
        """What a client tells a saga."""
        answers = client_address(CLIENT)
        return word(
            ORDER, kind, type, data, id, self.now, source="/shop/checkout", reply_to=answers, partition_key=ORDER
        )

    def _commit(self) -> str:
        """The id of the next commit, half a second later."""
        self.now += timedelta(seconds=0.5)
        self._commits += 1
        return f"9c41d7be03a25f68-{self._commits:x}"

    def _messages(self, done: Transition, cause: str) -> dict[str, Outgoing]:
        assert done.snapshot is not None, done.detail
        self.snapshot = done.snapshot
        return {message.envelope.type: message for message in outgoing(done.snapshot, done.effects, cause)}


def conversation() -> Mapping[str, Outgoing]:
    """The examples of the page, by their names."""
    found: dict[str, Outgoing] = {}
    talk = Conversation()
    found["start"], said = talk.start()
    found["accepted"] = said["amends.notice.v1"]
    reserved = talk.answer(said["inventory.reserve-stock.v1"], ReplyOutcome.DONE, StockReserved(on_hand=98))
    found["command"] = charge = talk.hear(reserved)["payments.charge.v1"]
    found["rejected"] = talk.answer(charge, ReplyOutcome.REJECTED, PaymentRefused(reason="insufficient funds"))
    found["failed"] = talk.answer(charge, ReplyOutcome.FAILED, Failure("TimeoutError", "the bank does not answer"))
    found["done"] = talk.answer(charge, ReplyOutcome.DONE, PaymentTaken(receipt="R-1041"))
    book = talk.hear(found["done"])["shipping.book-shipment.v1"]
    refused = talk.answer(book, ReplyOutcome.REJECTED, NoCarrier(region="Far Islands"))
    found["undo"] = talk.hear(refused)["payments.refund.v1"]
    found["undone"] = talk.answer(found["undo"], ReplyOutcome.UNDONE)
    release = talk.hear(found["undone"])["inventory.release-stock.v1"]
    found["ended"] = talk.hear(talk.answer(release, ReplyOutcome.UNDONE))["amends.notice.v1"]

    talk = Conversation()
    _, said = talk.start()
    talk.hear(talk.answer(said["inventory.reserve-stock.v1"], ReplyOutcome.DONE, StockReserved(on_hand=98)))
    found["settle"] = talk.settle()
    found["closed"] = talk.answer(found["settle"], ReplyOutcome.CLOSED)

    talk = Conversation()
    found["signal"] = talk.word(Kind.SIGNAL, Approve.__tag__, JSON.encode(Approve(by="ada")), "checkout-3.2")
    cancel = JSON.encode(Control(action="cancel", by="ada", reason="the customer changed their mind"))
    found["control"] = talk.word(Kind.CONTROL, Control.__tag__, cancel, "checkout-3.3")
    found["event"] = _event(HandedOver(order_id="7"))
    return found


def _event(message: Event) -> Outgoing:
    """What a service publishes."""
    tag = type(message).__tag__
    envelope = Envelope(
        id="parcel-88/picked-up",
        kind=Kind.EVENT,
        type=tag,
        source="/carriers/northern-post",
        subject="",
        time=T0,
        data=JSON.encode(message),
    )
    return Outgoing(topic_address(tag), envelope)
