"""Lint finds what a class may be, but had better not."""

from typing import Any, ClassVar

import pytest
from tests.unit.coordinator.declaration.shop import (
    Approve,
    CardCharged,
    ChargeCard,
    ChargeWallet,
    OutOfStock,
    PaymentCaptured,
    Ping,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
)

from amends.contracts import Failure, UsageError
from amends.coordinator.declaration import Compensate, Decision, Publish, Saga, SagaDefinitionError, WaitFor, step
from amends.coordinator.lint import Finding, lint


def told(saga: type[Saga]) -> list[tuple[str | None, str, str]]:
    return [(finding.step, finding.severity, finding.message) for finding in lint(saga)]


def test_a_sound_saga_has_no_findings() -> None:
    class Sound(Saga, deadline=3600):
        LIMIT: ClassVar[int] = 3
        sku: str
        wanted: bool = True
        reserved: str = ""

        @property
        def double(self) -> str:
            return self.sku * 2

        def helper(self) -> str:
            return self.run.id

        @step(when=lambda saga: saga.wanted and not saga.reserved)
        def reserve(self) -> ReserveStock:
            return ReserveStock(sku=self.double + self.helper(), quantity=self.LIMIT)

        @reserve.on_success
        def ok(self, reply: StockReserved) -> None:
            self.reserved = reply.reservation_id

        @reserve.on_rejection
        def no(self, no: OutOfStock) -> Decision:
            return Compensate(no.sku)

        @reserve.on_failure
        def broke(self, failure: Failure) -> type[Compensate]:
            return Compensate

        @reserve.compensation
        def undo(self) -> ReleaseStock: ...
        @step(pivot=True)
        def approved(self) -> WaitFor[Approve]: ...
        @step(retriable=True)
        def ship(self) -> ShipOrder: ...

    assert lint(Sound) == ()


def test_waits_without_end_are_found() -> None:
    class Endless(Saga):
        @step(readonly=True)
        def ask(self) -> ChargeCard | ChargeWallet | Ping: ...
        @step
        def wait(self) -> WaitFor[Approve] | WaitFor[PaymentCaptured]: ...
        @step(timeout=3)
        def bounded(self) -> WaitFor[Approve]: ...
        @step
        def local(self) -> None: ...
        @step(pivot=True, timeout=3)
        def pay(self) -> ChargeCard: ...
        @step(retriable=True)
        def ship(self) -> ShipOrder: ...

    end = "without end: neither the step has a timeout nor the saga a deadline"
    assert told(Endless) == [
        ("ask", "warning", f"waits for an answer of payments or an answer of monitor {end}"),
        ("wait", "warning", f"waits for approve.v1 or payment-captured.v1 {end}"),
    ]
    assert lint(Endless)[0].remedy == "Write @step(timeout=…), or deadline=… in the class line"


def test_types_that_change_in_storage_are_found() -> None:
    class Loose(Saga):
        anything: Any
        bag: dict[str, list[Any]] = {}
        bare: list = []  # type: ignore[type-arg]
        fine: dict[str, int] = {}

        @step
        def local(self) -> None: ...

    what = "is Any: what is not plain data changes its type when it is stored and read back"
    assert told(Loose) == [(None, "warning", f"{name} {what}") for name in ("anything", "bag[…][…]", "bare[…]")]


def test_constants_that_are_state_are_found() -> None:
    class Constant(Saga):
        LIMIT: int = 3
        SKU: str

        @step
        def local(self) -> None: ...

    assert lint(Constant) == (
        Finding(
            None,
            "warning",
            "LIMIT looks like a constant, but is a field of the state and stored with every saga",
            "Annotate it as LIMIT: ClassVar[…]",
        ),
    )


def test_a_saga_without_steps_is_found() -> None:
    class Empty(Saga):
        x: int

    assert told(Empty) == [(None, "warning", "has no steps, so it completes at once")]


