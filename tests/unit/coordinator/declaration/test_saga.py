"""What a saga class is: a struct with state, steps on the class, and plain methods on its instances."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import pytest
from msgspec import Struct
from tests.unit.coordinator.declaration.shop import (
    Approve,
    CardCharged,
    ChargeCard,
    ChargeWallet,
    OutOfStock,
    PaymentCaptured,
    Ping,
    RefundCard,
    RefundWallet,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
    WalletCharged,
)

from amends.contracts import Command, Compensation, Failure, Reply, UsageError
from amends.coordinator.declaration import (
    Decision,
    Publish,
    Run,
    Saga,
    SagaDefinitionError,
    Skip,
    Sleep,
    Step,
    StepKind,
    WaitFor,
    definition_of,
    step,
)
from amends.coordinator.declaration.run import bind
from amends.coordinator.retry import Retry


class PlaceOrder(Saga, version=3, deadline=timedelta(days=1)):
    order_id: str
    reservation_id: str | None = None
    tags: list[str] = []

    @step(timeout=30, retry=Retry(attempts=5))
    def reserve(self) -> ReserveStock | Skip | None:
        return ReserveStock(sku=self.order_id)

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id

    @reserve.on_rejection
    def refused(self, no: OutOfStock) -> Decision: ...

    @reserve.on_failure
    def broke(self, failure: Failure) -> Decision: ...

    @reserve.on_timeout
    def late(self) -> Decision: ...

    @reserve.compensation
    def release(self) -> ReleaseStock | None:
        return ReleaseStock()

    @step
    def paid(self) -> WaitFor[PaymentCaptured | Approve] | Sleep: ...

    @step(pivot=True)
    def charge(self) -> ChargeCard | ChargeWallet: ...

    @charge.when
    def wanted(self) -> bool:
        return self.order_id != "free"

    @step(retriable=True)
    def ship(self) -> ShipOrder: ...

    @step(readonly=True)
    def ping(self) -> Ping: ...


def test_the_definition_holds_what_was_declared() -> None:
    definition = definition_of(PlaceOrder)
    assert (definition.name, definition.version, definition.tag) == ("place-order", 3, "place-order.v3")
    assert definition.deadline == timedelta(days=1)
    assert definition.saga is PlaceOrder
    assert list(definition.steps) == ["reserve", "paid", "charge", "ship", "ping"]
    assert [plan.kind for plan in definition.steps.values()] == [
        StepKind.COMPENSATABLE,
        StepKind.NEUTRAL,
        StepKind.PIVOT,
        StepKind.RETRIABLE,
        StepKind.READONLY,
    ]
    assert definition.pivot is definition.steps["charge"]
    assert definition.event_types() == {"payment-captured.v1": PaymentCaptured}


def test_a_plan_holds_what_comes_and_goes() -> None:
    steps = definition_of(PlaceOrder).steps
    reserve = steps["reserve"]
    assert reserve.commands == (ReserveStock,)
    assert reserve.returns == (ReserveStock, Skip)
    assert reserve.optional
    assert reserve.replies == {"stock-reserved.v1": StockReserved}
    assert reserve.rejections == {"out-of-stock.v1": OutOfStock}
    assert reserve.undos == (ReleaseStock,)
    assert reserve.timeout == timedelta(seconds=30)
    assert reserve.retry == Retry(attempts=5)
    paid, charge, ping = steps["paid"], steps["charge"], steps["ping"]
    assert paid.awaits == {"payment-captured.v1": PaymentCaptured, "approve.v1": Approve}
    assert paid.returns == (WaitFor, Sleep)
    assert not paid.optional
    assert charge.replies == {"card-charged.v1": CardCharged, "wallet-charged.v1": WalletCharged}
    assert charge.rejections == {}
    assert ping.replies == {}


def test_the_callables_of_a_plan_take_the_state() -> None:
    reserve, charge = definition_of(PlaceOrder).steps["reserve"], definition_of(PlaceOrder).steps["charge"]
    state = PlaceOrder(order_id="42")
    assert reserve.act(state) == ReserveStock(sku="42")
    assert reserve.on_success is not None
    reserve.on_success(state, StockReserved(reservation_id="r1"))
    assert state.reservation_id == "r1"
    assert reserve.compensation is not None
    assert reserve.compensation(state) == ReleaseStock()
    assert reserve.on_rejection is PlaceOrder.__dict__["refused"]
    assert reserve.on_failure is PlaceOrder.__dict__["broke"]
    assert reserve.on_timeout is PlaceOrder.__dict__["late"]
    assert charge.when is not None
    assert charge.when(state)
    assert not charge.when(PlaceOrder(order_id="free"))


def test_a_condition_may_be_an_option() -> None:
    class P(Saga):
        go: bool

        @step(readonly=True, when=lambda saga: saga.go)
        def ping(self) -> Ping: ...

    when = definition_of(P).steps["ping"].when
    assert when is not None
    assert (when(P(go=True)), when(P(go=False))) == (True, False)


def test_a_step_is_a_step_on_the_class_and_a_method_on_an_instance() -> None:
    assert isinstance(PlaceOrder.reserve, Step)
    assert repr(PlaceOrder.reserve) == "<step PlaceOrder.reserve>"
    assert PlaceOrder(order_id="42").reserve() == ReserveStock(sku="42")


# the state


def test_the_state_survives_a_round_trip() -> None:
    state = PlaceOrder(order_id="42", reservation_id="r", tags=["a"])
    assert definition_of(PlaceOrder).decoder.decode(msgspec.msgpack.encode(state)) == state


def test_fields_are_given_by_keyword() -> None:
    with pytest.raises(TypeError):
        PlaceOrder("42")  # type: ignore[misc, call-arg]


def test_a_field_may_come_after_one_with_a_default_in_a_subclass() -> None:
    class Sub(PlaceOrder):
        channel: str

    assert Sub(order_id="1", channel="web").channel == "web"


def test_a_field_that_the_class_does_not_know_is_refused() -> None:
    # older code of the same version would drop it without a word
    data = msgspec.msgpack.encode({"order_id": "1", "coupon": "x"})
    with pytest.raises(msgspec.ValidationError, match="unknown field `coupon`"):
        definition_of(PlaceOrder).decoder.decode(data)


def test_a_misspelt_field_cannot_be_assigned() -> None:
    with pytest.raises(AttributeError):
        PlaceOrder(order_id="1").reservation = "r"  # type: ignore[attr-defined]


def test_defaults_are_not_shared() -> None:
    PlaceOrder(order_id="1").tags.append("x")
    assert PlaceOrder(order_id="2").tags == []


def test_a_union_of_messages_can_be_state() -> None:
    class P(Saga):
        last: StockReserved | CardCharged | None = None

    for last in (StockReserved(reservation_id="r"), CardCharged(charge_id="c"), None):
        assert definition_of(P).decoder.decode(msgspec.msgpack.encode(P(last=last))) == P(last=last)


class LivesHere(Saga):
    address: Address


class Address(Struct):
    street: str


def test_the_state_may_name_a_type_that_comes_later() -> None:
    state = LivesHere(address=Address("Main St"))
    assert definition_of(LivesHere).decoder.decode(msgspec.msgpack.encode(state)) == state


class LivesNowhere(Saga):
    address: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_type_that_never_comes_is_told_at_first_use() -> None:
    with pytest.raises(SagaDefinitionError, match="its state names 'Nowhere', which does not exist"):
        definition_of(LivesNowhere).decoder  # noqa: B018


class HoldsSomething(Saga):
    thing: Thing


class Thing:
    pass


def test_a_type_that_comes_later_is_checked_at_first_use() -> None:
    with pytest.raises(SagaDefinitionError, match=r"nothing can encode thing \(Thing\)"):
        definition_of(HoldsSomething).decoder  # noqa: B018


def test_a_constant_is_no_state() -> None:
    class P(Saga):
        LIMIT: ClassVar[int] = 3
        x: int

    assert P.__struct_fields__ == ("x",)


def test_everything_may_be_local_to_a_function() -> None:
    class Done(Reply):
        n: int

    class Do(Command[Done], service="s"):
        x: int

    class Undo(Compensation[Do]): ...

    class Line(Struct):
        n: int

    class P(Saga):
        lines: list[Line]

        @step
        def go(self) -> Do:
            return Do(x=self.lines[0].n)

        @go.on_success
        def ok(self, reply: Done) -> None: ...
        @go.compensation
        def undo(self) -> Undo: ...
        @step
        def wait(self) -> WaitFor[Approve]: ...

    state = P(lines=[Line(3)])
    assert state.go() == Do(x=3)
    assert definition_of(P).decoder.decode(msgspec.msgpack.encode(state)) == state


# inheritance


class First(Saga):
    x: int = 0

    @step(readonly=True)
    def one(self) -> ReserveStock:
        return ReserveStock(sku="first")

    @one.on_success
    def got(self, reply: StockReserved) -> None:
        self.x = 1


class Second(First, version=2):
    @step(readonly=True, after=First.one)
    def two(self) -> Ping: ...


def test_a_subclass_adds_steps_to_those_it_inherits() -> None:
    assert list(definition_of(Second).steps) == ["one", "two"]
    assert list(definition_of(First).steps) == ["one"]
    assert (definition_of(First).tag, definition_of(Second).tag) == ("first.v1", "second.v2")


def test_a_handler_of_a_subclass_does_not_leak_into_its_base() -> None:
    class Other(First):
        @First.one.on_success
        def other(self, reply: StockReserved) -> None: ...

    assert definition_of(Other).steps["one"].on_success is Other.__dict__["other"]
    assert definition_of(First).steps["one"].on_success is First.__dict__["got"]


def test_a_subclass_overrides_a_handler_by_its_name() -> None:
    class Other(First):
        def got(self, reply: StockReserved) -> None:
            self.x = 2

    assert definition_of(Other).steps["one"].on_success is Other.__dict__["got"]


def test_a_subclass_overrides_a_step_and_keeps_its_handlers_and_place() -> None:
    class Other(Second):
        @step(readonly=True)
        def one(self) -> ReserveStock:
            return ReserveStock(sku=f"{super().one().sku} and second")

    assert list(definition_of(Other).steps) == ["one", "two"]
    assert definition_of(Other).steps["one"].on_success is First.__dict__["got"]
    assert definition_of(Other).steps["two"].after == ("one",)
    assert definition_of(Other).steps["one"].act(Other()) == ReserveStock(sku="first and second")


def test_handlers_of_two_bases_come_together() -> None:
    class Left(Saga, abstract=True):
        @step(readonly=True)
        def left(self) -> Ping: ...

    class Right(Saga, abstract=True):
        @step(readonly=True)
        def right(self) -> Ping: ...

    class Both(Left, Right):
        x: int

    assert set(definition_of(Both).steps) == {"left", "right"}


def test_a_mixin_without_fields_may_bring_steps() -> None:
    class Notifies:
        __slots__ = ()

        @step(readonly=True)
        def notify(self) -> Ping: ...

    class P(Notifies, Saga):
        x: int

    assert list(definition_of(P).steps) == ["notify"]


def test_one_handler_may_serve_two_steps() -> None:
    class P(Saga):
        @step(readonly=True)
        def one(self) -> ReserveStock: ...
        @step(readonly=True)
        def two(self) -> ChargeCard: ...
        @one.on_failure
        @two.on_failure
        def oops(self, failure: Failure) -> Decision: ...

    steps = definition_of(P).steps
    assert steps["one"].on_failure is steps["two"].on_failure is P.__dict__["oops"]


T = TypeVar("T")


class Row(Struct):
    n: int


class Import(Saga, Generic[T]):
    rows: list[T]

    @step(readonly=True)
    def first(self) -> ReserveStock:
        return self.command(self.rows[0])

    def command(self, row: T) -> ReserveStock:
        raise NotImplementedError


def test_a_generic_saga_is_a_base_for_concrete_ones() -> None:
    class ImportRows(Import[Row]):
        def command(self, row: Row) -> ReserveStock:
            return ReserveStock(sku="s", quantity=row.n)

    state = ImportRows(rows=[Row(4)])
    assert definition_of(ImportRows).decoder.decode(msgspec.msgpack.encode(state)) == state
    assert definition_of(ImportRows).steps["first"].act(state) == ReserveStock(sku="s", quantity=4)
    assert Import.__definition__ is None


def test_a_union_of_compensations_undoes_a_union_of_commands() -> None:
    class P(Saga):
        @step
        def pay(self) -> ChargeCard | ChargeWallet: ...
        @pay.compensation
        def undo(self) -> RefundCard | RefundWallet: ...

    assert definition_of(P).steps["pay"].undos == (RefundCard, RefundWallet)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is younger")
def test_an_alias_of_a_union_is_unwrapped() -> None:
    scope: dict[str, Any] = {"ChargeCard": ChargeCard, "ChargeWallet": ChargeWallet}
    exec("type Charge = ChargeCard | ChargeWallet", scope)
    Charge = scope["Charge"]

    class P(Saga):
        @step(readonly=True)
        def pay(self) -> Charge: ...

    assert definition_of(P).steps["pay"].commands == (ChargeCard, ChargeWallet)


def test_the_kind_of_a_step_that_asks_nobody() -> None:
    class P(Saga):
        @step
        def publish(self) -> Publish: ...
        @step(pivot=True)
        def approved(self) -> WaitFor[Approve]: ...
        @step
        def tidy(self) -> None: ...

    kinds = {name: plan.kind for name, plan in definition_of(P).steps.items()}
    assert kinds == {"publish": StepKind.NEUTRAL, "approved": StepKind.PIVOT, "tidy": StepKind.NEUTRAL}


# names and definitions


def test_the_name_is_made_from_the_class_or_given() -> None:
    class HTTPCheck(Saga): ...

    class Other(Saga, name="shop.place_order"): ...

    assert definition_of(HTTPCheck).name == "http-check"
    assert definition_of(Other).name == "shop.place_order"


def test_what_has_no_definition_is_refused() -> None:
    class Base(Saga, abstract=True): ...

    with pytest.raises(UsageError, match="Base is abstract"):
        definition_of(Base)
    with pytest.raises(UsageError, match="Saga is abstract"):
        definition_of(Saga)
    with pytest.raises(UsageError, match="int is no saga class"):
        definition_of(int)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no saga class"):
        definition_of(PlaceOrder(order_id="1"))  # type: ignore[arg-type]


# the run

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_run_is_given_and_is_no_state() -> None:
    state = PlaceOrder(order_id="1")
    before = msgspec.msgpack.encode(state)
    bind(state, Run("order-1", NOW, "seed"))
    assert (state.run.id, state.run.now) == ("order-1", NOW)
    assert msgspec.msgpack.encode(state) == before
    assert state == PlaceOrder(order_id="1")
    assert "run" not in repr(state)


def test_outside_of_a_run_there_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match=r"^PlaceOrder\.run: this PlaceOrder is not in a run"):
        PlaceOrder(order_id="1").run  # noqa: B018


def test_ids_of_a_run_are_fresh_and_the_same_when_it_is_run_again() -> None:
    first, again, other = (Run("order-1", NOW, seed) for seed in ("a", "a", "b"))
    ids = [first.uuid() for _ in range(3)]
    assert len(set(ids)) == 3
    assert [again.uuid() for _ in range(3)] == ids
    assert other.uuid() not in ids
    # a process of another release must make the same ids
    assert str(ids[0]) == "0e19cddd-ffcf-599a-adfe-9092d4f3c389"
    assert ids[0].version == 5
