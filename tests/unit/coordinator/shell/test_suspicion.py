"""Who is suspected of having killed a process, who is handled alone, and who has had enough."""

from __future__ import annotations

import asyncio

from tests.contract.broker import envelope, ids, message
from tests.support.rig import Order, Rig

from amends.brokers import MemoryBroker, Returned
from amends.contracts.names import slot_address
from amends.coordinator import CoordinatorConfig, Policy, StoreUnavailable
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.registry import Registry
from amends.coordinator.stores import MemoryStore
from amends.coordinator.suspicion import Suspicion

LIMIT = 5


class Processes:
    """One after the other handles what there is, until it dies of a certain message."""

    def __init__(self, killer: str) -> None:
        self.store, self.medium, self._killer = MemoryStore(), MemoryBroker(), killer
        self.handled: list[list[list[str]]] = []
        """The batches that each process began, by the ids in them."""

    async def one(self) -> bool:
        """Whether it lives on."""
        suspicion = Suspicion(self.store, LIMIT)
        broker = self.medium.join()
        consumer = await broker.consume_shards(lambda shards: None)
        mine: list[list[str]] = []
        self.handled.append(mine)
        try:
            while self.medium.pending:
                for batch in await suspicion.sort(consumer, await consumer.receive()):
                    await suspicion.begin(batch)
                    mine.append(ids(batch.deliveries))
                    if self._killer in mine[-1]:
                        return False
                    await suspicion.end(batch)
                    await consumer.ack(batch.deliveries)
            return True
        finally:
            await broker.close()


async def test_what_kills_five_counted_times_is_a_dead_letter_and_its_neighbours_are_handled() -> None:
    processes = Processes(killer="5")
    await processes.medium.publish([message(slot_address(0), str(number)) for number in range(10)])
    deaths = 0
    while not await processes.one():
        deaths += 1
        assert deaths < 10
    everybody = [str(number) for number in range(10)]
    # uncounted, and twice together
    assert processes.handled[:3] == [[everybody]] * 3
    # then alone, up to the killer, and the killer alone until it has had its fill
    assert processes.handled[3] == [["0"], ["1"], ["2"], ["3"], ["4"], ["5"]]
    assert processes.handled[4:6] == [[["5"]]] * 2
    assert processes.handled[6] == [["6"], ["7"], ["8"], ["9"]]
    assert deaths == 6
    (letter,) = await processes.medium.dead_letters()
    assert (letter.envelope, letter.reason) == (message("", "5").envelope, "delivery-limit")
    assert letter.detail == "its handling was begun 5 times, and each time the process died"


async def test_what_comes_for_the_first_time_is_not_counted_and_asks_nothing_of_the_store() -> None:
    asked: list[str] = []
    suspicion = Suspicion(MemoryStore(fault=asked.append), LIMIT)
    medium = MemoryBroker()
    consumer = await medium.consume_shards(lambda shards: None)
    await medium.publish([message(slot_address(0), "m")])
    (batch,) = await suspicion.sort(consumer, await consumer.receive())
    await suspicion.begin(batch)
    await suspicion.end(batch)
    assert (ids(batch.deliveries), batch.alone, asked) == (["m"], False, [])


async def test_a_message_that_fails_without_killing_anybody_is_not_held_against_it() -> None:
    rounds = 0

    def fault(point: str) -> None:
        nonlocal rounds
        if point == "commit:before" and rounds < 20:
            rounds += 1
            raise StoreUnavailable("the store takes no commits")

    store, medium = MemoryStore(fault=fault), MemoryBroker()
    engine = Engine(Registry([Order]), medium.join(), store, Policy(), CoordinatorConfig(handling_limit=2))
    await engine.start()
    try:
        rig = Rig(store=store, medium=medium)
        await rig.start(Order(), "o-1")
        async with asyncio.timeout(30):
            while (await store.load(["o-1"]))[0].snapshot is None:
                await asyncio.sleep(0)
        assert (await rig.snapshot("o-1")).phase is Phase.RUNNING
        assert await medium.dead_letters() == []
    finally:
        await engine.stop()


async def test_returned_messages_to_sagas_go_back_until_coordinators_have_had_their_fill_of_them() -> None:
    store = MemoryStore()
    suspicion = Suspicion(store, 2)
    one = Returned("shard:03", envelope("m"), times=7)
    name = "shard/order-1/m"
    assert await suspicion.judge([one]) == [None]
    await store.count_handlings([name])
    assert await suspicion.judge([one]) == [None]
    await store.count_handlings([name])
    assert await suspicion.judge([one, Returned("shard:03", envelope("other"), 7)]) == [
        "its handling was begun 2 times, and each time the process died",
        None,
    ]


async def test_returned_messages_to_services_and_subscribers_go_back_once() -> None:
    suspicion = Suspicion(MemoryStore(), LIMIT)
    for queue in ("service:inventory", "subscriber:watcher"):
        first, second = [Returned(queue, envelope("m"), times) for times in (0, 1)]
        assert await suspicion.judge([first]) == [None]
        (wrong,) = await suspicion.judge([second])
        assert wrong is not None
    assert await suspicion.judge([Returned("subscriber:amends-coordinator", envelope("m"), 9)]) == [None]
    assert await suspicion.judge([Returned("shard:01", None, 9)]) == [None]
