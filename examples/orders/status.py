"""Where the sagas stand: read from the store, and put into the words of the business."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from amends.coordinator import definition_of
from amends.coordinator.client import read_state
from amends.coordinator.core.snapshot import Phase, RunStatus, Snapshot
from amends.coordinator.store import SagaQuery, SagaStore
from amends.coordinator.stores import connect_store

from .home import store_url
from .messages import NoCarrier, OutOfStock, PaymentRefused
from .saga import PlaceOrder
from .world import Ending

REASONS: Mapping[str, Ending] = {
    OutOfStock.__tag__: Ending.OUT_OF_STOCK,
    PaymentRefused.__tag__: Ending.PAYMENT_REFUSED,
    NoCarrier.__tag__: Ending.NO_CARRIER,
    "cancelled": Ending.WITHDRAWN,
}
WAITS: Mapping[str, Ending] = {
    PlaceOrder.handed_over.name: Ending.AT_HANDED_OVER,
    PlaceOrder.delivered.name: Ending.AT_DELIVERED,
}
LEFT_NOTHING = (RunStatus.UNDONE, RunStatus.REJECTED, RunStatus.CLOSED)


class Status(NamedTuple):
    """One saga: where it is, the steps whose effects stand, and what is not decided yet (or "").

    `where` is an `Ending`, or other words for what should not be. `final` says that it will not change by itself.
    """

    order: PlaceOrder
    where: str
    final: bool
    standing: frozenset[str]
    undecided: str


def status_of(snapshot: Snapshot) -> Status:
    # only steps that ask a participant have effects
    asked = {run.step: run.status for run in snapshot.runs.values() if run.command is not None}
    standing = frozenset(step for step, status in asked.items() if status is RunStatus.DONE)
    undecided = [
        f"{step} is {status}" for step, status in asked.items() if status not in (RunStatus.DONE, *LEFT_NOTHING)
    ]
    return Status(
        order=read_state(snapshot, PlaceOrder),
        where=_where(snapshot),
        final=snapshot.phase.ended or snapshot.stuck,
        standing=standing,
        undecided=", ".join(undecided),
    )


def _where(snapshot: Snapshot) -> str:
    if snapshot.stuck:
        return "stuck: an operator must decide"
    if snapshot.phase is Phase.COMPLETED:
        return Ending.COMPLETED
    if snapshot.phase is Phase.COMPENSATED and snapshot.failure is not None:
        return REASONS.get(snapshot.failure.error, f"undone: {snapshot.failure.error}")
    waits = [WAITS[run.step] for run in snapshot.runs.values() if run.status is RunStatus.AWAITING]
    return waits[0] if waits else f"under way: {snapshot.phase}"


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[SagaStore]:
    """The store of the sagas, to look into."""
    store = await connect_store(store_url(home))
    try:
        yield store
    finally:
        await store.close()


async def all_statuses(store: SagaStore) -> dict[str, Status]:
    """The status of every order that was ever placed here, by the id of its saga."""
    listed = await store.find(SagaQuery(saga=definition_of(PlaceOrder).name, limit=1_000_000))
    found = {}
    for start in range(0, len(listed), 500):
        for stored in await store.load([one.id for one in listed[start : start + 500]]):
            if stored.snapshot is not None:
                found[stored.snapshot.id] = status_of(stored.snapshot)
    return found
