"""Faults of the memory store, as simulations inject them."""

from __future__ import annotations

import pytest
from tests.support.sagas import HandClock, commit, snapshot

from amends.coordinator.store import CommitResult, SagaQuery, StoreUnavailable
from amends.coordinator.stores import MemoryStore


class Plan:
    """Fails at the operations it is told, and writes down all it hears of."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.heard = set(failing), list[str]()

    def __call__(self, operation: str) -> None:
        self.heard.append(operation)
        if operation in self.failing:
            raise StoreUnavailable(operation)


async def test_a_fault_before_a_commit_leaves_nothing() -> None:
    plan = Plan("commit:before")
    store = MemoryStore(HandClock(), fault=plan)
    with pytest.raises(StoreUnavailable):
        await store.commit([commit(snapshot())])
    assert await store.count(SagaQuery()) == 0


async def test_a_fault_after_a_commit_leaves_it_done_and_its_repetition_is_recognised() -> None:
    plan = Plan("commit:after")
    store = MemoryStore(HandClock(), fault=plan)
    start = commit(snapshot())
    with pytest.raises(StoreUnavailable):
        await store.commit([start])
    assert (await store.load([start.snapshot.id]))[0].snapshot == start.snapshot
    plan.failing.clear()
    assert list(await store.commit([start])) == [CommitResult.COMMITTED]
    assert len(await store.journal(start.snapshot.id)) == 1


async def test_every_operation_tells_before_and_after_under_its_own_name() -> None:
    plan = Plan()
    store = MemoryStore(HandClock(), fault=plan)
    await store.now()
    await store.load(["a"])
    await store.due((), 1, 1)
    await store.next_due(())
    await store.overdue_outbox((), 1, 1, 1)
    await store.waiting("a.b.v1", {})
    await store.park([])
    await store.unpark("a", 1, 1)
    await store.parked_sent([])
    await store.count_parked()
    names = ["now", "load", "due", "next_due", "overdue_outbox", "waiting", "park", "unpark", "parked_sent"]
    names += ["count_parked"]
    assert plan.heard == [f"{name}:{when}" for name in names for when in ("before", "after")]
