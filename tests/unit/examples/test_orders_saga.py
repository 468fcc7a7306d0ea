from __future__ import annotations

from datetime import timedelta

import pytest
from examples.orders.messages import (
    BookShipment,
    CancelShipment,
    Charge,
    Delivered,
    HandedOver,
    NoCarrier,
    OutOfStock,
    PaymentRefused,
    PaymentTaken,
    Refund,
    ReleaseStock,
    ReserveStock,
    ShipmentBooked,
    StockReserved,
)
from examples.orders.saga import PlaceOrder

from amends.coordinator.testing import Given, given

WHY = "order 42 was cancelled"


def an_order() -> Given[PlaceOrder]:
    return given(PlaceOrder(order_id="42", sku="a", quantity=2, account="ada", amount=30, address="1 Mill Road, North"))


def reserved() -> Given[PlaceOrder]:
    order = an_order()
    return order.expect(ReserveStock(order_id="42", sku="a", quantity=2)).succeeds(StockReserved(on_hand=1))


def paid() -> Given[PlaceOrder]:
    return reserved().expect(Charge(order_id="42", account="ada", amount=30)).succeeds(PaymentTaken(receipt="r"))


def booked() -> Given[PlaceOrder]:
    shipping = paid().expect(BookShipment(order_id="42", address="1 Mill Road, North"))
    return shipping.succeeds(ShipmentBooked(carrier="Northern Post", tracking="t"))


def test_an_order_that_is_delivered_completes() -> None:
    order = booked()
    order.event(HandedOver(order_id="42"))
    order.event(Delivered(order_id="42"))
    order.expect_completed()
    assert (order.state.receipt, order.state.tracking) == ("r", "t")


def test_the_parcel_of_another_order_is_not_ours() -> None:
    order = booked()
    with pytest.raises(AssertionError, match="nobody awaits"):
        order.event(HandedOver(order_id="43"))
    order.expect_running()


def test_without_stock_nothing_is_to_be_undone() -> None:
    order = an_order()
    order.expect(ReserveStock(order_id="42", sku="a", quantity=2)).rejects(OutOfStock(on_hand=1))
    order.expect_compensated()


def test_a_refused_payment_releases_the_stock() -> None:
    order = reserved()
    order.expect(Charge(order_id="42", account="ada", amount=30)).rejects(PaymentRefused(reason="poor"))
    order.expect_undo(ReleaseStock(reason=WHY)).undone()
    order.expect_compensated()


def test_without_a_carrier_the_payment_is_given_back_and_then_the_stock() -> None:
    order = paid()
    order.expect(BookShipment(order_id="42", address="1 Mill Road, North")).rejects(NoCarrier(region="North"))
    order.expect_undo(Refund(reason=WHY)).undone()
    order.expect_undo(ReleaseStock(reason=WHY)).undone()
    order.expect_compensated()


def test_events_that_come_early_are_kept_for_their_steps() -> None:
    order = paid()
    order.event(Delivered(order_id="42")).event(HandedOver(order_id="42"))
    shipping = order.expect(BookShipment(order_id="42", address="1 Mill Road, North"))
    shipping.succeeds(ShipmentBooked(carrier="Northern Post", tracking="t")).expect_completed()


def test_carriers_that_do_not_answer_are_asked_again() -> None:
    order = paid()
    for _ in range(9):
        order.expect(BookShipment(order_id="42", address="1 Mill Road, North")).fails("ConnectionError").after(30)
    shipping = order.expect(BookShipment(order_id="42", address="1 Mill Road, North"))
    shipping.succeeds(ShipmentBooked(carrier="Northern Post", tracking="t")).expect_running()


def test_weeks_may_pass_before_the_parcel_is_handed_over() -> None:
    order = booked().after(timedelta(weeks=8)).event(HandedOver(order_id="42")).after(timedelta(weeks=8))
    order.event(Delivered(order_id="42")).expect_completed()


def test_once_the_parcel_has_left_it_is_too_late_to_cancel() -> None:
    order = booked().event(HandedOver(order_id="42"))
    with pytest.raises(AssertionError, match="too late"):
        order.cancel("changed my mind")


def test_an_order_is_cancelled_backwards() -> None:
    order = booked()
    order.cancel("changed my mind")
    order.expect_undo(CancelShipment(reason=WHY)).undone()
    order.expect_undo(Refund(reason=WHY)).undone()
    order.expect_undo(ReleaseStock(reason=WHY)).undone()
    order.expect_compensated()
