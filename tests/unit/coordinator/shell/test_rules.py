"""The rules of the protocol that the shell keeps: 3, 13, 14, 15, 17."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from msgspec.structs import replace
from tests.support.faults import FaultyBroker
from tests.support.rig import Answer, Approve, Charge, Order, Rig, Shop, answer, take

from amends.brokers import BrokerUnavailable, Outgoing, ShardMap
from amends.brokers.memory import MemoryBroker
from amends.contracts import JSON, Envelope, Failure, Kind, ReplyOutcome, Signal, UsageError, slot_of
from amends.contracts.names import SLOTS, slot_address
from amends.contracts.payloads import Control, Done, Undo
from amends.coordinator import CoordinatorConfig, Policy, Retry, Saga, Sleep, WaitFor, step
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Phase, RunStatus
from amends.coordinator.registry import Registry
from amends.coordinator.stores import MemoryStore
from amends.coordinator.sweeper import LEASE_S


class Nap(Saga):
    """Sleeps for seven days, then waits two days for an approval."""

    by: str = ""

    @step
    def nap(self) -> Sleep:
        return Sleep(timedelta(days=7))

    @step(timeout=timedelta(days=2))
    def approval(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @approval.on_success
    def approved(self, approve: Approve) -> None:
        self.by = approve.by


# rule 3


def test_rule_3_slots_are_shared_out_among_shards_without_gap_or_overlap() -> None:
    for shards in (1, 3, 8, 1000, SLOTS):
        shard_map = ShardMap(shards=shards)
        owned = [slot for shard in range(shards) for slot in shard_map.slots_of(shard)]
        assert owned == list(range(SLOTS))
        assert all(slot in shard_map.slots_of(shard_map.shard_of(slot)) for slot in range(SLOTS))


async def test_rule_3_a_process_with_another_map_refuses_to_start() -> None:
    store = MemoryStore()
    await Rig(store=store, medium=MemoryBroker(ShardMap(shards=8))).open()
    with pytest.raises(UsageError, match="8 shards"):
        await Rig(store=store, medium=MemoryBroker(ShardMap(shards=4))).open()


async def test_rule_3_a_misrouted_message_is_forwarded_to_its_own_slot() -> None:
    rig = await Rig().open()
    shard_map = rig.medium.shard_map
    home = shard_map.shard_of(slot_of("o-1"))
    rig.engine.processor.own(frozenset(range(shard_map.shards)) - {home})
    await rig.start(Order(), "o-1")
    assert rig.engine.consumer is not None
    delivery = take(rig.engine.consumer)
    decided = await rig.engine.processor.decide(delivery)
    assert [m.address for m in decided.messages] == [slot_address(slot_of("o-1"))]
    assert decided.handled == delivery
    assert (await rig.store.load(["o-1"]))[0].snapshot is None


# rule 13


class OrderTwo(Saga, name="order", version=2):
    sku: str = "a"

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge(amount=1)


async def test_rule_13_a_saga_keeps_its_version_and_waits_until_that_is_loaded() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    rig.sagas = (OrderTwo,)
    rig = await rig.crash()
    await rig.start(OrderTwo(), "o-2")
    await rig.run()
    assert (await rig.snapshot("o-2")).phase is Phase.COMPLETED, "the others go on"
    waiting = await rig.snapshot("o-1")
    assert (waiting.definition_version, waiting.runs["reserve#0"].status) == (1, RunStatus.ISSUED)
    assert not await rig.medium.dead_letters()

    rig.sagas = (Order, OrderTwo)
    rig = await rig.crash()
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}


async def test_rule_13_one_event_for_two_sagas_is_parked_for_both() -> None:
    """Under one message id, as the router sends an event on."""
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.start(Order(), "o-2")
    await rig.coordinate()
    rig.sagas = (OrderTwo,)
    rig = await rig.crash()
    for saga_id in ("o-1", "o-2"):
        await rig.control(saga_id, Control(action="cancel", reason="x"), message_id="one id")
    await rig.run()
    rig.sagas = (Order, OrderTwo)
    rig = await rig.crash()
    await rig.run()
    assert [(await rig.snapshot(saga_id)).phase for saga_id in ("o-1", "o-2")] == [Phase.COMPENSATED] * 2


async def test_rule_13_timers_of_a_version_that_is_not_loaded_pile_up_nowhere_and_fire_behind_what_is_kept() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    rig.sagas = (OrderTwo,)
    rig = await rig.crash()
    for _ in range(20):
        await rig.after(LEASE_S + 1)
    # of the many words that its timer was due nothing is left; what the participant has answered is kept
    kept = await rig.store.unpark("order", 1, 100)
    assert {one.message.envelope.kind for one in kept} == {Kind.REPLY}
    rig.sagas = (Order, OrderTwo)
    rig = await rig.crash()
    await rig.after(LEASE_S + 1)
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    entries = [entry.what for record in await rig.store.journal("o-1") for entry in record.entries]
    assert What.STEP_TIMED_OUT not in entries
    assert set(rig.shop.effects.values()) == {1}


async def test_rule_13_shards_that_are_gained_bring_the_messages_parked_by_their_last_owner() -> None:
    medium = MemoryBroker(ShardMap(shards=1))
    store = MemoryStore()
    rig = await Rig(store=store, medium=medium).open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    await rig.broker.close()
    old = Engine(Registry([OrderTwo]), medium.join(), store, Policy(), CoordinatorConfig())
    new = Engine(Registry([Order, OrderTwo]), medium.join(), store, Policy(), CoordinatorConfig())
    await old.start()
    await new.start()
    assert (len(old.shards), len(new.shards)) == (1, 0)
    try:
        await rig.control("o-1", Control(action="cancel", reason="x"))
        async with asyncio.timeout(30):
            # the new one has looked at its start; it must look again when the shard comes to it
            while not await store.unpark("order", 1, 1):
                await asyncio.sleep(0)
            await old.stop()
            while await store.unpark("order", 1, 1):
                await asyncio.sleep(0)
    finally:
        await new.stop()
    assert new.shards == {0}


async def test_rule_13_a_start_of_a_version_that_is_not_loaded_yet_is_kept_until_it_is() -> None:
    rig = await Rig().open()
    await rig.start(OrderTwo(), "o-2", version=2)
    await rig.run()
    assert (await rig.store.load(["o-2"]))[0].snapshot is None
    assert rig.notices == [], "it is not stored, so nobody is told that it is"
    assert not await rig.medium.dead_letters()
    # whoever asks again under the same id does not get two sagas
    await rig.start(OrderTwo(), "o-2", "asked again", version=2)
    await rig.run()

    rig.sagas = (Order, OrderTwo)
    rig = await rig.crash()
    await rig.run()
    snapshot = await rig.snapshot("o-2")
    assert (snapshot.definition_version, snapshot.phase) == (2, Phase.COMPLETED)
    assert [(notice.what, notice.existing) for _, notice in rig.notices[:2]] == [
        ("accepted", False),
        ("accepted", True),
    ]
    assert set(rig.shop.effects.values()) == {1}
    assert not await rig.store.unpark("order", 2, 10)


async def test_rule_13_a_start_that_is_kept_does_not_take_an_id_that_another_saga_gets_meanwhile() -> None:
    rig = await Rig().open()
    await rig.start(OrderTwo(sku="b"), "o-1", version=2)
    await rig.start(Order(sku="a"), "o-1", "another")
    await rig.run()
    rig.sagas = (Order, OrderTwo)
    rig = await rig.crash()
    await rig.run()
    assert (await rig.snapshot("o-1")).definition_version == 1
    assert rig.notices[-1][1].code == "id-in-use"


async def test_rule_13_what_an_old_coordinator_sends_back_is_not_sent_round_and_round() -> None:
    medium = MemoryBroker(ShardMap(shards=1))
    store = MemoryStore()
    rig = await Rig(store=store, medium=medium).open()
    await rig.broker.close()
    old = Engine(Registry([Order]), medium.join(), store, Policy(), CoordinatorConfig())
    await old.start()
    back = asyncio.Event()

    class SentOn:
        """A broker on which a message counts as sent only when the old coordinator has parked it again."""

        shard_map = medium.shard_map

        async def publish(self, messages: Sequence[Outgoing]) -> None:
            before = {one.key for one in await store.unpark("order", 2, 10)}
            await medium.publish(messages)
            while before.issuperset(one.key for one in await store.unpark("order", 2, 10)):
                await asyncio.sleep(0)
            back.set()

    new = Engine(Registry([Order, OrderTwo]), medium.join(), store, Policy(), CoordinatorConfig())
    new.broker = cast(Any, SentOn())
    try:
        async with asyncio.timeout(30):
            await rig.start(OrderTwo(), "o-2", version=2)
            while not await store.unpark("order", 2, 1):
                await asyncio.sleep(0)
            assert await new.unpark() == 1
    finally:
        await old.stop()
    assert back.is_set()
    assert len(await store.unpark("order", 2, 10)) == 1


class OrderChanged(Saga, name="order", version=1):
    """Version 1, but its steps are not those of `Order`."""

    sku: str = "a"
    amount: int = 3
    reservation: str = ""

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge(amount=1)


async def test_rule_13_a_changed_definition_of_the_same_version_parks_the_saga_until_the_old_one_is_back() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    rig.sagas = (OrderChanged,)
    rig = await rig.crash()
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.RUNNING
    rig.sagas = (Order,)
    rig = await rig.crash()
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED


# rule 14


async def test_rule_14_messages_are_published_only_after_the_commit_and_acknowledged_only_after_that() -> None:
    order: list[str] = []
    store = MemoryStore(fault=order.append)
    rig = await Rig(store=store, wrap=lambda broker: FaultyBroker(broker, order.append)).open()
    await rig.start(Order(), "o-1")
    order.clear()
    await rig.coordinate()
    points = [point for point in order if point.split(":")[0] in ("commit", "publish", "ack")]
    assert points == ["commit:before", "commit:after", "publish:before", "publish:after", "ack:before", "ack:after"]


async def test_rule_14_events_have_fixed_ids_and_a_sequence() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    first = take(rig.service)
    await rig.service.release(first)
    again = take(rig.service)
    assert [d.envelope for d in first] == [d.envelope for d in again]
    snapshot = await rig.snapshot("o-1")
    assert first[0].envelope is not None
    assert first[0].envelope.id.startswith(f"{snapshot.commit_id}.")


# rule 15


async def test_rule_15_a_timer_lines_up_behind_a_reply_that_is_already_waiting() -> None:
    """After an outage the timeouts are due and the replies are there: the replies count."""

    class Hasty(Saga):
        @step(pivot=True, timeout=timedelta(seconds=30))
        def charge(self) -> Charge:
            return Charge(amount=1)

    rig = await Rig(sagas=[Hasty]).open()
    await rig.start(Hasty(), "o-1")
    await rig.coordinate()
    await rig.participate()
    rig.clock.advance(timedelta(hours=1))
    assert await rig.engine.sweeper.sweep() == 1
    await rig.run()
    snapshot = await rig.snapshot("o-1")
    assert snapshot.phase is Phase.COMPLETED
    assert not any(entry.what == "step-timed-out" for r in await rig.store.journal("o-1") for entry in r.entries)


async def test_rule_15_a_swept_timer_whose_message_is_lost_is_swept_again_after_its_lease() -> None:
    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    await rig.run()
    rig.clock.advance(timedelta(days=8))
    # this sweeper leases the timer, and dies before it sends the message
    assert rig.engine.consumer is not None
    slots = [range(SLOTS)]
    assert len(await rig.store.due(slots, 10, 30)) == 1
    assert await rig.engine.sweeper.sweep() == 0
    await rig.after(31)
    assert (await rig.snapshot("n-1")).runs["nap#0"].status is RunStatus.DONE


async def test_rule_15_time_in_a_saga_never_runs_backwards() -> None:
    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    await rig.run()
    before = await rig.snapshot("n-1")
    rig.clock._now -= timedelta(hours=1)
    await rig.send("n-1", Kind.SIGNAL, Approve.__tag__, JSON.encode(Approve(by="ada")), "s-1")
    await rig.run()
    after = await rig.snapshot("n-1")
    assert after.version == before.version + 1
    assert after.clock == before.clock


async def test_a_seven_day_sleep_and_a_two_day_approval_survive_restarts() -> None:
    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    await rig.run()
    rig = await rig.crash()
    await rig.after(timedelta(days=7).total_seconds() - 1)
    assert (await rig.snapshot("n-1")).runs["nap#0"].status is RunStatus.SLEEPING
    rig = await rig.crash()
    await rig.after(2)
    assert (await rig.snapshot("n-1")).runs["approval#0"].status is RunStatus.AWAITING
    rig = await rig.crash()
    await rig.after(timedelta(days=1).total_seconds())
    await rig.send("n-1", Kind.SIGNAL, Approve.__tag__, JSON.encode(Approve(by="ada")), "s-1")
    await rig.run()
    assert (await rig.snapshot("n-1")).phase is Phase.COMPLETED


async def test_an_approval_that_does_not_come_within_two_days_times_out() -> None:
    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    await rig.run()
    await rig.after(timedelta(days=7).total_seconds())
    await rig.after(timedelta(days=2).total_seconds())
    assert (await rig.snapshot("n-1")).phase is Phase.COMPENSATED


# rule 17


async def test_rule_17_the_same_id_with_the_same_input_is_the_existing_saga() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1", "first")
    await rig.run()
    before = await rig.snapshot("o-1")
    await rig.start(Order(), "o-1", "second")
    await rig.run()
    assert await rig.snapshot("o-1") == before
    assert [(n.what, n.existing) for _, n in rig.notices] == [("accepted", False), ("ended", False), ("accepted", True)]


async def test_rule_17_the_same_id_with_another_input_is_refused() -> None:
    rig = await Rig().open()
    await rig.start(Order(sku="a"), "o-1", "first")
    await rig.run()
    before = await rig.snapshot("o-1")
    await rig.start(Order(sku="b"), "o-1", "second")
    await rig.run()
    assert await rig.snapshot("o-1") == before
    assert rig.notices[-1][1].what == "refused"
    assert rig.notices[-1][1].code == "id-in-use"


async def test_rule_17_the_ledger_outlives_the_snapshot() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1", "first")
    await rig.run()
    ended = rig.clock.now()
    assert await rig.store.purge(ended + timedelta(seconds=1)) == 1
    rig = await rig.crash()
    await rig.start(Order(), "o-1", "second")
    await rig.start(Order(sku="other"), "o-1", "third")
    await rig.run()
    assert (await rig.store.load(["o-1"]))[0].snapshot is None
    assert [n.what for _, n in rig.notices[-2:]] == ["accepted", "refused"]
    assert set(rig.shop.effects.values()) == {1}


# replies that reach the shell late or from nowhere


def a_reply(saga_id: str, effect: str, id: str = "r") -> Envelope:
    return Envelope(
        id=id,
        kind=Kind.REPLY,
        type=Done.__tag__,
        source="/shop",
        subject=saga_id,
        time=Rig().clock.now(),
        data=b"{}",
        effect_key=effect,
        outcome=ReplyOutcome.DONE,
    )


async def test_a_reply_for_a_saga_that_never_was_is_an_orphan_that_says_what_to_do() -> None:
    rig = await Rig().open()
    await rig.put(a_reply("ghost", "ghost~none/reserve#0"))
    await rig.run()
    (letter,) = await rig.medium.dead_letters()
    assert letter.reason == "orphan"
    assert "ghost~none/reserve#0 is done, and the store knows no such saga 'ghost'" in letter.detail
    assert "nothing else will undo it: see at shop whether it shall stand" in letter.detail


async def test_a_reply_to_another_start_of_the_id_is_an_orphan_only_if_it_left_something() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "order-1")
    await rig.coordinate()
    await rig.put(a_reply("order-1", "order-1~lost/reserve#0"))
    await rig.put(replace(a_reply("order-1", "order-1~lost/charge#0"), outcome=ReplyOutcome.REJECTED))
    await rig.coordinate()
    (letter,) = await rig.medium.dead_letters()
    assert (letter.reason, letter.detail.split()[0]) == ("orphan", "order-1~lost/reserve#0")


async def test_a_reply_without_an_effect_key_goes_to_the_dead_letters_and_the_others_go_on() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.put(
        Envelope(id="r", kind=Kind.REPLY, type="x.v1", source="/x", subject="o-1", time=rig.clock.now(), data=b"{}")
    )
    await rig.run()
    (letter,) = await rig.medium.dead_letters()
    assert letter.reason == "undecodable"
    assert "effectkey" in letter.detail
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED


async def test_a_message_that_names_no_address_to_answer_to_is_a_dead_letter_and_the_others_go_on() -> None:
    rig = await Rig().open()
    await rig.send("o-1", Kind.START, "amends.start.v1", b'{"saga":"order","input":{}}', "bad", reply_to="nowhere")
    await rig.start(Order(), "o-2")
    await rig.run()
    (letter,) = await rig.medium.dead_letters()
    assert "'nowhere' is no address" in letter.detail
    assert (await rig.snapshot("o-2")).phase is Phase.COMPLETED


async def test_a_start_with_a_wrong_field_is_refused_and_names_it() -> None:
    rig = await Rig().open()
    data = b'{"saga":"order","input":{"sku":"a","amount":"many"}}'
    await rig.send("o-1", Kind.START, "amends.start.v1", data, "bad")
    await rig.run()
    assert rig.notices[-1][1].what == "refused"
    assert "$.amount" in rig.notices[-1][1].problem


async def test_a_start_of_an_unknown_saga_is_refused_and_lists_the_known_ones() -> None:
    rig = await Rig().open()
    await rig.send("o-1", Kind.START, "amends.start.v1", b'{"saga":"ordr","input":{}}', "bad")
    await rig.run()
    assert rig.notices[-1][1].code == "unknown-saga"
    assert "order.v1" in rig.notices[-1][1].problem


async def test_a_signal_nobody_awaits_is_refused() -> None:
    class Unheard(Signal):
        pass

    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    await rig.send("n-1", Kind.SIGNAL, Unheard.__tag__, b"{}", "s")
    await rig.run()
    assert rig.notices[-1][1].what == "refused"
    assert Unheard.__tag__ in rig.notices[-1][1].problem


async def test_a_word_to_a_saga_that_is_not_there_is_refused() -> None:
    rig = await Rig().open()
    await rig.control("ghost", Control(action="cancel", reason="x"))
    await rig.run()
    assert rig.notices[-1][1].code == "no-such-saga"


# many at once


async def test_all_messages_of_one_saga_in_one_batch_are_applied_one_after_the_other() -> None:
    rig = await Rig(sagas=[Nap]).open()
    await rig.start(Nap(), "n-1")
    for number in range(5):
        await rig.send("n-1", Kind.SIGNAL, Approve.__tag__, JSON.encode(Approve(by=str(number))), f"s-{number}")
    await rig.run()
    snapshot = await rig.snapshot("n-1")
    assert snapshot.version == 6
    assert len(snapshot.buffer) == 5


async def test_one_message_that_cannot_be_handled_does_not_hold_up_its_batch() -> None:
    rig = await Rig().open()
    for number in range(3):
        await rig.start(Order(), f"o-{number}")
        await rig.put(a_reply(f"ghost-{number}", f"ghost-{number}~x/reserve#0", id=f"r-{number}"))
    await rig.run()
    assert [(await rig.snapshot(f"o-{n}")).phase for n in range(3)] == [Phase.COMPLETED] * 3
    assert len(await rig.medium.dead_letters()) == 3


async def test_a_failing_participant_is_asked_again_by_policy_and_then_the_saga_goes_back() -> None:
    tries: list[int] = []

    def failing(envelope: Envelope) -> Answer:
        if envelope.type == Charge.__tag__:
            tries.append(envelope.attempt)
            return ReplyOutcome.FAILED, Failure("RuntimeError", "broken")
        return answer(envelope)

    class Stubborn(Shop):
        """Records no failure: an attempt that failed may be made again."""

        def _handle(self, envelope: Envelope) -> Answer:
            if envelope.kind is Kind.COMMAND and envelope.type == Charge.__tag__:
                return failing(envelope)
            return super()._handle(envelope)

    class Patient(Saga):
        @step(pivot=True, retry=Retry(attempts=3, delay=10, jitter=0))
        def charge(self) -> Charge:
            return Charge(amount=1)

    rig = await Rig(sagas=[Patient], shop=Stubborn()).open()
    await rig.start(Patient(), "o-1")
    await rig.run()
    await rig.after(10)
    await rig.after(20)
    assert tries == [1, 2, 3]
    assert (await rig.snapshot("o-1")).phase is Phase.COMPENSATED


async def test_a_reply_that_is_no_data_at_all_leaves_the_saga_stuck_and_does_not_spoil_the_undo() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    await rig.coordinate()
    (command,) = take(rig.service)
    assert command.envelope is not None
    await rig.put(replace(rig.shop.reply(command.envelope).envelope, data=b"{half a reply"))
    await rig.service.ack([command])
    await rig.run()
    assert (await rig.snapshot("o-1")).stuck
    await rig.control("o-1", Control(action="cancel", reason="cannot be read"))
    await rig.coordinate()
    (undo,) = take(rig.service)
    assert undo.envelope is not None
    assert JSON.decode(undo.envelope.data, Undo).reply is None
    await rig.service.release([undo])
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPENSATED


async def test_a_publish_the_broker_did_not_confirm_is_not_acknowledged() -> None:
    down = [True]

    def fault(point: str) -> None:
        if point == "publish:before" and down:
            raise BrokerUnavailable("away")

    rig = await Rig(wrap=lambda broker: FaultyBroker(broker, fault)).open()
    await rig.start(Order(), "o-1")
    with pytest.raises(BrokerUnavailable):
        await rig.coordinate()
    assert rig.medium.pending == 1
    down.clear()
    rig = await rig.crash()
    await rig.run()
    await rig.after(60)
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
