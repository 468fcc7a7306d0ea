"""One run of the whole example, from the first order to the proof."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amends.brokers import connect_broker
from amends.coordinator import Coordinator

from .audit import Findings, audit
from .books import Book, read_books
from .customers import connected, trade
from .home import VARIABLE, broker_url, inbox_url, plain_inbox_url, store_url, surroundings
from .inventory import inventory
from .payments import payments
from .processes import Processes, roles
from .saga import PlaceOrder
from .shipping import shipping
from .status import Status, all_statuses, opened
from .world import Order, prepare


class Kills(NamedTuple):
    """Which kinds of processes are killed: once midway, or again and again, every so many seconds. No kinds: none."""

    kinds: tuple[str, ...] = ()
    every_s: float | None = None


class Result(NamedTuple):
    """What came of a run. `found` and `expected` count the orders by where they are, and by where they must end.

    `existing` is how many were there before, `kills` how often something was killed. `problems` is all that does not
    add up, what the audit found included.
    """

    found: Counter[str]
    expected: Counter[str]
    existing: int
    kills: int
    seconds: float
    findings: Findings
    problems: tuple[str, ...]


async def run(
    home: Path,
    orders: Sequence[Order],
    kills: Kills,
    console: Console,
    *,
    in_process: bool = False,
    elsewhere: bool = False,
    replicas: int = 1,
) -> Result:
    """Place the orders and see them to where they come to rest; then audit everything in `home`.

    Services and coordinators get processes of their own, each service `replicas` of them; or all run in this one; or
    they run already, `elsewhere`.
    """
    began = time.monotonic()
    prepare(home, orders)
    before = await look(home)
    tally = Tally(console, len(orders))
    with tally.bars:
        if in_process:
            async with services(home):
                await _trade(home, orders, tally)
        elif elsewhere:
            await _trade(home, orders, tally)
        else:
            processes = Processes(home, roles(replicas))
            async with processes.running():
                await processes.while_alive(_trade_under_fire(home, orders, tally, processes, kills))
    seconds = time.monotonic() - began
    after = await look(home)
    findings = audit(after.books, list(after.sagas.values()))
    return Result(
        found=Counter(after.where(order) for order in orders),
        expected=Counter(order.ending for order in orders),
        existing=sum(order.id in before.sagas for order in orders),
        kills=tally.kills,
        seconds=seconds,
        findings=findings,
        problems=(*astray(orders, before, after), *findings.problems),
    )


class Look(NamedTuple):
    """Everything in a home at one moment: the books, the sagas by id, and the messages that nobody could process."""

    books: tuple[Book, ...]
    sagas: dict[str, Status]
    dead_letters: int

    def where(self, order: Order) -> str:
        return self.sagas[order.id].where if order.id in self.sagas else "nowhere"


async def look(home: Path) -> Look:
    """Read all of it."""
    broker = await connect_broker(broker_url(home))
    try:
        dead_letters = len(await broker.dead_letters())
    finally:
        await broker.close()
    async with opened(home) as store:
        return Look(read_books(home), await all_statuses(store), dead_letters)


def astray(orders: Sequence[Order], before: Look, after: Look) -> Iterator[str]:
    """The orders that are not where they must be; and a change where there was nothing left to do."""
    for order in orders:
        if (where := after.where(order)) != order.ending:
            yield f"{order.id} is {where}; it should be {order.ending}"
    if after.dead_letters:
        yield f"{after.dead_letters} messages could not be processed; see `amends dead list`"
    if before != after and all(before.where(order) == order.ending for order in orders):
        yield "all orders were there before and at rest, and yet something has changed"


@asynccontextmanager
async def services(home: Path) -> AsyncIterator[None]:
    """A coordinator and the three services in this process."""
    broker = broker_url(home)
    async with AsyncExitStack() as stack:
        stack.enter_context(surroundings({VARIABLE: str(home)}))
        await stack.enter_async_context(inventory.running(broker, inbox=inbox_url(home)))
        for service in (payments, shipping):
            await stack.enter_async_context(service.running(broker, inbox=plain_inbox_url(home, service.service)))
        await stack.enter_async_context(Coordinator([PlaceOrder], broker=broker, store=store_url(home)).running())
        yield


class Tally:
    """How far we are, on the screen."""

    def __init__(self, console: Console, orders: int) -> None:
        self.kills = self._resting = 0
        self.midway, self.over = asyncio.Event(), asyncio.Event()
        self._orders = orders
        self.bars = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar_placed = self.bars.add_task("orders placed", total=orders)
        self._bar_at_rest = self.bars.add_task("orders at rest", total=orders)

    async def before(self, order: Order) -> None: ...

    def placed(self, order: Order) -> None:
        self.bars.advance(self._bar_placed)

    def at_rest(self, order: Order) -> None:
        self.bars.advance(self._bar_at_rest)
        self._resting += 1
        if 3 * self._resting >= self._orders:
            self.midway.set()

    def killed(self, whom: str) -> None:
        self.kills += 1
        self.bars.console.print(f"  [red]kill -9[/] {whom}, and start again", highlight=False)


async def _trade(home: Path, orders: Sequence[Order], tally: Tally) -> None:
    async with connected(home) as sagas:
        await trade(sagas, orders, tally)


async def _trade_under_fire(
    home: Path, orders: Sequence[Order], tally: Tally, processes: Processes, kills: Kills
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_kill(processes, kills, tally))
        await _trade(home, orders, tally)
        tally.over.set()
        tally.midway.set()


async def _kill(processes: Processes, kills: Kills, tally: Tally) -> None:
    if kills.kinds and kills.every_s is None:
        await tally.midway.wait()
        if not tally.over.is_set():
            tally.killed(await processes.kill(kills.kinds))
        return
    # one kind after the other: the services, the coordinators
    for kind in cycle(kills.kinds):
        with suppress(TimeoutError):
            async with asyncio.timeout(kills.every_s):
                await tally.over.wait()
                return
        tally.killed(await processes.kill([kind]))
