"""The handlers of the three services, called as the plain functions they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.orders import inventory, payments, shipping
from examples.orders.books import Book, read_books
from examples.orders.home import VARIABLE, WAREHOUSE, surroundings, transaction
from examples.orders.messages import (
    BookShipment,
    CancelShipment,
    Charge,
    NoCarrier,
    OutOfStock,
    PaymentRefused,
    PaymentTaken,
    Refund,
    ReleaseStock,
    ReserveStock,
    StockReserved,
)
from examples.orders.world import PIECES, SAVINGS, make_order, prepare

from amends.participants import Context, Reject, Session, Undoes

RESERVE = ReserveStock(order_id="42", sku="article-07", quantity=2)
CHARGE = Charge(order_id="42", account="ada", amount=30)
BOOK = BookShipment(order_id="42", address="1 Mill Road, North")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    prepare(tmp_path, [make_order("42", "ada", "delivered")])
    with surroundings({VARIABLE: str(tmp_path)}):
        yield tmp_path


def books(home: Path) -> dict[str, Book]:
    return {book.title: book for book in read_books(home)}


def test_stock_is_reserved_and_released_in_the_transaction_of_the_inbox(home: Path) -> None:
    with transaction(home / WAREHOUSE) as connection:
        reply = inventory.reserve(RESERVE, Context(effect_key="e", session=Session(connection)))
    assert reply == StockReserved(on_hand=PIECES - 2)
    assert books(home)["stock"].now["article-07"] == PIECES - 2
    with transaction(home / WAREHOUSE) as connection:
        undoes = Undoes(RESERVE, reply)
        inventory.release(ReleaseStock(), Context(effect_key="e", session=Session(connection), undoes=undoes))
    assert books(home)["stock"].now["article-07"] == PIECES
    assert [(e.key, e.amount) for e in books(home)["stock"].entries] == [("e", -2), ("e/undo", 2)]


@pytest.mark.parametrize("sku", ["old-07", "unheard-of"])
def test_what_is_not_in_stock_is_rejected(home: Path, sku: str) -> None:
    command = ReserveStock(order_id="42", sku=sku, quantity=1)
    with transaction(home / WAREHOUSE) as connection, pytest.raises(Reject) as no:
        inventory.reserve(command, Context(effect_key="e", session=Session(connection)))
    assert no.value.rejection == OutOfStock(on_hand=0)
    assert books(home)["stock"].entries == ()


def test_a_payment_is_taken_once_however_often_it_is_tried(home: Path) -> None:
    for attempt in range(3):
        assert payments.charge(CHARGE, Context(effect_key="e", attempt=attempt)) == PaymentTaken(receipt="e")
    assert books(home)["money"].now["ada"] == SAVINGS - 30


@pytest.mark.parametrize("outcome", ["done", "unknown"])
def test_a_payment_is_given_back_even_if_its_outcome_was_never_heard_of(home: Path, outcome: str) -> None:
    payments.charge(CHARGE, Context(effect_key="e"))
    undoes = Undoes(CHARGE, PaymentTaken(receipt="e")) if outcome == "done" else Undoes(CHARGE, outcome="unknown")
    for _ in range(2):
        payments.refund(Refund(), Context(effect_key="e", undoes=undoes))
    assert books(home)["money"].now["ada"] == SAVINGS


def test_an_account_that_cannot_pay_is_a_rejection(home: Path) -> None:
    with pytest.raises(Reject) as no:
        payments.charge(Charge(order_id="42", account="ada", amount=SAVINGS + 1), Context(effect_key="e"))
    assert no.value.rejection == PaymentRefused(reason="insufficient funds")


async def test_a_shipment_is_booked_and_cancelled(home: Path) -> None:
    reply = await shipping.book(BOOK, Context(effect_key="e"))
    assert (reply.carrier, books(home)["shipments"].now) == ("Northern Post", {"parcels": 1})
    await shipping.cancel(CancelShipment(), Context(effect_key="e", undoes=Undoes(BOOK, reply)))
    assert books(home)["shipments"].now == {"parcels": 0}


async def test_where_nobody_carries_the_address_is_rejected(home: Path) -> None:
    with pytest.raises(Reject) as no:
        await shipping.book(BookShipment(order_id="42", address="1 Mill Road, Far Islands"), Context(effect_key="e"))
    assert no.value.rejection == NoCarrier(region="Far Islands")
    assert books(home)["shipments"].entries == ()
