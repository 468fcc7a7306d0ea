"""The example of the orders as it is run: real processes that are killed, real files, an audit that must balance."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from examples.orders.home import store_url
from examples.orders.processes import ProcessEnded, Processes, Role, roles
from examples.orders.run import Kills, Result, run
from examples.orders.world import Ending, generate_orders, read_orders
from rich.console import Console

from amends.coordinator.core.journal import What
from amends.coordinator.stores import connect_store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def quietly() -> Console:
    return Console(file=StringIO())


def histories(home: Path, ids: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Of each saga, the steps that were done and those that were undone, in the order of its journal."""

    async def read() -> dict[str, tuple[list[str], list[str]]]:
        store = await connect_store(store_url(home))
        try:
            found = {}
            for id in ids:
                entries = [entry for record in await store.journal(id) for entry in record.entries]
                done = [e.step for e in entries if e.what is What.STEP_DONE]
                found[id] = (done, [e.step for e in entries if e.what is What.STEP_UNDONE])
            return found
        finally:
            await store.close()

    return asyncio.run(read())


STEPS = ["reserve#0", "charge#0", "ship#0", "handed_over#0", "delivered#0"]
LEGAL = {
    Ending.COMPLETED: (STEPS, []),
    Ending.AT_DELIVERED: (STEPS[:4], []),
    Ending.AT_HANDED_OVER: (STEPS[:3], []),
    Ending.OUT_OF_STOCK: ([], []),
    Ending.PAYMENT_REFUSED: (STEPS[:1], STEPS[:1]),
    Ending.NO_CARRIER: (STEPS[:2], STEPS[1::-1]),
    Ending.WITHDRAWN: (STEPS[:3], STEPS[2::-1]),
}
"""Garcia-Molina & Salem's histories: T1…Tn, or T1…Tj Cj…C1."""


def test_orders_come_out_right_although_everything_is_killed_midway_and_twice_is_like_once(tmp_path: Path) -> None:
    orders = generate_orders(150, seed=7)
    assert {order.ending for order in orders} == set(Ending)
    kills = Kills(("participants", "coordinator"))

    first = asyncio.run(run(tmp_path, orders, kills, quietly()))
    assert first.problems == ()
    assert (first.kills, first.existing) == (1, 0)
    assert first.found == Counter(order.ending for order in orders)
    assert histories(tmp_path, [order.id for order in orders]) == {order.id: LEGAL[order.ending] for order in orders}

    second = asyncio.run(run(tmp_path, orders, Kills(), quietly()))
    assert second.problems == ()
    assert second.existing == 150
    assert second.findings.lines == first.findings.lines


def the_file() -> Path | None:
    file = Path(os.environ.get("AMENDS_TEST_ORDERS") or next(ROOT.parent.glob("*/data/orders.csv"), ""))
    return file if file.is_file() else None


@pytest.mark.skipif(the_file() is None, reason="no file of real orders; name one in AMENDS_TEST_ORDERS")
def test_every_real_order_ends_as_its_status_says(tmp_path: Path) -> None:
    file = the_file()
    assert file is not None
    with file.open(newline="") as rows:
        statuses = Counter(row["order_status"] for row in csv.DictReader(rows))

    result: Result = asyncio.run(run(tmp_path, read_orders(file), Kills(), quietly(), in_process=True))
    assert result.problems == ()
    assert result.found == Counter(
        {
            "completed": statuses["delivered"],
            "undone: out of stock": statuses["unavailable"],
            "undone: payment refused": statuses["canceled"],
            "waiting for the carrier": statuses["invoiced"] + statuses["processing"],
            "waiting for the delivery": statuses["shipped"],
        }
    )
    reached_shipping = statuses.total() - statuses["unavailable"] - statuses["canceled"]
    assert [line.standing for line in result.findings.lines] == [reached_shipping] * 3


async def test_a_process_that_ends_by_itself_ends_the_run_and_says_why(tmp_path: Path) -> None:
    processes = Processes(tmp_path, [roles()[0], Role("typo", "examples.orders.shiping", "participants")])
    with pytest.raises(ProcessEnded, match="typo ended by itself with code 2") as ended:
        async with processes.running():
            await processes.while_alive(asyncio.Event().wait())
    assert "there is no module 'examples.orders.shiping'" in str(ended.value)
    assert (tmp_path / "logs" / "inventory.log").is_file()


def test_ctrl_c_stops_every_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.orders", "--count", "100000", "--home", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as example:
        logs = [tmp_path / "logs" / f"{name}.log" for name in ("inventory", "shipping", "coordinator-2")]
        deadline = time.monotonic() + 60
        while not all(log.is_file() and "Running." in log.read_text() for log in logs):
            assert time.monotonic() < deadline
            assert example.poll() is None
            os.sched_yield()
        example.send_signal(signal.SIGINT)
        told, _ = example.communicate(timeout=60)
    assert example.returncode == 130
    assert "all processes are stopped" in re.sub(r"\s+", " ", told)
    assert [log.read_text().splitlines()[-1] for log in logs] == ["Stopped"] * 3
