"""Who takes part without our library, as processes on real servers: the plain service and caller of
`tests/support/plain`, which know amends only from docs/protocol.md, beside our own coordinator and services."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

pytest.importorskip("aio_pika")
pytest.importorskip("aiokafka")
pytest.importorskip("redis")

from examples.orders.messages import Charge, PaymentRefused, PaymentTaken, Refund
from examples.orders.world import Ending, Order, make_order, prepare
from tests.support.processes import Process
from tests.support.rabbitmq import Rabbit

from amends.brokers import Broker, Consumer, Outgoing, connect_broker
from amends.brokers.kafka import KafkaOptions
from amends.brokers.kafka.topics import delete_installation
from amends.contracts import JSON, Envelope, Kind, ReplyOutcome
from amends.contracts.names import client_address, service_address
from amends.contracts.payloads import Failure, Recorded, Settle, Undo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLAIN = (sys.executable, "-m", "tests.support.plain")
PATIENCE_S = 120.0


class Place(NamedTuple):
    """An installation of the test's own on a real broker."""

    kind: str
    server: str
    name: str

    @property
    def url(self) -> str:
        if self.kind == "rabbitmq":
            return f"{self.server}?namespace={self.name}"
        return f"{self.server}?prefix={self.name}&session_timeout_s=6&partitions=8"

    def plain(self, what: str, *arguments: str) -> Process:
        """A process of the plain side."""
        return Process(self.kind, self.server, self.name, what, *arguments, cwd=ROOT, command=PLAIN)

    def ours(self, module: str, home: Path, *arguments: str) -> Process:
        """A process of ours."""
        surroundings = {"PYTHONPATH": str(ROOT), "ORDERS_HOME": str(home)}
        return Process("run", module, "--broker", self.url, *arguments, cwd=ROOT, **surroundings)

    async def remove(self) -> None:
        """Leave nothing behind."""
        if self.kind == "rabbitmq":
            services = ("inventory", "payments", "shipping")
            await Rabbit(self.server, self.name).remove(services=services, subscribers=["amends-coordinator"])
        else:
            await delete_installation(KafkaOptions.parse(self.url))


