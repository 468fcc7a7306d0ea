"""Store or broker away: work stops without acknowledging, says so once, and goes on by itself."""

from __future__ import annotations

import asyncio

from tests.support.faults import FaultyBroker
from tests.support.rig import Order, Rig, Shop

from amends.brokers import Broker, BrokerUnavailable
from amends.brokers.memory import MemoryBroker
from amends.coordinator import CoordinatorConfig, Policy, StoreUnavailable
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.registry import Registry
from amends.coordinator.stores import MemoryStore


class Outage:
    """A switch: while it is on, every operation whose name is listed fails. It counts them."""

    def __init__(self, error: Exception, *points: str) -> None:
        self.on = False
        self.refused = 0
        self.met = asyncio.Event()
        self._error, self._points = error, points

    def __call__(self, point: str) -> None:
        if self.on and point in self._points:
            self.refused += 1
            if self.refused >= 3:
                self.met.set()
            raise self._error


async def outlive(outage: Outage, medium: MemoryBroker, broker: Broker, store: MemoryStore) -> None:
    """Start an order during an outage; end the outage once it was met three times; the order must complete."""
    engine = Engine(Registry([Order]), broker, store, Policy(), CoordinatorConfig(outbox_grace_s=0.2))
    await engine.start()
    rig = Rig(store=store, medium=medium)
    shop = Shop()
    service = await medium.join().consume_service("shop")

    async def serve() -> None:
        while True:
            await shop.work(medium, service, await service.receive())

    serving = asyncio.create_task(serve())
    try:
        outage.on = True
        await rig.start(Order(), "o-1")
        async with asyncio.timeout(30):
            await outage.met.wait()
            assert medium.pending >= 1, "nothing is acknowledged while the outage lasts"
            outage.on = False
            while not await ended(store):
                await asyncio.sleep(0)
    finally:
        serving.cancel()
        await engine.stop()
    assert set(shop.effects.values()) == {1}
    assert not await medium.dead_letters()


async def ended(store: MemoryStore) -> bool:
    snapshot = (await store.load(["o-1"]))[0].snapshot
    return snapshot is not None and snapshot.phase is Phase.COMPLETED


async def test_a_store_that_is_down_for_a_while_costs_nothing_but_time() -> None:
    outage = Outage(StoreUnavailable("down"), "commit:before", "ping:before")
    medium = MemoryBroker()
    await outlive(outage, medium, medium.join(), MemoryStore(fault=outage))


async def test_a_broker_that_is_away_for_a_while_costs_nothing_but_time() -> None:
    outage = Outage(BrokerUnavailable("away"), "publish:before")
    medium = MemoryBroker()
    await outlive(outage, medium, FaultyBroker(medium.join(), outage), MemoryStore())


async def test_rule_19_a_long_outage_of_the_store_does_not_use_up_the_deliveries_of_a_message() -> None:
    """Taking a message again and again to see whether the store is back would make it a dead letter."""
    outage = Outage(StoreUnavailable("down"), "commit:before", "ping:before")
    medium = MemoryBroker(delivery_limit=2)
    store = MemoryStore(fault=outage)
    engine = Engine(Registry([Order]), medium.join(), store, Policy(), CoordinatorConfig())
    await engine.start()
    rig = Rig(store=store, medium=medium)
    try:
        outage.on = True
        await rig.start(Order(), "o-1")
        async with asyncio.timeout(30):
            # three commits under one commit id, and then pings: each of them would have been a delivery
            while outage.refused < 7:
                await outage.met.wait()
                await asyncio.sleep(0)
            outage.on = False
            while (await store.load(["o-1"]))[0].snapshot is None:
                await asyncio.sleep(0)
    finally:
        await engine.stop()
    assert not await medium.dead_letters()
