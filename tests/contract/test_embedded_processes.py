"""The embedded broker among real processes that are killed and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.broker import GUARD_S, STOCK, Shares, ids, message, numbered, receive

from amends.brokers import EmbeddedBroker
from amends.contracts.names import client_address, slot_address

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONG_S = 3600.0
"""A lease that no test outlives: what is noticed is noticed otherwise."""


class Child:
    """A process that runs `embedded_child.py`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def tell(self, *order: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return json.loads(await self.line())

    async def line(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(GUARD_S):
            line = await self.process.stdout.readline()
        assert line, "the child ended"
        return line

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> None:
        """Let it close its broker and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(GUARD_S):
            assert await self.process.wait() == 0


Start = Callable[..., Awaitable[Child]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amends.db"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    children: list[Child] = []

    async def start(lease_s: float = LONG_S) -> Child:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.contract.embedded_child", str(path), str(lease_s)),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        child = Child(process)
        children.append(child)
        assert await child.line() == b"ready\n"
        return child

    yield start
    for child in children:
        if child.process.returncode is None:
            await child.kill()


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = await EmbeddedBroker.open(path, lease_s=LONG_S)
    yield broker
    await broker.close()


async def test_what_a_killed_process_had_in_hand_goes_to_another_one_promptly(
    broker: EmbeddedBroker, start: Start, path: Path
) -> None:
    child = await start()
    await child.tell("consume", "service:inventory")
    await child.tell("consume", "client:child")
    await broker.publish([*numbered(STOCK, range(30)), *numbered(client_address("child"), range(3))])
    assert await child.tell("take", "service:inventory", 5) == ["0", "1", "2", "3", "4"]
    await child.tell("ack", "service:inventory")
    assert await child.tell("take", "service:inventory", 5) == ["5", "6", "7", "8", "9"]
    consumer = await broker.consume_service("inventory")
    await child.kill()
    got = await receive(consumer, 25)
    assert sorted(ids(got), key=int) == [str(n) for n in range(5, 30)]
    # its own queue is gone with it
    await broker.publish([message(client_address("child"))])
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT queue FROM broker_messages WHERE queue LIKE 'client:%'").fetchall() == []
    connection.close()


async def test_the_shards_of_a_killed_process_go_to_another_one(broker: EmbeddedBroker, start: Start) -> None:
    child = await start()
    await child.tell("consume", "shards")
    await child.tell("shards", 8)
    shares = Shares()
    consumer = await broker.consume_shards(shares[0])
    await child.tell("shards", 4)
    await shares.until(4)
    await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
    await child.tell("take", "shards", 4)
    await child.kill()
    await shares.until(8)
    assert sorted(ids(await receive(consumer, 8))) == [str(shard) for shard in range(8)]


async def test_processes_wake_each_other(broker: EmbeddedBroker, start: Start) -> None:
    child = await start()
    await child.tell("consume", "service:inventory")
    await child.tell("echo", "service:inventory", "here")
    here = await broker.consume_client("here")
    # far more often than members look at the file of themselves
    async with asyncio.timeout(GUARD_S):
        for number in range(100):
            await broker.publish(numbered(STOCK, [number]))
            got = await receive(here, 1)
            assert ids(got) == [str(number)]
            await here.ack(got)


async def test_processes_that_compete_handle_each_message_once(broker: EmbeddedBroker, start: Start) -> None:
    children = [await start(), await start()]
    here = await broker.consume_client("here")
    for child in children:
        await child.tell("consume", "service:inventory")
        await child.tell("echo", "service:inventory", "here")
    for begin in range(0, 2000, 100):
        await broker.publish(numbered(STOCK, range(begin, begin + 100)))
    handled = Counter(ids(await receive(here, 2000)))
    for child in children:
        await child.tell("publish", client_address("here"), -1)
        await child.leave()
    handled.update(ids(await receive(here, 2)))
    assert handled.pop("-1") == 2
    assert handled == Counter(str(n) for n in range(2000))
    rest = await broker.consume_service("inventory")
    await broker.publish([message(STOCK, "last")])
    assert ids(await receive(rest, 1)) == ["last"]


async def test_a_process_that_stood_still_for_too_long_loses_its_messages_and_comes_back(
    start: Start, path: Path
) -> None:
    broker = await EmbeddedBroker.open(path, lease_s=1.0)
    try:
        child = await start(1.0)
        await child.tell("consume", "service:inventory")
        await child.tell("consume", "shards")
        await child.tell("shards", 8)
        await broker.publish(numbered(STOCK, range(3)))
        assert await child.tell("take", "service:inventory", 3) == ["0", "1", "2"]
        assert await child.tell("deliveries") == [1, 1, 1]
        shares = Shares()
        await broker.consume_shards(shares[0])
        await child.tell("shards", 4)
        _stop_outside_of_a_transaction(child.process.pid, path)
        consumer = await broker.consume_service("inventory")
        got = await receive(consumer, 3)
        assert [(*ids([d]), d.deliveries) for d in got] == [("0", 2), ("1", 2), ("2", 2)]
        await shares.until(8)
        os.kill(child.process.pid, signal.SIGCONT)
        # it was expelled: what it says of its old deliveries counts no more, and it takes part again as a new member
        await child.tell("ack", "service:inventory")
        await child.tell("shards", 4)
        await consumer.close()
        assert await child.tell("take", "service:inventory", 3) == ["0", "1", "2"]
        assert await child.tell("deliveries") == [3, 3, 3]
        await child.tell("ack", "service:inventory")
        await child.leave()
        rest = await broker.consume_service("inventory")
        await broker.publish([message(STOCK, "last")])
        assert ids(await receive(rest, 1)) == ["last"]
    finally:
        await broker.close()


def _stop_outside_of_a_transaction(pid: int, path: Path) -> None:
    """Whoever is stopped while it writes keeps the lock of the file."""
    connection = sqlite3.connect(path, timeout=GUARD_S, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    connection.execute("ROLLBACK")
    connection.close()