def test_attributes_that_do_not_exist_are_found_wherever_they_are_used() -> None:
    class Typos(Saga, deadline=60):
        sku: str

        @step(when=lambda saga: saga.wanted and saga.sku)
        def reserve(self) -> ReserveStock:
            return ReserveStock(sku=self.sku or self.skuu)

        @reserve.on_success
        def ok(self, reply: StockReserved) -> None:
            amount = reply.reservation_id
            self.reservation = amount

        @reserve.compensation
        def undo(self) -> ReleaseStock:
            return ReleaseStock(reason=self.reasons())

        @step
        def closure(self) -> None:
            print(lambda: self.sku)  # so that self is no plain local variable
            self.later = 3

    assert told(Typos) == [
        ("reserve", "error", "reserve reads self.skuu, which Typos does not have"),
        ("reserve", "error", "when= reads saga.wanted, which Typos does not have"),
        ("reserve", "error", "ok writes self.reservation, which Typos does not have"),
        ("reserve", "error", "undo reads self.reasons, which Typos does not have"),
        ("closure", "error", "closure writes self.later, which Typos does not have"),
    ]
    assert lint(Typos)[0].remedy == "Declare skuu as a field, or correct the name"


def test_another_thing_of_the_same_name_is_left_alone() -> None:
    class Rebinds(Saga):
        sku: str

        @step
        def local(self) -> None:
            self = PaymentCaptured(order_id="1", amount=2)  # type: ignore[assignment]  # noqa: PLW0642
            print(self.amount)  # type: ignore[attr-defined]

        @step
        def other(self) -> None:
            event = PaymentCaptured(order_id="1", amount=2)
            print(event.amount, [].append(self.sku))

    assert lint(Rebinds) == ()


def test_a_condition_that_is_always_false_is_found() -> None:
    class Never(Saga):
        x: int = 0

        @step(when=lambda saga: False)
        def never(self) -> None: ...
        @step(when=lambda saga: True)
        def always(self) -> None: ...
        @step(when=lambda saga: saga.x)
        def sometimes(self) -> None: ...
        @step
        def neither(self) -> None: ...
        @neither.when
        def wanted(self) -> bool:
            return False

    message = "is never run: its when= is always false"
    assert told(Never) == [("never", "warning", message), ("neither", "warning", message)]


def test_handlers_that_return_what_nobody_looks_at_are_found() -> None:
    class Returns(Saga, deadline=60):
        @step(readonly=True, timeout=3)
        def charge(self) -> ChargeCard: ...
        @charge.on_success
        def ok(self, reply: CardCharged) -> Decision: ...
        @charge.on_failure
        def broke(self, failure: Failure) -> bool | None: ...
        @charge.on_timeout
        def late(self) -> Any: ...
        @charge.when
        def wanted(self) -> str:
            return "yes"

    assert told(Returns) == [
        ("charge", "error", "wanted returns str, but a condition is True or False"),
        ("charge", "error", "ok returns Compensate, but what on_success returns is not looked at"),
        ("charge", "error", "ok returns type[Compensate], but what on_success returns is not looked at"),
        ("charge", "error", "broke returns bool, but on_failure decides: Compensate or None"),
    ]


def test_what_may_be_refused_beside_the_pivot_is_found() -> None:
    class Beside(Saga, deadline=60):
        @step
        def start(self) -> None: ...
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...
        @step(after=start, readonly=True)
        def ping(self) -> Ping: ...
        @step(after=start, timeout=3)
        def approved(self) -> WaitFor[Approve]: ...
        @step(after=start)
        def patient(self) -> WaitFor[Approve]: ...
        @step(after=start)
        def tell(self) -> Publish: ...
        @step(after=charge, readonly=True)
        def behind(self) -> Ping: ...

    what = (
        "runs beside the pivot charge: once charge is done there is no way back, so a refusal or a timeout here leaves "
        "the saga stuck"
    )
    assert told(Beside) == [("ping", "warning", what), ("approved", "warning", what)]
    assert lint(Beside)[0].remedy == "Let the pivot wait for it: after=[start, ping] on charge"


def test_an_abstract_saga_cannot_be_linted() -> None:
    class Base(Saga, abstract=True): ...

    with pytest.raises(UsageError, match="Base is abstract"):
        lint(Base)


class LivesNowhere(Saga):
    address: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


def test_a_state_that_cannot_be_stored_is_told() -> None:
    with pytest.raises(SagaDefinitionError, match="Nowhere"):
        lint(LivesNowhere)
