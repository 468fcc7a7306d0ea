"""The audit, by the differences it must find: each is planted in the books of a real run."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from examples.orders.__main__ import main
from examples.orders.audit import Findings, audit
from examples.orders.home import BANK, CARRIERS, WAREHOUSE, transaction
from examples.orders.run import Kills, look, run
from examples.orders.world import make_order
from rich.console import Console

STATUSES = ("delivered", "shipped", "processing", "withdrawn", "unavailable", "canceled", "unreachable")
ORDERS = [make_order(f"{status}-{n}", f"customer-{n}", status) for status in STATUSES for n in range(2)]
PAID = next(order.saga for order in ORDERS if order.saga.order_id == "delivered-0")


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which every kind of order has come to rest."""
    home = tmp_path_factory.mktemp("100% orders")
    result = asyncio.run(run(home, ORDERS, Kills(), Console(file=StringIO()), in_process=True))
    assert result.problems == ()
    return home


@pytest.fixture
def home(traded: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(traded, tmp_path / "home", ignore=shutil.ignore_patterns("*-members"))


def findings(home: Path) -> Findings:
    found = asyncio.run(look(home))
    return audit(found.books, list(found.sagas.values()))


def test_books_that_nobody_touched_balance(home: Path) -> None:
    found = findings(home)
    assert found.problems == ()
    assert [line.standing for line in found.lines] == [6, 6, 6]
    assert all(line.due == line.found for line in found.lines)


def lose_money(home: Path) -> None:
    with transaction(home / BANK) as bank:
        bank.execute("UPDATE accounts SET balance = balance - 1 WHERE account = ?", (PAID.account,))


def find_stock(home: Path) -> None:
    with transaction(home / WAREHOUSE) as warehouse:
        warehouse.execute("UPDATE stock SET on_hand = on_hand + 5 WHERE sku = ?", (PAID.sku,))


def reserve_twice(home: Path) -> None:
    """The whole effect, once more under its own key, as if the inbox had not recognised a redelivery."""
    with transaction(home / WAREHOUSE) as warehouse:
        warehouse.execute("INSERT INTO movements SELECT * FROM movements WHERE order_id = ?", (PAID.order_id,))
        warehouse.execute("UPDATE stock SET on_hand = on_hand - ? WHERE sku = ?", (PAID.quantity, PAID.sku))


def charge_twice(home: Path) -> None:
    """Once more under another key, as if the saga had run again."""
    with transaction(home / BANK) as bank:
        bank.execute("INSERT INTO entries SELECT key || 'x', order_id, account, amount FROM entries WHERE order_id = ?",
                     (PAID.order_id,))  # fmt: skip
        bank.execute("UPDATE accounts SET balance = balance - ? WHERE account = ?", (PAID.amount, PAID.account))


def forget_refund(home: Path) -> None:
    with transaction(home / BANK) as bank:
        query = "SELECT account, amount FROM entries WHERE order_id = 'unreachable-0' AND amount > 0"
        account, amount = bank.execute(query).fetchone()
        bank.execute("DELETE FROM entries WHERE order_id = 'unreachable-0' AND amount > 0")
        bank.execute("UPDATE accounts SET balance = balance - ? WHERE account = ?", (amount, account))


def lose_parcel(home: Path) -> None:
    with transaction(home / CARRIERS) as carriers:
        carriers.execute("DELETE FROM bookings WHERE order_id = ?", (PAID.order_id,))


def ship_for_nobody(home: Path) -> None:
    with transaction(home / CARRIERS) as carriers:
        carriers.execute("INSERT INTO bookings VALUES ('key', 'nobody', 'Northern Post', 1)")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lose_money, [f"money: {PAID.account} should hold .*, but holds .*\\(-1\\)"]),
        (find_stock, [f"stock: {PAID.sku} should hold .*, but holds .*\\(\\+5\\)"]),
        (reserve_twice, [f"\\(-{PAID.quantity}\\)", "happened 2 times", "order delivered-0 should have .* but has"]),
        (charge_twice, [f"\\(-{PAID.amount:,}\\)", "order delivered-0 should have"]),
        (forget_refund, ["should hold", "order unreachable-0 should have no net effect"]),
        (lose_parcel, ["parcels should hold", "order delivered-0 should have .* but has nothing"]),
        (ship_for_nobody, ["parcels should hold", "order nobody, which has no saga"]),
    ],
)
def test_a_planted_difference_is_found_and_named(home: Path, spoil: Callable[[Path], None], named: list[str]) -> None:
    spoil(home)
    problems = findings(home).problems
    assert len(problems) == len(named)
    for problem, expected in zip(problems, named, strict=True):
        assert re.search(expected, problem), problem


def test_an_order_under_way_is_told_rather_than_judged(home: Path) -> None:
    found = asyncio.run(look(home))
    sagas = [
        saga._replace(undecided="charge is issued", standing=saga.standing - {"charge"})
        if saga.order.order_id == "delivered-0"
        else saga
        for saga in found.sagas.values()
    ]
    problems = audit(found.books, sagas).problems
    assert problems[0] == "order delivered-0 is under way (charge is issued): audit when it has come to rest"


def test_a_run_whose_books_do_not_add_up_fails_and_says_why(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "orders.csv"
    lines = [f"{status}-{n},customer-{n},{status}" for status in STATUSES for n in range(2)]
    rows.write_text("\n".join(["order_id,customer_id,order_status", *lines]))
    again = ["--in-process", "--home", str(home), "--orders", str(rows)]
    assert main(again) == 0
    assert "14 of the orders were there already; nothing happened twice" in capsys.readouterr().out
    lose_money(home)
    assert main(again) == 1
    told = capsys.readouterr().out
    assert f"money: {PAID.account} should hold" in told
    assert "✗ 1 problem:" in told


def test_another_order_under_the_same_id_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "orders.csv"
    rows.write_text("order_id,customer_id,order_status\ndelivered-0,somebody-else,delivered\n")
    assert main(["--in-process", "--home", str(home), "--orders", str(rows)]) == 2
    assert "saga id 'order-delivered-0' is taken" in capsys.readouterr().out.replace("\n", " ")
