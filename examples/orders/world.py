"""The world around the services: customers who order, what they own, and what happens to their parcels.

Orders come from a CSV file, or are made from a seed; the same seed makes the same orders. Each also says how it must
end. The services know nothing of that: they look at the stock, the balance and the address, and go by what they see.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple
from zlib import crc32

from amends.contracts import Event

from .bank import Bank
from .carriers import Carriers
from .home import BANK, CARRIERS, WAREHOUSE
from .inventory import stock_up
from .messages import Delivered, HandedOver
from .saga import PlaceOrder

ARTICLES = 40
PIECES = 100_000
"""How many of each article there are at first. Those of the old catalogue are sold out."""

SAVINGS = 10_000_00
"""What is in an account at first, in cents. Some customers pay from an empty one."""


class Ending(StrEnum):
    """Where an order comes to rest."""

    COMPLETED = "completed"
    OUT_OF_STOCK = "undone: out of stock"
    PAYMENT_REFUSED = "undone: payment refused"
    NO_CARRIER = "undone: no carrier goes there"
    WITHDRAWN = "undone: withdrawn by the customer"
    AT_HANDED_OVER = "waiting for the carrier"
    AT_DELIVERED = "waiting for the delivery"


class Order(NamedTuple):
    """One order, what the world does about it, and how it must end."""

    saga: PlaceOrder
    ending: Ending
    events: tuple[Event, ...] = ()

    @property
    def id(self) -> str:
        """The id of its saga."""
        return f"order-{self.saga.order_id}"


def read_orders(file: Path) -> list[Order]:
    """The orders of a CSV file with the columns `order_id`, `customer_id` and `order_status`."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = csv.DictReader(opened)
        if missing := {"order_id", "customer_id", "order_status"}.difference(rows.fieldnames or ()):
            raise ValueError(
                f"{file} has no column {', '.join(sorted(missing))}; it has {', '.join(rows.fieldnames or ())}"
            )
        return [make_order(row["order_id"], row["customer_id"], row["order_status"]) for row in rows]


STATUSES = {
    "delivered": 80,
    "slow": 5,
    "unavailable": 4,
    "canceled": 4,
    "unreachable": 3,
    "shipped": 2,
    "processing": 1,
    "withdrawn": 1,
}
"""What becomes of orders that are made up, in percent."""


def generate_orders(count: int, seed: int) -> list[Order]:
    """Orders as they might come in. More of the same seed begin with the same ones."""
    random = Random(seed)
    statuses = random.choices(list(STATUSES), list(STATUSES.values()), k=count)
    return [make_order(f"{seed}-{n:05d}", f"customer-{seed}-{n // 3}", status) for n, status in enumerate(statuses)]


def make_order(order_id: str, customer_id: str, status: str) -> Order:
    """The order that becomes what `status` says, in a world as `prepare` makes it."""
    number = crc32(order_id.encode())
    sold_out = status == "unavailable"
    saga = PlaceOrder(
        order_id=order_id,
        sku=f"{'old' if sold_out else 'article'}-{number % ARTICLES:02d}",
        quantity=1 + number % 3,
        account=f"{customer_id}{'/empty' if status == 'canceled' else ''}",
        amount=5_00 + number % 495_00,
        address=f"{1 + number % 99} Mill Road, {_region(status, number)}",
    )
    carried, arrived = HandedOver(order_id=order_id), Delivered(order_id=order_id)
    match status:
        case "delivered" | "slow":
            return Order(saga, Ending.COMPLETED, (carried, arrived))
        case "shipped":
            return Order(saga, Ending.AT_DELIVERED, (carried,))
        case "unavailable":
            return Order(saga, Ending.OUT_OF_STOCK)
        case "canceled":
            return Order(saga, Ending.PAYMENT_REFUSED)
        case "unreachable":
            return Order(saga, Ending.NO_CARRIER)
        case "withdrawn":
            return Order(saga, Ending.WITHDRAWN)
        case "created" | "approved" | "invoiced" | "processing":
            return Order(saga, Ending.AT_HANDED_OVER)
        case _:
            raise ValueError(f"order {order_id}: nobody knows what an order does that is {status!r}")


def _region(status: str, number: int) -> str:
    match status:
        case "unreachable":
            return "Far Islands"
        case "slow":
            return "Highlands"  # where the carrier's system needs several calls
        case _:
            return ("North", "South", "East")[number % 3]


def prepare(home: Path, orders: Sequence[Order]) -> None:
    """Give every article a stock and every account a balance, once: repeating it changes nothing."""
    home.mkdir(parents=True, exist_ok=True)
    stock_up(home / WAREHOUSE, dict(_stock()))
    Bank(home / BANK).open_accounts(
        {order.saga.account: 0 if order.saga.account.endswith("/empty") else SAVINGS for order in orders}
    )
    Carriers(home / CARRIERS).set_up()


def _stock() -> Iterator[tuple[str, int]]:
    for number in range(ARTICLES):
        yield f"article-{number:02d}", PIECES
        yield f"old-{number:02d}", 0
