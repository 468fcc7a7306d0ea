"""One run under fire, from the first order to the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from examples.orders.home import BROKER, STORE, surroundings
from examples.orders.processes import ProcessEnded, Processes, roles
from examples.orders.world import prepare
from tests.chaos.customers import Customers, Source
from tests.chaos.field import Field, NoFailover
from tests.chaos.ground import Ground
from tests.chaos.judge import judge, unrest
from tests.chaos.plan import Disturbance, Kind, plan

from amends.contracts import TransientError

REPLICAS = 2


class Report(NamedTuple):
    """What came of a run. `done` are the disturbances that it came to; `standstill_s` is the longest time without an
    order coming to rest; `findings` is empty when all is well."""

    seed: int
    planned: tuple[Disturbance, ...]
    done: Counter[Kind]
    endings: Counter[str]
    seconds: float
    standstill_s: float
    findings: tuple[str, ...]


async def run(
    ground: Ground,
    home: Path,
    source: Source,
    seed: int,
    kinds: Sequence[Kind],
    count: int,
    tell: Callable[[str], None],
) -> Report:
    """Place the orders, do to it `count` disturbances of these kinds, and judge what came of it."""
    began = time.monotonic()
    orders = source.orders()
    prepare(home, orders)
    with surroundings({BROKER: ground.broker_url, STORE: ground.store_url}):
        processes = Processes(home, roles(REPLICAS))
        customers = Customers(home, source)
        planned = _plan(processes, seed, len(orders), kinds, count)
        done: Counter[Kind] = Counter()
        findings: list[str] = []
        async with processes.running():
            field = Field(ground, home, processes, customers)
            try:
                await processes.while_alive(_trade(field, customers, planned, len(orders), done, tell))
                findings += await processes.while_alive(unrest(home))
            except (NoFailover, ProcessEnded) as problem:
                findings.append(str(problem))
            finally:
                await customers.kill()
        try:
            endings, wrong = await judge(home, orders)
        except TransientError as problem:
            endings, wrong = Counter(), [f"nothing can be judged: {problem}"]
    return Report(
        seed,
        tuple(planned),
        done,
        endings,
        time.monotonic() - began,
        customers.standstill_s,
        (*findings, *wrong),
    )


def _plan(processes: Processes, seed: int, orders: int, kinds: Sequence[Kind], count: int) -> list[Disturbance]:
    coordinators = [role.name for role in processes.roles if role.kind == "coordinator"]
    participants = [role.name for role in processes.roles if role.kind == "participants"]
    return plan(seed, orders, count, kinds, coordinators, participants)


async def _trade(
    field: Field,
    customers: Customers,
    planned: Sequence[Disturbance],
    orders: int,
    done: Counter[Kind],
    tell: Callable[[str], None],
) -> None:
    """Each disturbance has orders of its own to disturb: those from its moment to the next one's, and half as many."""
    await field.until_served()
    await customers.start()
    await customers.allow(3 * planned[0].after // 2 if planned else orders)
    for disturbance, following in zip_longest(planned, planned[1:]):
        if not await customers.until(disturbance.after):
            return
        gap = (following.after if following else orders) - disturbance.after
        await customers.allow(disturbance.after + gap + gap // 2)
        who = f" ({', '.join(disturbance.who)})" if disturbance.who else ""
        tell(f"{len(customers.at_rest):>6,} of {orders:,} at rest   {disturbance.kind}{who}")
        await field.disturb(disturbance)
        done[disturbance.kind] += 1
    await customers.until(orders)
    await field.until_served()
