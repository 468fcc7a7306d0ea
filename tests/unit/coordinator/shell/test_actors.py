"""Actors are hot while they are worked on, and evicted when idle; nobody notices but the store."""

from __future__ import annotations

from tests.support.rig import Order, Rig

from amends.coordinator.actors import Actors
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.stores import MemoryStore


def test_the_actors_not_used_for_longest_are_evicted() -> None:
    actors = Actors(hot=2)
    for saga_id in ("a", "b", "c"):
        actors.get(saga_id).hydrate(None, None)
    actors.get("a")
    actors.trim()
    assert len(actors) == 2
    assert not actors.get("b").hydrated
    assert actors.get("a").hydrated


def test_an_actor_with_mail_is_not_evicted() -> None:
    actors = Actors(hot=0)
    actors.get("a").mailbox.append("a letter")
    actors.trim()
    assert len(actors) == 1


async def test_a_hot_saga_is_not_read_from_the_store_again() -> None:
    loads: list[str] = []
    rig = await Rig(store=MemoryStore(fault=loads.append)).open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    loads.clear()
    await rig.participate()
    await rig.coordinate()
    assert "load:before" not in loads


async def test_an_evicted_saga_is_hydrated_from_its_snapshot() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    rig.engine.processor._actors.evict("o-1")
    await rig.run()
    snapshot = await rig.snapshot("o-1")
    assert snapshot.phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}


async def test_the_actors_of_a_lost_shard_are_dropped_and_those_of_kept_ones_stay() -> None:
    rig = await Rig().open()
    for number in range(20):
        await rig.start(Order(), f"o-{number}")
    await rig.coordinate()
    actors = rig.engine.processor._actors
    assert len(actors) == 20
    rig.engine.processor.own(frozenset())
    assert len(actors) == 0
