"""The verdict on a run: everything that must hold once it is over, read from the stores, the books and the logs."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from examples.orders.audit import audit
from examples.orders.home import store_url
from examples.orders.run import astray, look
from examples.orders.saga import PlaceOrder
from examples.orders.world import Order
from tests.support.oracle import Did, End, Graph, Mark, Node, Undid, violations

from amends.contracts.names import SLOTS
from amends.coordinator.core.journal import JournalRecord, What
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.store import SagaStore
from amends.coordinator.stores import connect_store

ALL = [range(SLOTS)]
QUIET_S = 90.0
"""How long what was left behind may take: the grace of the relay and the longest lease, twice."""

GRAPH: Graph = {
    "reserve": Node("compensatable"),
    "charge": Node("compensatable", ("reserve",)),
    "ship": Node("compensatable", ("charge",)),
    "handed_over": Node("pivot", ("ship",), effect=False),
    "delivered": Node("neutral", ("handed_over",), effect=False),
}
_ENDS: dict[Phase, End] = {Phase.COMPLETED: "completed", Phase.COMPENSATED: "compensated"}
_COMPLAINT = re.compile(r"\[(?:error|critical) *\]|^Exception ignored", re.M)


async def unrest(home: Path) -> list[str]:
    """Wait until nothing is left to send and no timer is set; what still is after `QUIET_S` is told."""
    store = await connect_store(store_url(home))
    until = time.monotonic() + QUIET_S
    try:
        while left := await _left(store):
            if time.monotonic() > until:
                return left
            await asyncio.sleep(0.25)
        return []
    finally:
        await store.close()


async def _left(store: SagaStore) -> list[str]:
    found = []
    if unsent := await store.overdue_outbox(ALL, 0.0, 100, 0.0):
        ids = ", ".join(sorted(entry.key.saga_id for entry in unsent)[:3])
        found.append(f"{len(unsent)} outbox entries were never cleared, such as those of {ids}")
    if (due := await store.next_due(ALL)) is not None:
        found.append(f"a timer is set for {due}, although all sagas are at rest")
    return found


async def judge(home: Path, orders: Sequence[Order]) -> tuple[Counter[str], list[str]]:
    """How many orders are where, and everything that is wrong. The processes have been stopped."""
    seen = await look(home)
    findings = [
        *astray(orders, seen, seen),
        *audit(seen.books, list(seen.sagas.values())).problems,
        *await _illegal(home, orders),
        *_complaints(home / "logs"),
    ]
    if strangers := seen.sagas.keys() - {order.id for order in orders}:
        findings.append(f"{len(strangers)} sagas that nobody ordered, such as {min(strangers)}")
    return Counter(seen.where(order) for order in orders), findings


async def _illegal(home: Path, orders: Sequence[Order]) -> list[str]:
    """Every journal is whole, and tells a legal history."""
    store = await connect_store(store_url(home))
    try:
        found = []
        for order in orders:
            (stored,) = await store.load([order.id])
            if stored.snapshot is not None:
                records = await store.journal(order.id)
                end = _ENDS.get(stored.snapshot.phase, "open")
                found += [f"{order.id}: {problem}" for problem in _wrong(records, end, stored.snapshot.version)]
        return found
    finally:
        await store.close()


def _wrong(records: Sequence[JournalRecord], end: End, version: int) -> Iterator[str]:
    versions = [record.version for record in records]
    gaps = [
        record.version
        for before, record in pairwise(records)
        if record.version != before.version + 1 and record.entries[0].what is not What.ROLLED_BACK
    ]
    if gaps or versions[:1] != [1] or versions[-1:] != [version]:
        yield f"its journal has the versions {versions}, and the saga is at {version}"
    if len({record.commit_id for record in records}) < len(records):
        yield "its journal has a commit twice"
    yield from violations(GRAPH, list(_history(records)), end)


def _history(records: Sequence[JournalRecord]) -> Iterator[Mark]:
    assert definition_of(PlaceOrder).steps.keys() == GRAPH.keys()
    for record in records:
        for entry in record.entries:
            step = entry.step.partition("#")[0]
            if entry.what is What.STEP_DONE and GRAPH[step].effect:
                yield Did(step)
            elif entry.what is What.STEP_UNDONE:
                yield Undid(step)


def _complaints(logs: Path) -> Iterator[str]:
    """An outage is a warning; errors and traces are for what should not be. And everyone stops in good order."""
    for log in sorted(logs.glob("*.log")):
        said = log.read_text("utf-8", "replace")
        if complaint := _COMPLAINT.search(said):
            yield f"{log.name} complains: {said[complaint.start() :][:1500]}"
        if log.stem != "customers" and not said.rstrip().endswith("Stopped"):
            yield f"{log.name} does not end with an orderly stop: {said.rstrip()[-200:]}"
