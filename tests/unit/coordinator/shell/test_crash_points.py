"""The table of design.md, "what is promised": the process dies at each point, and another one takes over."""

from __future__ import annotations

import pytest
from tests.support.faults import Crash, Fault, FaultyBroker
from tests.support.rig import Order, Rig, take

from amends.coordinator import StoreUnavailable
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.stores import MemoryStore
from amends.coordinator.testing.clock import VirtualClock

COORDINATOR_POINTS = [
    "commit:before",
    "commit:after",
    "publish:before",
    "publish:after",
    "ack:before",
    "ack:after",
]


class CrashingStore(MemoryStore):
    """A store whose faults can be changed while it is in use."""

    def __init__(self, clock: VirtualClock) -> None:
        self.plan: Fault = lambda point: None
        super().__init__(clock, fault=self._reach)

    def _reach(self, point: str) -> None:
        self.plan(point)


async def rig_that_dies(point: str, nth: int) -> Rig:
    """A rig whose coordinator dies when it reaches `point` for the `nth` time."""
    clock = VirtualClock()
    store = CrashingStore(clock)
    reached = [0]

    def fault(at: str) -> None:
        if at == point:
            reached[0] += 1
            if reached[0] == nth:
                raise Crash(at)

    store.plan = fault
    rig = Rig(clock=clock, store=store, wrap=lambda broker: FaultyBroker(broker, fault))
    return await rig.open()


async def live_and_die(rig: Rig) -> Rig:
    """Run until the end, or until the coordinator dies; then let another one take over, and run to the end."""
    try:
        await rig.run()
        # an ending without a crash means that the point was not reached that often: nothing to take over
        return rig
    except Crash:
        rig = await rig.crash()
    await rig.run()
    await rig.after(60)
    return rig


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", COORDINATOR_POINTS)
@pytest.mark.parametrize("amount", [3, -3], ids=["completes", "compensates"])
async def test_a_coordinator_that_dies_anywhere_loses_nothing_and_does_nothing_twice(
    point: str, nth: int, amount: int
) -> None:
    rig = await rig_that_dies(point, nth)
    await rig.start(Order(amount=amount), "o-1")
    rig = await live_and_die(rig)

    snapshot = await rig.snapshot("o-1")
    assert snapshot.phase is (Phase.COMPLETED if amount > 0 else Phase.COMPENSATED)
    assert set(rig.shop.effects.values()) == {1}
    done = [key.partition("/")[2] for key in rig.shop.history]
    assert done == (["reserve#0", "charge#0"] if amount > 0 else ["reserve#0", "reserve#0"])
    assert rig.medium.pending == 0
    assert not await rig.medium.dead_letters()
    assert len(await rig.store.journal("o-1")) == snapshot.version


async def test_before_the_commit_nothing_has_happened_and_the_message_comes_again() -> None:
    rig = await rig_that_dies("commit:before", 1)
    await rig.start(Order(), "o-1")
    with pytest.raises(Crash):
        await rig.coordinate()
    assert (await rig.store.load(["o-1"]))[0].snapshot is None
    rig = await rig.crash()
    assert await rig.coordinate() == 1
    assert (await rig.snapshot("o-1")).version == 1


async def test_after_the_commit_and_before_the_publish_the_relay_sends_what_is_in_the_outbox() -> None:
    rig = await rig_that_dies("publish:before", 1)
    await rig.start(Order(), "o-1")
    with pytest.raises(Crash):
        await rig.coordinate()
    rig = await rig.crash()
    # the start comes again and is recognised: it is not what brings the command on its way
    await rig.run()
    assert rig.shop.history == []
    rig.clock.advance(rig.engine.relay.grace_s + 1)
    assert await rig.engine.relay.relay() == 1
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED


async def test_after_the_publish_and_before_the_ack_the_message_comes_again_and_is_a_duplicate() -> None:
    rig = await rig_that_dies("ack:before", 1)
    await rig.start(Order(), "o-1")
    with pytest.raises(Crash):
        await rig.coordinate()
    before = await rig.snapshot("o-1")
    rig = await rig.crash()
    assert await rig.coordinate() == 1
    assert await rig.snapshot("o-1") == before


async def test_an_outbox_that_was_sent_is_cleared_by_the_next_commit_and_not_relayed() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.run()
    await rig.engine.processor.flush()
    rig.clock.advance(3600)
    assert await rig.engine.relay.relay() == 0


async def test_two_coordinators_that_believe_they_own_a_shard_commit_once_and_the_loser_reloads() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    await rig.participate()
    # the second one has the saga in memory, as it was before the first one moves it on
    other = Rig(store=rig.store, clock=rig.clock, shop=rig.shop)
    await other.open()
    assert other.engine.consumer is not None
    assert rig.engine.consumer is not None
    deliveries = take(rig.engine.consumer)
    await other.engine.processor.decide(deliveries)
    ahead = await rig.snapshot("o-1")
    await rig.engine.processor.process(rig.engine.consumer, deliveries)
    assert await rig.snapshot("o-1") == ahead
    await rig.run()
    await rig.after(60)
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}


async def test_a_coordinator_with_an_old_state_in_memory_does_not_judge_by_it() -> None:
    """It was away while another one issued the next step: the answer to that must not be taken for nonsense."""
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    stale = rig.engine.processor
    rig = await rig.crash()
    await rig.participate()
    await rig.coordinate()
    await rig.participate()
    assert rig.engine.consumer is not None
    answer_to_charge = take(rig.engine.consumer)
    decided = await stale.decide(answer_to_charge)
    assert not decided.dead
    assert decided.handled == answer_to_charge
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED


@pytest.mark.parametrize("point", ["load:before", "commit:before", "commit:after"])
async def test_while_the_store_is_down_nothing_is_acknowledged_and_work_goes_on_when_it_is_back(point: str) -> None:
    clock = VirtualClock()
    store = CrashingStore(clock)
    rig = await Rig(clock=clock, store=store).open()

    def down(at: str) -> None:
        if at == point:
            raise StoreUnavailable("down for a test")

    store.plan = down
    await rig.start(Order(), "o-1")
    with pytest.raises(StoreUnavailable):
        await rig.coordinate()
    assert rig.medium.pending == 1
    store.plan = lambda at: None
    rig = await rig.crash()
    await rig.run()
    await rig.after(60)
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}


async def test_a_commit_of_unknown_outcome_is_repeated_under_its_own_id_and_recognised() -> None:
    clock = VirtualClock()
    store = CrashingStore(clock)
    rig = await Rig(clock=clock, store=store).open()
    lost = [True]

    def answer_lost_once(at: str) -> None:
        if at == "commit:after" and lost:
            lost.clear()
            raise StoreUnavailable("the answer got lost")

    store.plan = answer_lost_once
    await rig.start(Order(), "o-1")
    await rig.run()
    snapshot = await rig.snapshot("o-1")
    assert snapshot.phase is Phase.COMPLETED
    assert len(await rig.store.journal("o-1")) == snapshot.version == 3


async def test_a_participant_that_dies_after_its_effect_gives_the_recorded_reply() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    deliveries = take(rig.service)
    assert deliveries[0].envelope is not None
    rig.shop.reply(deliveries[0].envelope)  # the effect; the answer dies with the process
    await rig.service.release(deliveries)
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}
