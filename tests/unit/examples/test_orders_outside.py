"""The bank and the carriers: nothing twice for one key, and nothing at all after it was called off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from examples.orders.bank import Bank, Declined
from examples.orders.books import Book, read_books
from examples.orders.carriers import HICCUPS, Carriers
from examples.orders.world import make_order, prepare


@pytest.fixture
def home(tmp_path: Path) -> Path:
    prepare(tmp_path, [make_order("42", "ada", "delivered")])
    Bank(tmp_path / "bank.db").open_accounts({"bob": 100})
    return tmp_path


def money(home: Path) -> Book:
    return read_books(home)[1]


def shipments(home: Path) -> Book:
    return read_books(home)[2]


def test_a_charge_with_a_known_key_is_not_made_again(home: Path) -> None:
    bank = Bank(home / "bank.db")
    bank.charge("c", "bob", 60, "1")
    bank.charge("c", "bob", 60, "1")
    assert money(home).now["bob"] == 40
    assert len(money(home).entries) == 1


def test_an_account_without_money_is_declined_and_so_is_an_unknown_one(home: Path) -> None:
    bank = Bank(home / "bank.db")
    for account in ("bob", "nobody"):
        with pytest.raises(Declined, match="insufficient"):
            bank.charge(account, account, 101, "1")
    assert money(home).entries == ()


def test_a_charge_is_given_back_once(home: Path) -> None:
    bank = Bank(home / "bank.db")
    bank.charge("c", "bob", 60, "1")
    bank.reverse("r", "c", "1")
    bank.reverse("r", "c", "1")
    assert money(home).now["bob"] == 100
    assert [entry.amount for entry in money(home).entries] == [-60, 60]


def test_a_charge_that_comes_after_its_reversal_is_not_let_in(home: Path) -> None:
    bank = Bank(home / "bank.db")
    bank.reverse("r", "c", "1")
    with pytest.raises(Declined, match="reversed"):
        bank.charge("c", "bob", 60, "1")
    assert money(home).now["bob"] == 100


async def test_a_parcel_is_booked_once_and_cancelled_once(home: Path) -> None:
    carriers = Carriers(home / "carriers.db")
    assert await carriers.book("b", "Northern Post", "1") == await carriers.book("b", "Northern Post", "1")
    assert shipments(home).now == {"parcels": 1}
    await carriers.cancel("c", "b", "1")
    await carriers.cancel("c", "b", "1")
    assert shipments(home).now == {"parcels": 0}
    assert len(shipments(home).entries) == 2


async def test_a_parcel_that_was_called_off_before_is_not_booked(home: Path) -> None:
    carriers = Carriers(home / "carriers.db")
    await carriers.cancel("c", "b", "1")
    with pytest.raises(ConnectionError):
        await carriers.book("b", "Northern Post", "1")
    assert shipments(home).entries == ()


async def test_a_carrier_with_hiccups_answers_in_the_end(home: Path) -> None:
    carriers = Carriers(home / "carriers.db")
    for _ in range(HICCUPS["Mule & Sons"]):
        with pytest.raises(ConnectionError):
            await carriers.book("b", "Mule & Sons", "1")
    await asyncio.gather(*(carriers.book("b", "Mule & Sons", "1") for _ in range(3)))
    assert shipments(home).now == {"parcels": 1}
