"""The books of the three services, in one form, so that one audit fits all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .home import BANK, CARRIERS, WAREHOUSE, transaction
from .saga import PlaceOrder


class Entry(NamedTuple):
    """One effect as a service wrote it down: who it was for, and what it added to which account."""

    key: str
    order_id: str
    account: str
    amount: int


class Book(NamedTuple):
    """What one service owns: accounts with what was in them at first and what is in them now, and what happened.

    `step` is the step of the saga that writes into it. `unit` is what the numbers count.
    """

    title: str
    step: str
    unit: str
    opening: Mapping[str, int]
    now: Mapping[str, int]
    entries: tuple[Entry, ...]

    def shown(self, amount: int) -> str:
        """An amount for people."""
        return f"{amount / 100:,.2f}" if self.unit == "cents" else f"{amount:,}"

    def effect_of(self, saga: PlaceOrder) -> int:
        """What this saga's step adds, when it stands."""
        return {"reserve": -saga.quantity, "charge": -saga.amount, "ship": 1}[self.step]

    def account_of(self, saga: PlaceOrder) -> str:
        """The account that this saga's step writes to. The carriers share one."""
        return {"reserve": saga.sku, "charge": saga.account, "ship": _PARCELS}[self.step]


_PARCELS = "parcels"


def read_books(home: Path) -> tuple[Book, Book, Book]:
    """The books as they are now."""
    with transaction(home / WAREHOUSE) as warehouse:
        stock = _balances(warehouse.execute("SELECT sku, opening, on_hand FROM stock"))
        movements = _entries(warehouse.execute("SELECT key, order_id, sku, pieces FROM movements"))
    with transaction(home / BANK) as bank:
        accounts = _balances(bank.execute("SELECT account, opening, balance FROM accounts"))
        entries = _entries(bank.execute("SELECT key, order_id, account, amount FROM entries WHERE amount != 0"))
    with transaction(home / CARRIERS) as carriers:
        (booked,) = carriers.execute("SELECT coalesce(sum(parcels), 0) FROM bookings").fetchone()
        bookings = _entries(
            carriers.execute("SELECT key, order_id, ?, parcels FROM bookings WHERE parcels != 0", (_PARCELS,))
        )
    return (
        Book("stock", "reserve", "pieces", *stock, movements),
        Book("money", "charge", "cents", *accounts, entries),
        Book("shipments", "ship", "parcels", {_PARCELS: 0}, {_PARCELS: booked}, bookings),
    )


def _balances(rows: Iterator[tuple[str, int, int]]) -> tuple[dict[str, int], dict[str, int]]:
    found = list(rows)
    return {account: opening for account, opening, _ in found}, {account: now for account, _, now in found}


def _entries(rows: Iterator[tuple[str, str, str, int]]) -> tuple[Entry, ...]:
    return tuple(Entry(*row) for row in rows)