@pytest.fixture(scope="module", params=["rabbitmq", "kafka"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server: str = request.getfixturevalue(f"{request.param}_url")
    place = Place(request.param, server, f"plain-{uuid4().hex[:8]}")
    yield place
    asyncio.run(place.remove())


def entries(file: Path) -> dict[str, list[int]]:
    """What the plain service has written down, by order."""
    found = defaultdict(list)
    with closing(sqlite3.connect(file)) as db:
        for order_id, amount in db.execute("SELECT order_id, amount FROM ledger ORDER BY rowid"):
            found[order_id].append(amount)
    return found


# beside our coordinator

STATUSES = ["delivered"] * 12 + ["unavailable", "canceled", "unreachable", "withdrawn"] * 3
REASONS = {
    Ending.COMPLETED: ("completed", ""),
    Ending.OUT_OF_STOCK: ("compensated", "out-of-stock.v1"),
    Ending.PAYMENT_REFUSED: ("compensated", "payment-refused.v1"),
    Ending.NO_CARRIER: ("compensated", "no-carrier.v1"),
    Ending.WITHDRAWN: ("compensated", "cancelled"),
}


def legal(order: Order) -> list[list[int]]:
    """What may stand in the ledger for an order."""
    amount = order.saga.amount
    match order.ending:
        case Ending.COMPLETED:
            return [[-amount]]
        case Ending.NO_CARRIER:
            return [[-amount, amount]]
        case Ending.WITHDRAWN:
            return [[], [-amount, amount]]
        case _:
            return [[]]


def told(order: Order) -> dict[str, Any]:
    """An order as the plain caller is told of it."""
    fields = ("order_id", "sku", "quantity", "account", "amount", "address")
    return {
        "id": order.id,
        "input": {name: getattr(order.saga, name) for name in fields},
        "events": [(type(event).__tag__, {"order_id": order.saga.order_id}) for event in order.events],
        "cancel": order.ending is Ending.WITHDRAWN,
    }


async def test_sagas_of_a_plain_caller_end_rightly_although_the_plain_service_is_killed_midway(
    place: Place, redis_url: str, tmp_path: Path
) -> None:
    orders = [make_order(f"{place.name}-{n}", f"customer-{n}", status) for n, status in enumerate(STATUSES)]
    prepare(tmp_path, orders)
    file, db = tmp_path / "orders.json", tmp_path / "plain.db"
    file.write_text(json.dumps([told(order) for order in orders]), "utf-8")
    store = f"{redis_url}?namespace={place.name}"

    with ExitStack() as stack:
        services = [
            place.ours("examples.orders.saga", tmp_path, "--store", store),
            place.ours("examples.orders.inventory", tmp_path),
            place.ours("examples.orders.shipping", tmp_path, "--inbox", f"sqlite://{tmp_path / 'shipping-inbox.db'}"),
        ]
        for process in services:
            stack.callback(process.close)
        for process in services:
            process.wait_for("Running")

        # in the middle of a transaction, and between a commit and its answer
        first = place.plain("serve", str(db), "effect:3")
        stack.callback(first.close)
        first.wait_for("Running")
        caller = place.plain("call", str(file))
        stack.callback(caller.close)
        assert first.wait(PATIENCE_S) == -9
        second = place.plain("serve", str(db), "commit:5")
        stack.callback(second.close)
        assert second.wait(PATIENCE_S) == -9
        # two that compete
        for _ in range(2):
            stack.callback(place.plain("serve", str(db)).close)
        heard = json.loads(caller.wait_for('{"', PATIENCE_S))
        assert caller.wait(PATIENCE_S) == 0

    for order in orders:
        start, *_, end = heard[order.id]
        assert (start["what"], start["existing"]) == ("accepted", False)
        assert (end["what"], end["status"], end["code"]) == ("ended", *REASONS[order.ending]), order
    ledger = entries(db)
    for order in orders:
        assert ledger.get(order.saga.order_id, []) in legal(order), order
    broker = await connect_broker(place.url)
    try:
        assert await broker.dead_letters() == []
    finally:
        await broker.close()


# a coordinator that does what it likes


class Desk:
    """The side of the coordinator, by our own library: asks the service, and hears its answers."""

    def __init__(self, broker: Broker, client: Consumer, name: str) -> None:
        self.broker, self._client, self._name = broker, client, name
        self.saga_id = f"order-{uuid4().hex[:8]}"
        self.key = f"{self.saga_id}~incarnation-1/charge#0"
        self._attempt = 0

    def command(self, amount: int = 100, account: str = "rich", **fields: Any) -> Envelope:
        charge = Charge(order_id=self.saga_id, account=account, amount=amount)
        fields = {"not_after": datetime.now(UTC) + timedelta(minutes=5), **fields}
        return self._asked(Kind.COMMAND, Charge.__tag__, JSON.encode(charge), **fields)

    def undo(self, reply: Envelope | None = None, amount: int = 100) -> Envelope:
        charge = Charge(order_id=self.saga_id, account="rich", amount=amount)
        recorded = None if reply is None else Recorded(reply.type, _raw(reply.data))
        refund = _raw(JSON.encode(Refund(reason="test")))
        data = Undo(refund, Recorded(Charge.__tag__, _raw(JSON.encode(charge))), recorded)
        return self._asked(Kind.UNDO, Refund.__tag__, JSON.encode(data))

    def settle(self, **fields: Any) -> Envelope:
        return self._asked(Kind.SETTLE, Settle.__tag__, JSON.encode(Settle(Charge.__tag__)), **fields)

    def _asked(self, kind: Kind, type: str, data: bytes, **fields: Any) -> Envelope:
        self._attempt += 1
        now = datetime.now(UTC)
        told: dict[str, Any] = {
            "id": f"{self.saga_id}.{self._attempt}",
            "source": "/amends/coordinator",
            "subject": self.saga_id,
            "time": now,
            "correlation_id": "conversation-1",
            "causation_id": "cause-1",
            "reply_to": client_address(self._name),
            "effect_key": self.key,
            "attempt": self._attempt,
            "issued_at": now,
            "incarnation": "incarnation-1",
            "version": 3,
            "commit_id": "commit-3",
            "partition_key": self.saga_id,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        return Envelope(kind=kind, type=type, data=data, **{**told, **fields})

    async def send(self, *asked: Envelope) -> None:
        await self.broker.publish([Outgoing(service_address("payments"), envelope) for envelope in asked])

    async def hear(self, number: int) -> list[Envelope]:
        """So many answers."""
        found: list[Envelope] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < number:
                deliveries = await self._client.receive(number - len(found))
                await self._client.ack(deliveries)
                for delivery in deliveries:
                    assert delivery.envelope is not None, delivery.problem
                    found.append(delivery.envelope)
        return found

    async def ask(self, asked: Envelope) -> Envelope:
        """The answer to one message, which must copy what it has to."""
        await self.send(asked)
        (answer,) = await self.hear(1)
        assert (answer.kind, answer.causation_id) == (Kind.REPLY, asked.id)
        copied = (
            "subject", "correlation_id", "effect_key", "revision", "attempt", "incarnation", "version", "commit_id",
            "partition_key", "traceparent", "tracestate",
        )  # fmt: skip
        for field in copied:
            assert getattr(answer, field) == getattr(asked, field), field
        return answer

    async def outcome(self, asked: Envelope) -> ReplyOutcome | None:
        return (await self.ask(asked)).outcome


def _raw(data: bytes) -> Any:
    return json.loads(data)


class Service(NamedTuple):
    """A payments service at work. `ledger` is the plain one's."""

    place: Place
    ledger: Path | None

    def entries(self, desk: Desk) -> list[int] | None:
        """What is written down for the desk's saga; None for ours, which writes elsewhere."""
        return None if self.ledger is None else entries(self.ledger).get(desk.saga_id, [])


@pytest.fixture(scope="module", params=["plain", "ours"])
def service(
    request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """What one does, the other must do."""
    place = place._replace(name=f"{place.name}-{request.param}")
    home = tmp_path_factory.mktemp("service")
    if request.param == "plain":
        service = Service(place, home / "plain.db")
        process = place.plain("serve", str(service.ledger))
    else:
        prepare(home, [make_order("1", "rich", "delivered"), make_order("2", "poor", "canceled")])
        service = Service(place, None)
        process = place.ours("examples.orders.payments", home, "--inbox", f"sqlite://{home / 'inbox.db'}")
    try:
        process.wait_for("Running")
        yield service
    finally:
        process.close()
        asyncio.run(place.remove())


@pytest.fixture
async def desk(service: Service) -> AsyncIterator[Desk]:
    broker = await connect_broker(service.place.url)
    name = uuid4().hex[:16]
    try:
        yield Desk(broker, await broker.consume_client(name), name)
    finally:
        await broker.close()


async def test_a_command_that_comes_twice_has_one_effect_and_one_answer(service: Service, desk: Desk) -> None:
    command = desk.command()
    await desk.send(command, command)
    first, second = await desk.hear(2)
    third = await desk.ask(desk.command())
    assert first.outcome is second.outcome is third.outcome is ReplyOutcome.DONE
    assert first.data == second.data == third.data
    assert JSON.decode(first.data, PaymentTaken).receipt == desk.key
    assert service.entries(desk) in ([-100], None)


async def test_an_undo_undoes_the_action_once(service: Service, desk: Desk) -> None:
    done = await desk.ask(desk.command())
    assert await desk.outcome(desk.undo(done)) is ReplyOutcome.UNDONE
    assert await desk.outcome(desk.undo(done)) is ReplyOutcome.UNDONE
    assert await desk.outcome(desk.command()) is ReplyOutcome.UNDONE
    assert await desk.outcome(desk.settle()) is ReplyOutcome.UNDONE
    assert service.entries(desk) in ([-100, 100], None)


async def test_an_undo_that_comes_before_its_action_closes_it_for_ever(service: Service, desk: Desk) -> None:
    delayed = desk.command()
    assert await desk.outcome(desk.undo()) is ReplyOutcome.CLOSED
    assert await desk.outcome(delayed) is ReplyOutcome.CLOSED
    assert await desk.outcome(desk.command(revision=1)) is ReplyOutcome.CLOSED
    assert await desk.outcome(desk.settle()) is ReplyOutcome.CLOSED
    assert service.entries(desk) in ([], None)


async def test_a_settle_gives_the_reply_of_what_was_done(service: Service, desk: Desk) -> None:
    done = await desk.ask(desk.command())
    settled = await desk.ask(desk.settle())
    assert (settled.outcome, settled.type, settled.data) == (ReplyOutcome.DONE, done.type, done.data)
    assert service.entries(desk) in ([-100], None)


async def test_a_settle_closes_what_has_not_come(service: Service, desk: Desk) -> None:
    delayed = desk.command()
    assert await desk.outcome(desk.settle()) is ReplyOutcome.CLOSED
    assert await desk.outcome(delayed) is ReplyOutcome.CLOSED
    assert await desk.outcome(desk.undo()) is ReplyOutcome.CLOSED
    assert service.entries(desk) in ([], None)


async def test_another_wording_may_follow_a_rejection_until_it_is_settled(service: Service, desk: Desk) -> None:
    rejected = await desk.ask(desk.command(account="poor/empty"))
    assert (rejected.outcome, rejected.type) == (ReplyOutcome.REJECTED, PaymentRefused.__tag__)
    assert JSON.decode(rejected.data, PaymentRefused).reason == "insufficient funds"
    assert (await desk.ask(desk.command(account="poor/empty"))).data == rejected.data
    assert await desk.outcome(desk.command(revision=1)) is ReplyOutcome.DONE
    assert service.entries(desk) in ([-100], None)


async def test_a_settled_rejection_stays_one(service: Service, desk: Desk) -> None:
    await desk.ask(desk.command(account="poor/empty"))
    settled = await desk.ask(desk.settle())
    assert (settled.outcome, settled.type) == (ReplyOutcome.REJECTED, PaymentRefused.__tag__)
    assert await desk.outcome(desk.command(revision=1)) is ReplyOutcome.CLOSED
    assert await desk.outcome(desk.settle()) is ReplyOutcome.REJECTED
    assert await desk.outcome(desk.settle(revision=1)) is ReplyOutcome.CLOSED
    assert service.entries(desk) in ([], None)


async def test_a_command_past_its_time_is_neither_begun_nor_answered(service: Service, desk: Desk) -> None:
    expired = desk.command(not_after=datetime.now(UTC) - timedelta(minutes=1))
    await desk.send(expired)
    assert await desk.outcome(desk.settle()) is ReplyOutcome.CLOSED
    # what is known is answered at any time
    assert await desk.outcome(expired) is ReplyOutcome.CLOSED
    assert service.entries(desk) in ([], None)


async def test_an_undo_with_a_reply_is_done_whatever_the_inbox_has_lost(service: Service, desk: Desk) -> None:
    proof = desk.command()
    reply = Envelope(
        id="r", kind=Kind.REPLY, type=PaymentTaken.__tag__, source="s", subject=desk.saga_id, time=proof.time,
        data=JSON.encode(PaymentTaken(receipt="R-1")),
    )  # fmt: skip
    assert await desk.outcome(desk.undo(reply)) is ReplyOutcome.UNDONE
    assert await desk.outcome(proof) is ReplyOutcome.UNDONE
    assert service.entries(desk) in ([100], None)


@pytest.mark.parametrize("service", ["plain"], indirect=True)
async def test_a_failure_leaves_nothing_and_may_be_tried_again(service: Service, desk: Desk) -> None:
    failed = await desk.ask(desk.command(amount=-1))
    assert (failed.outcome, failed.type) == (ReplyOutcome.FAILED, Failure.__tag__)
    assert JSON.decode(failed.data, Failure) == Failure("ValueError", "-1 is nothing to charge")
    assert await desk.outcome(desk.command()) is ReplyOutcome.DONE
    assert service.entries(desk) == [-100]


async def test_what_cannot_be_read_is_a_dead_letter_and_the_others_go_on(service: Service, desk: Desk) -> None:
    unknown = desk._asked(Kind.COMMAND, "payments.borrow.v1", b"{}")
    nameless = desk._asked(Kind.COMMAND, Charge.__tag__, b"{}", effect_key=None)
    await desk.send(unknown, nameless)
    assert await desk.outcome(desk.command()) is ReplyOutcome.DONE

    async def buried() -> set[tuple[str, str, str]]:
        letters = await desk.broker.dead_letters()
        return {(letter.queue, letter.reason, letter.envelope.id) for letter in letters if letter.envelope is not None}

    expected = {
        ("service:payments", "unknown-type", unknown.id),
        ("service:payments", "undecodable", nameless.id),
    }
    async with asyncio.timeout(PATIENCE_S):
        while not expected <= await buried():
            await asyncio.sleep(0.05)


# that it really is plain


def test_the_plain_side_imports_nothing_of_amends() -> None:
    modules = [f"tests.support.plain.{file.stem}" for file in sorted((ROOT / "tests/support/plain").glob("*.py"))]
    assert len(modules) == 6
    probe = (
        f"import sys, {', '.join(modules)}\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('amends', 'examples')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
