"""What a step may return says at once when it makes no sense."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from tests.unit.coordinator.declaration.shop import Approve, OrderPlaced, PaymentCaptured, ReserveStock

from amends.contracts import JSON, Event, Signal, UsageError
from amends.coordinator.core.forward import awaited
from amends.coordinator.core.matching import matches
from amends.coordinator.core.snapshot import Recording
from amends.coordinator.declaration import Compensate, Publish, Skip, Sleep, WaitFor


class Colour(Enum):
    RED = "red"


class Measured(Event, rename="camel"):
    order_id: str
    share: float = 0.0
    price: Decimal = Decimal(0)
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    of_id: UUID = UUID(int=1)
    colour: Colour = Colour.RED
    maybe: str | None = None


def test_waits_for_the_same_are_equal() -> None:
    assert WaitFor(OrderPlaced) == WaitFor(OrderPlaced, where=None) == WaitFor(OrderPlaced, where={})
    assert WaitFor(OrderPlaced, where={"order_id": "1"}) == WaitFor(OrderPlaced, where={"order_id": "1"})
    assert WaitFor(OrderPlaced, where={"order_id": "1"}) != WaitFor(OrderPlaced, where={"order_id": "2"})
    assert WaitFor(OrderPlaced) != WaitFor(PaymentCaptured)
    assert WaitFor(OrderPlaced) != OrderPlaced
    assert hash(WaitFor(OrderPlaced)) == hash(WaitFor(OrderPlaced, where=None))
    assert repr(WaitFor(OrderPlaced, where={"order_id": "1"})) == "WaitFor(OrderPlaced, where={'order_id': '1'})"
    assert repr(WaitFor(Approve)) == "WaitFor(Approve)"


WHERE = [
    {"order_id": "1"},
    {"share": 1},
    {"price": Decimal("1.50")},
    {"at": datetime(2026, 5, 1, 12, tzinfo=UTC)},
    {"of_id": UUID(int=7), "colour": Colour.RED},
    {"maybe": None},
]


@pytest.mark.parametrize("where", WHERE)
def test_the_values_of_a_wait_match_an_event_that_was_made_with_them(where: dict[str, Any]) -> None:
    # 1 is a float here: in the event it was one too, and JSON tells 1 and 1.0 apart
    wanted = {**where, "share": float(where["share"])} if "share" in where else where
    for values, match in ((wanted, True), ({}, False)):
        event = Measured(**{"order_id": "2", "share": 0.5, "maybe": "x", **values})
        recording = Recording(Measured.__tag__, JSON.encode(event), JSON.content_type)
        assert matches(awaited(WaitFor(Measured, where=where)), recording) is match


def test_values_are_kept_under_their_names_on_the_wire_in_their_own_type() -> None:
    assert WaitFor(Measured, where={"order_id": "1", "share": 1}).where == {"orderId": "1", "share": 1.0}
    assert isinstance(WaitFor(Measured, where={"share": 1}).where["share"], float)


@pytest.mark.parametrize(
    ("type", "where", "says"),
    [
        (ReserveStock, None, r"WaitFor\(ReserveStock\): is no event or signal class"),
        (OrderPlaced(order_id="1"), None, "is no event or signal class"),
        (Event, None, r"WaitFor\(Event\): is abstract"),
        (Signal, None, r"WaitFor\(Signal\): is abstract"),
        (Approve, {"by": "ada"}, r"WaitFor\(Approve, where=…\): a signal is sent to one saga already"),
        (OrderPlaced, {"id": "1"}, r"OrderPlaced has no field 'id'\. It has order_id"),
        (PaymentCaptured, {"amount": "much"}, r"amount='much' is nothing that the field can hold\. Expected `int`"),
        (PaymentCaptured, {"amount": object()}, r"amount=<object .*> is nothing that the field can hold"),
    ],
)
def test_a_wait_that_can_never_end_is_refused(type: Any, where: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        WaitFor(type, where=where)


def test_a_sleep_needs_a_duration() -> None:
    assert Sleep(3) == Sleep(duration=3)
    assert Sleep(timedelta(days=1)).duration == timedelta(days=1)
    with pytest.raises(UsageError, match=r"Sleep\(duration\)=-1 is negative"):
        Sleep(-1)
    with pytest.raises(UsageError, match="is no duration"):
        Sleep("1h")  # type: ignore[arg-type]


def test_only_events_are_published() -> None:
    assert Publish(OrderPlaced(order_id="1")).event == OrderPlaced(order_id="1")
    with pytest.raises(UsageError, match=r"Publish\(ReserveStock\(.*\)\): is no event"):
        Publish(ReserveStock(sku="a"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no event"):
        Publish(OrderPlaced)  # type: ignore[arg-type]


def test_reasons_may_be_left_out() -> None:
    assert (Skip(), Skip("no need").reason) == (Skip(""), "no need")
    assert (Compensate(), Compensate("too late").reason) == (Compensate(""), "too late")
