"""The customers as a process of their own, which can be killed: `python -m tests.chaos.customers HOME COUNT SEED FILE`.

It reads how many orders may be placed so far, number by number, and prints a line for each order that has come to rest.
Started again, it places all orders again: nothing happens twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from examples.orders.customers import connected, trade
from examples.orders.world import Order, generate_orders, read_orders

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
"""How long nothing at all may happen before the customers go home."""


class Source(NamedTuple):
    """Which orders: the first so many of a file, or of a seed."""

    file: Path | None
    most: int
    seed: int

    def orders(self) -> list[Order]:
        return read_orders(self.file)[: self.most] if self.file else generate_orders(self.most, self.seed)


class _Counter:
    """Where orders are counted out and in again."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._numbers = {order.id: number for number, order in enumerate(orders)}
        self._allowed = 0
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        """Read from standard input how many orders may be placed so far, until it ends."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            async with self._news:
                self._allowed = int(line)
                self._news.notify_all()

    async def before(self, order: Order) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._numbers[order.id] < self._allowed)

    def placed(self, order: Order) -> None: ...

    def at_rest(self, order: Order) -> None:
        print(order.id, flush=True)


class Customers:
    """The process, and the orders that it has seen at rest."""

    def __init__(self, home: Path, source: Source) -> None:
        self.at_rest: set[str] = set()
        self._home, self._source, self._allowed = home, source, 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self._gone = False
        self._heard_at = asyncio.get_running_loop().time()
        self.standstill_s = 0.0
        """The longest time in which no order came to rest."""

    async def start(self) -> None:
        file, most, seed = self._source
        command = ["-m", "tests.chaos.customers", str(self._home), str(most), str(seed)]
        with (self._home / "logs" / "customers.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                *([str(file)] if file else []),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read(self._process))
        await self.allow(self._allowed)

    async def allow(self, count: int) -> None:
        """Let at least so many orders be placed, those before included."""
        self._allowed = max(self._allowed, count)
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError):
                self._process.stdin.write(b"%d\n" % self._allowed)
                await self._process.stdin.drain()

    async def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
        if process is not None:
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def until(self, count: int) -> bool:
        """Wait until so many orders are at rest. False when the customers have gone home before."""
        async with self._news:
            await self._news.wait_for(lambda: self._gone or len(self.at_rest) >= count)
        return len(self.at_rest) >= count

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if not line.endswith(b"\n"):
                break
            async with self._news:
                self._hear(line.decode().strip())
                self._news.notify_all()
        await process.wait()
        async with self._news:
            self._gone = process is self._process
            self._news.notify_all()

    def _hear(self, id: str) -> None:
        if id not in self.at_rest:
            now = asyncio.get_running_loop().time()
            self.standstill_s = max(self.standstill_s, now - self._heard_at)
            self._heard_at = now
            self.at_rest.add(id)


async def _trade(home: Path, source: Source) -> None:
    orders = source.orders()
    counter = _Counter(orders)
    listening = asyncio.create_task(counter.listen())
    async with connected(home) as sagas:
        await trade(sagas, orders, counter, patience_s=PATIENCE_S)
    listening.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.chaos.customers", description=__doc__)
    parser.add_argument("home", type=Path)
    for name in ("most", "seed"):
        parser.add_argument(name, type=int)
    parser.add_argument("file", type=Path, nargs="?")
    given = parser.parse_args(arguments)
    asyncio.run(_trade(given.home, Source(given.file, given.most, given.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
