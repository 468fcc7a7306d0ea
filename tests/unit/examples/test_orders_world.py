from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from examples.orders.bank import Bank
from examples.orders.books import read_books
from examples.orders.messages import Delivered, HandedOver
from examples.orders.world import PIECES, SAVINGS, Ending, generate_orders, make_order, prepare, read_orders


@pytest.mark.parametrize(
    ("status", "ending", "events"),
    [
        ("delivered", Ending.COMPLETED, (HandedOver, Delivered)),
        ("slow", Ending.COMPLETED, (HandedOver, Delivered)),
        ("shipped", Ending.AT_DELIVERED, (HandedOver,)),
        ("invoiced", Ending.AT_HANDED_OVER, ()),
        ("processing", Ending.AT_HANDED_OVER, ()),
        ("unavailable", Ending.OUT_OF_STOCK, ()),
        ("canceled", Ending.PAYMENT_REFUSED, ()),
        ("unreachable", Ending.NO_CARRIER, ()),
        ("withdrawn", Ending.WITHDRAWN, ()),
    ],
)
def test_a_status_says_what_the_world_does_and_how_the_order_ends(
    status: str, ending: Ending, events: tuple[type, ...]
) -> None:
    order = make_order("42", "ada", status)
    assert (order.id, order.ending) == ("order-42", ending)
    assert tuple(type(event) for event in order.events) == events


def test_an_unknown_status_is_refused_with_the_order() -> None:
    with pytest.raises(ValueError, match=r"order 42: .*'teleported'"):
        make_order("42", "ada", "teleported")


def test_the_same_seed_makes_the_same_orders_and_more_of_it_begin_with_them() -> None:
    assert generate_orders(50, seed=7) == generate_orders(80, seed=7)[:50]
    assert generate_orders(50, seed=7) != generate_orders(50, seed=8)


def test_most_generated_orders_are_fine_and_some_are_not() -> None:
    endings = Counter(order.ending for order in generate_orders(1000, seed=1))
    assert set(endings) == set(Ending)
    assert 800 < endings[Ending.COMPLETED] < 900


def test_orders_are_read_from_a_csv_file(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("order_id,customer_id,order_status,when\na,ada,delivered,today\nb,bob,canceled,now\n")
    assert read_orders(file) == [make_order("a", "ada", "delivered"), make_order("b", "bob", "canceled")]


def test_a_file_without_the_columns_is_refused_with_their_names(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("order_id,status\na,delivered\n")
    with pytest.raises(ValueError, match="no column customer_id, order_status; it has order_id, status"):
        read_orders(file)


def test_the_world_has_what_the_orders_need_and_lacks_what_they_must_not_find(tmp_path: Path) -> None:
    fine, sold_out, poor = (make_order("42", "ada", status) for status in ("delivered", "unavailable", "canceled"))
    prepare(tmp_path, [fine, sold_out, poor])
    stock, money, shipments = read_books(tmp_path)
    assert (stock.now[fine.saga.sku], stock.now[sold_out.saga.sku]) == (PIECES, 0)
    assert (money.now[fine.saga.account], money.now[poor.saga.account]) == (SAVINGS, 0)
    assert shipments.entries == ()


def test_preparing_a_world_again_changes_nothing_in_it(tmp_path: Path) -> None:
    order = make_order("42", "ada", "delivered")
    prepare(tmp_path, [order])
    Bank(tmp_path / "bank.db").charge("key", "ada", order.saga.amount, "42")
    before = read_books(tmp_path)
    prepare(tmp_path, [order])
    assert read_books(tmp_path) == before
