"""What every `Broker` must do: subclass `BrokerContract`, or `DurableBrokerContract`, and say how to open one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from msgspec.structs import replace

from amends.brokers import Broker, Consumer, ConsumerClosed, Delivery, Outgoing
from amends.contracts import Envelope, Kind, UsageError
from amends.contracts.names import client_address, service_address, slot_address, topic_address

GUARD_S = 20.0
"""Only a guard: no test waits for time to pass."""

T0 = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
STOCK = service_address("inventory")
_numbers = count(1)


def envelope(id: str) -> Envelope:
    return Envelope(
        id=id,
        kind=Kind.COMMAND,
        type="inventory.reserve-stock.v1",
        source="test",
        subject="order-1",
        time=T0,
        data=b"{}",
    )


def message(address: str, id: str | None = None) -> Outgoing:
    return Outgoing(address, envelope(id or f"m{next(_numbers)}"))


def numbered(address: str, numbers: Iterable[int]) -> list[Outgoing]:
    return [message(address, str(number)) for number in numbers]


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.envelope.id if delivery.envelope else "?" for delivery in deliveries]


def ordered(deliveries: Iterable[Delivery]) -> list[str]:
    """Numbers that came from several addresses, between which there is no order."""
    return sorted(ids(deliveries), key=int)


async def others(turns: int = 3) -> None:
    """Let other tasks go on so many times; no time passes."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def receive(consumer: Consumer, number: int) -> list[Delivery]:
    """Exactly so many deliveries, which may come in several batches."""
    got: list[Delivery] = []
    async with asyncio.timeout(GUARD_S):
        while len(got) < number:
            got += await consumer.receive(number - len(got))
    return got


class Shares:
    """What several consumers of shards were told that they hold; `shares[0]` is the `on_change` of the first."""

    def __init__(self, consumers: int = 1) -> None:
        self.held: list[frozenset[int]] = [frozenset()] * consumers
        self._changed = asyncio.Event()

    def __getitem__(self, index: int) -> Callable[[frozenset[int]], None]:
        def on_change(shards: frozenset[int]) -> None:
            self.held[index] = shards
            self._changed.set()

        return on_change

    async def until(self, *sizes: int) -> None:
        """Wait until the consumers hold so many shards, no shard twice; biggest share first."""
        async with asyncio.timeout(GUARD_S):
            while sorted(map(len, self.held), reverse=True) != [*sizes]:
                self._changed.clear()
                await self._changed.wait()
        assert len(frozenset().union(*self.held)) == sum(sizes)


class BrokerContract(ABC):
    """The suite of the port. Each test begins with an empty broker of 8 shards.

    `open` gives a broker object on the messages of the running test: a second call while the first one is open gives
    another one, as another program would open it. It is closed by the suite.
    """

    delivery_limit = 3
    """What `open` sets: how often a message is handed out before it is a dead letter."""

    competes_by_key = False
    """Whether all messages of one saga go to one consumer at a time, also when others of its name have more room."""

    counts_the_unseen = False
    """Whether messages count as delivered that went to a consumer's process, and were not received there."""

    _opened: list[Broker]

    @abstractmethod
    async def open(self) -> Broker: ...

    @pytest.fixture(autouse=True)
    async def _close_brokers(self) -> AsyncIterator[None]:
        self._opened = []
        yield
        for broker in self._opened:
            await broker.close()

    async def another(self) -> Broker:
        broker = await self.open()
        self._opened.append(broker)
        return broker

    @pytest.fixture
    async def broker(self, _close_brokers: None) -> Broker:
        return await self.another()

    async def left_in(self, broker: Broker, consumer: Consumer, address: str) -> list[str]:
        """What else comes out of a queue: all that comes before a last message."""
        await broker.publish([message(address, "last")])
        found: list[str] = []
        async with asyncio.timeout(GUARD_S):
            while "last" not in found:
                found += ids(await consumer.receive())
        return found[:-1]

    # publishing and receiving

    async def test_a_message_arrives_as_it_was_published(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        sent = envelope("m1")
        await broker.publish([Outgoing(STOCK, sent)])
        (delivery,) = await receive(consumer, 1)
        assert (delivery.envelope, delivery.deliveries, delivery.problem) == (sent, 1, "")

    async def test_messages_wait_for_their_consumer_and_arrive_as_they_were_published(self, broker: Broker) -> None:
        full = Envelope(
            id="m1",
            kind=Kind.REPLY,
            type="inventory.stock-reserved.v1",
            source="größe",
            subject="order/1",
            time=T0 + timedelta(microseconds=1),
            data=b"\x00\xff",
            issued_at=T0,
            not_after=T0 + timedelta(days=1),
            effect_key="order-1~abc/reserve#0",
            revision=2,
            attempt=3,
            version=4,
            sequence=5,
        )
        await broker.publish([Outgoing(STOCK, full)])
        consumer = await (await self.another()).consume_service("inventory")
        (delivery,) = await receive(consumer, 1)
        assert (delivery.envelope, delivery.deliveries) == (full, 1)

    async def test_publishing_nothing_is_allowed(self, broker: Broker) -> None:
        await broker.publish([])

    async def test_each_message_goes_to_its_own_address(self, broker: Broker) -> None:
        stock = await broker.consume_service("inventory")
        client = await broker.consume_client("c1")
        shards = await broker.consume_shards(Shares()[0])
        to = (STOCK, client_address("c1"), slot_address(700), STOCK)
        await broker.publish([message(address, f"m{n}") for n, address in enumerate(to)])
        assert ids(await receive(stock, 2)) == ["m0", "m3"]
        assert ids(await receive(client, 1)) == ["m1"]
        assert ids(await receive(shards, 1)) == ["m2"]

    async def test_what_is_no_address_is_refused_and_nothing_of_the_call_is_stored(self, broker: Broker) -> None:
        for wrong in ("inventory", "slot:x", "shard:01", ""):
            with pytest.raises(UsageError, match="is no address"):
                await broker.publish([message(STOCK), message(wrong)])
        assert await self.left_in(broker, await broker.consume_service("inventory"), STOCK) == []

    async def test_receive_waits_until_something_comes(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        waiting = asyncio.create_task(receive(consumer, 1))
        await broker.publish([message(service_address("payments"))])
        assert not waiting.done()
        await broker.publish([message(STOCK, "mine")])
        assert ids(await waiting) == ["mine"]

    async def test_messages_of_another_broker_wake_a_waiting_consumer(self, broker: Broker) -> None:
        here, there = await broker.consume_client("here"), await (other := await self.another()).consume_client("there")
        for number in range(20):
            answer = asyncio.create_task(receive(there, 1))
            await broker.publish([message(client_address("there"), str(number))])
            got = await answer
            assert ids(got) == [str(number)]
            await there.ack(got)
            await other.publish([message(client_address("here"), str(number))])
            await here.ack(await receive(here, 1))

    async def test_receive_takes_no_more_than_its_limit_oldest_first(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(5)))
        batches: list[list[str]] = []
        async with asyncio.timeout(GUARD_S):
            while sum(map(len, batches)) < 5:
                batches.append(ids(await consumer.receive(2)))
        assert [id for batch in batches for id in batch] == ["0", "1", "2", "3", "4"]
        assert max(map(len, batches)) <= 2

    async def test_order_of_publishing_is_kept_while_messages_pile_up_and_drain(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory", prefetch=5)
        shards = await broker.consume_shards(Shares()[0])
        numbers = iter(range(600))
        got: list[str] = []
        got_shards: list[str] = []

        async def consume(consumer: Consumer, got: list[str]) -> None:
            while len(got) < 300:
                deliveries = await consumer.receive(7)
                got += ids(deliveries)
                await consumer.ack(deliveries)

        async def publish() -> None:
            for size in [1, 2, 40, 3, 1, 100, 7, 1, 45, 100]:
                batch = [str(next(numbers)) for _ in range(size)]
                await broker.publish([message(a, id) for id in batch for a in (STOCK, slot_address(9))])

        async with asyncio.timeout(GUARD_S):
            await asyncio.gather(publish(), consume(consumer, got), consume(shards, got_shards))
        assert got == got_shards == [str(n) for n in range(300)]

    async def test_a_message_does_not_overtake_one_that_waits_for_room(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory", prefetch=8)
        await broker.publish(numbered(STOCK, range(10)))
        got = await receive(consumer, 1)
        await consumer.ack(got)
        # there is room for one more, and 8 and 9 have waited longer
        await broker.publish(numbered(STOCK, [10]))
        while len(got) < 11:
            got += await receive(consumer, 1)
            await consumer.ack(got[-1:])
        assert ids(got) == [str(n) for n in range(11)]

    async def test_cancelling_receive_loses_nothing(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        for number in range(10):
            waiting = asyncio.create_task(consumer.receive())
            publishing = asyncio.create_task(broker.publish([message(STOCK, str(number))]))
            await others(number)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await consumer.release(await waiting)
            await publishing
            got = await receive(consumer, 1)
            assert ids(got) == [str(number)]
            await consumer.ack(got)

    async def test_several_tasks_may_not_receive_from_one_consumer(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        both = [asyncio.create_task(consumer.receive()) for _ in range(2)]
        done, (waiting,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=GUARD_S)
        with pytest.raises(UsageError, match="Open a consumer for each"):
            await done.pop()
        await broker.publish([message(STOCK, "m")])
        assert ids(await waiting) == ["m"]

    # acknowledging and redelivery

    async def test_acknowledged_messages_never_come_again(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(3)))
        await consumer.ack(await receive(consumer, 3))
        await consumer.ack([])
        await consumer.close()
        assert await self.left_in(broker, await broker.consume_service("inventory"), STOCK) == []

    async def test_closing_puts_what_is_in_hand_back_in_its_place_and_counts_the_seen(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(5)))
        got = await receive(consumer, 3)
        await consumer.ack(got[1:2])
        await consumer.close()
        again = await receive(await (await self.another()).consume_service("inventory"), 4)
        assert ids(again) == ["0", "2", "3", "4"]
        unseen = 2 if self.counts_the_unseen else 1
        assert [delivery.deliveries for delivery in again] == [2, 2, unseen, unseen]

    async def test_closing_the_broker_puts_everything_in_hand_back(self, broker: Broker) -> None:
        other = await self.another()
        consumer = await other.consume_service("inventory")
        await other.publish(numbered(STOCK, range(3)))
        await receive(consumer, 2)
        await other.close()
        with pytest.raises(ConsumerClosed):
            await consumer.receive()
        assert ids(await receive(await broker.consume_service("inventory"), 3)) == ["0", "1", "2"]

    async def test_released_messages_come_again_in_their_old_place(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(6)))
        got = await receive(consumer, 4)
        await consumer.ack(got[:1])
        await consumer.release([got[3], got[1]])
        again = await receive(consumer, 4)
        assert ids(again) == ["1", "3", "4", "5"]
        assert [delivery.deliveries for delivery in again] == [2, 2, 1, 1]

    async def test_released_messages_may_go_to_another_consumer(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory", prefetch=1)
        await broker.publish([message(STOCK, "m")])
        got = await receive(consumer, 1)
        other = await (await self.another()).consume_service("inventory")
        taking = asyncio.create_task(receive(other, 1))
        await consumer.release(got)
        await consumer.close()
        assert ids(await taking) == ["m"]

    async def test_a_message_is_released_once_however_often_it_is_asked(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish([message(STOCK, "m")])
        got = await receive(consumer, 1)
        await consumer.release([*got, *got])
        await consumer.ack(await receive(consumer, 1))
        assert await self.left_in(broker, consumer, STOCK) == []

    async def test_competing_consumers_get_each_message_once(self, broker: Broker) -> None:
        other = await self.another()
        consumers = [await b.consume_service("inventory", prefetch=10) for b in (broker, broker, other)]
        got: list[str] = []
        ready = asyncio.Event()

        async def consume(consumer: Consumer) -> None:
            with suppress(ConsumerClosed):
                while True:
                    deliveries = await consumer.receive(5)
                    await consumer.ack(deliveries)
                    got.extend(ids(deliveries))
                    if len(got) >= 500:
                        ready.set()

        tasks = [asyncio.create_task(consume(consumer)) for consumer in consumers]
        for start in range(0, 500, 50):
            await (broker, other)[start // 50 % 2].publish(numbered(STOCK, range(start, start + 50)))
        async with asyncio.timeout(GUARD_S):
            await ready.wait()
        for consumer in consumers:
            await consumer.close()
        await asyncio.gather(*tasks)
        assert sorted(got, key=int) == [str(n) for n in range(500)]
        assert await self.left_in(broker, await broker.consume_service("inventory"), STOCK) == []

    async def test_prefetch_bounds_what_one_consumer_has_in_hand(self, broker: Broker) -> None:
        greedy = await broker.consume_service("inventory", prefetch=3)
        await broker.publish(numbered(STOCK, range(5)))
        mine = await receive(greedy, 3)
        if not self.competes_by_key:
            modest = await (await self.another()).consume_service("inventory")
            rest = await receive(modest, 2)
            assert ids(mine + rest) == ["0", "1", "2", "3", "4"]
            await broker.publish(numbered(STOCK, [5]))
            await modest.close()
        await greedy.ack(mine[:1])
        assert ids(await receive(greedy, 1)) == ["3"]

    async def test_an_acknowledgement_that_comes_too_late_is_ignored(self, broker: Broker) -> None:
        slow = await broker.consume_service("inventory")
        await broker.publish([message(STOCK, "m")])
        late = await receive(slow, 1)
        await slow.close()
        quick = await (await self.another()).consume_service("inventory")
        assert [d.deliveries for d in await receive(quick, 1)] == [2]
        await slow.ack(late)
        await slow.release(late)
        await slow.dead_letter(late[0], "refused", "too late")
        await quick.close()
        third = await broker.consume_service("inventory")
        assert [(d.deliveries, *ids([d])) for d in await receive(third, 1)] == [(3, "m")]
        assert await broker.dead_letters() == []

    async def test_a_message_that_nobody_acknowledges_becomes_a_dead_letter(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(2)))
        for time in range(1, self.delivery_limit + 1):
            got = await receive(consumer, 1)
            assert (ids(got), got[0].deliveries) == (["0"], time)
            await consumer.release(got)
        assert ids(await receive(consumer, 1)) == ["1"]
        (letter,) = await broker.dead_letters()
        assert (letter.reason, letter.deliveries, letter.envelope) == ("delivery-limit", 3, envelope("0"))

    # many messages in one call, which an adapter may put together

    async def test_many_messages_of_one_call_arrive_at_each_address_complete_and_in_order(self, broker: Broker) -> None:
        addresses = (STOCK, slot_address(700), client_address("c1"), topic_address("placed.v1"))
        consumers = [
            await broker.consume_service("inventory"),
            await broker.consume_shards(Shares()[0]),
            await broker.consume_client("c1"),
            await broker.subscribe("one", ["placed.v1"]),
        ]
        other = await self.another()
        await other.publish([message(address, str(number)) for number in range(150) for address in addresses])
        for consumer in consumers:
            got: list[Delivery] = []
            async with asyncio.timeout(GUARD_S):
                while len(got) < 150:
                    batch = await consumer.receive(7)
                    assert len(batch) <= 7
                    await consumer.ack(batch)
                    got += batch
            assert ids(got) == [str(number) for number in range(150)]
            assert {(d.envelope, d.deliveries, d.body, d.problem) for d in got[:1]} == {(envelope("0"), 1, b"", "")}

    async def test_calls_large_and_small_mix_and_every_message_arrives_once(self, broker: Broker) -> None:
        stock, shards = await broker.consume_service("inventory"), await broker.consume_shards(Shares()[0])
        numbers = iter(range(400))
        for size in (1, 60, 2, 5, 1, 100, 31, 200):
            batch = [str(next(numbers)) for _ in range(size)]
            await broker.publish([message(STOCK, id) for id in batch])
            await broker.publish([message(slot_address(int(id)), id) for id in batch])
        for consumer in (stock, shards):
            got: list[Delivery] = []
            while len(got) < 400:
                got += await receive(consumer, 50)
                await consumer.ack(got[-50:])
            assert ordered(got) == [str(number) for number in range(400)]
            assert {d.deliveries for d in got} == {1}
        assert await self.left_in(broker, stock, STOCK) == []

    async def test_messages_that_are_large_together_arrive(self, broker: Broker) -> None:
        stock = await broker.consume_service("inventory")
        sent = [replace(envelope(str(number)), data=bytes([number]) * 150_000) for number in range(12)]
        await broker.publish([Outgoing(STOCK, one) for one in sent])
        assert [d.envelope for d in await receive(stock, 12)] == sent

    @pytest.mark.parametrize("address", [STOCK, slot_address(7)])
    async def test_some_of_a_call_are_acknowledged_and_the_others_come_again(
        self, broker: Broker, address: str
    ) -> None:
        other = await self.another()
        consumer = await self.consume(other, address)
        await broker.publish(numbered(address, range(40)))
        got = await receive(consumer, 35)
        await consumer.ack(got[1:30:2])
        await consumer.ack(got[3:20])
        await other.close()
        left = [number for number in range(40) if number not in {*range(1, 30, 2), *range(3, 20)}]
        again = await receive(await self.consume(broker, address), len(left))
        assert ordered(again) == [str(number) for number in left]
        assert {d.deliveries >= 2 for d in again if int(ids([d])[0]) < 35} == {True}

    @pytest.mark.parametrize("address", [STOCK, slot_address(7)])
    async def test_some_of_a_call_are_released_and_come_again(self, broker: Broker, address: str) -> None:
        consumer = await self.consume(broker, address)
        await broker.publish(numbered(address, range(40)))
        got = await receive(consumer, 40)
        await consumer.ack(got[::2])
        await consumer.release(got[1::2])
        again = await receive(consumer, 20)
        assert (ordered(again), {d.deliveries for d in again}) == ([str(n) for n in range(1, 40, 2)], {2})
        await consumer.ack(again)
        await consumer.close()
        assert await self.left_in(broker, await self.consume(broker, address), address) == []

    async def test_a_call_that_is_released_as_a_whole_comes_again(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(40)))
        await consumer.release(await receive(consumer, 40))
        await consumer.close()
        again = await receive(await broker.consume_service("inventory"), 40)
        assert ordered(again) == [str(number) for number in range(40)]
        assert {d.deliveries >= 2 for d in again} == {True}

    async def test_one_of_a_call_becomes_a_dead_letter_and_the_others_do_not(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(40)))
        got = await receive(consumer, 40)
        await consumer.dead_letter(got[5], "refused", "not this one")
        await consumer.ack([*got[:5], *got[6:]])
        await consumer.close()
        (letter,) = await broker.dead_letters()
        assert (letter.queue, letter.reason, letter.envelope) == (STOCK, "refused", envelope("5"))
        assert await self.left_in(broker, await broker.consume_service("inventory"), STOCK) == []

    async def consume(self, broker: Broker, address: str) -> Consumer:
        """A consumer of what is sent to the service, or to a slot."""
        if address == STOCK:
            return await broker.consume_service("inventory")
        return await broker.consume_shards(Shares()[0])

    # dead letters

    async def test_a_dead_letter_keeps_the_message_and_says_why(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        await broker.publish(numbered(STOCK, range(3)))
        got = await receive(consumer, 3)
        await consumer.ack(got[2:])
        await consumer.dead_letter(got[0], "unknown-type", "nobody knows it")
        await consumer.dead_letter(got[1], "refused", "not now")
        newer, older = await (await self.another()).dead_letters()
        assert (older.envelope, newer.envelope) == (envelope("0"), envelope("1"))
        assert (older.queue, older.reason, older.detail) == (STOCK, "unknown-type", "nobody knows it")
        assert (newer.reason, newer.deliveries) == ("refused", 1)
        assert older.id != newer.id
        assert timedelta(0) <= datetime.now(UTC) - older.at < timedelta(minutes=1)
        assert ids(await broker.dead_letters(1)) == ["1"]  # type: ignore[arg-type]
        await consumer.close()
        assert await self.left_in(broker, await broker.consume_service("inventory"), STOCK) == []

    # shards

    async def test_one_consumer_of_shards_gets_all_of_them(self, broker: Broker) -> None:
        shares = Shares()
        consumer = await broker.consume_shards(shares[0])
        assert shares.held == [frozenset(range(8))]
        await broker.publish([message(slot_address(slot), str(slot)) for slot in range(0, 1024, 5)])
        assert ordered(await receive(consumer, 205)) == [str(slot) for slot in range(0, 1024, 5)]

    async def test_messages_for_shards_wait_until_somebody_consumes_them(self, broker: Broker) -> None:
        await broker.publish([message(slot_address(slot), str(slot)) for slot in (1000, 0, 500)])
        consumer = await (await self.another()).consume_shards(Shares()[0])
        assert ordered(await receive(consumer, 3)) == ["0", "500", "1000"]

    async def test_shards_are_shared_out_evenly_and_each_has_one_consumer(self, broker: Broker) -> None:
        shares = Shares(3)
        consumers = [await broker.consume_shards(shares[0])]
        consumers.append(await (await self.another()).consume_shards(shares[1]))
        consumers.append(await broker.consume_shards(shares[2]))
        await shares.until(3, 3, 2)
        await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
        for consumer, held in zip(consumers, shares.held, strict=True):
            assert ordered(await receive(consumer, len(held))) == [str(shard) for shard in sorted(held)]

    async def test_shards_move_when_their_consumer_closes_and_what_it_had_in_hand_comes_again(
        self, broker: Broker
    ) -> None:
        shares = Shares(2)
        first = await broker.consume_shards(shares[0])
        second = await (await self.another()).consume_shards(shares[1])
        await shares.until(4, 4)
        await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
        await first.ack(await receive(first, 4))
        lost = [str(shard) for shard in sorted(shares.held[1])]
        assert ordered(await receive(second, 4)) == lost
        await second.close()
        shares.held[1] = frozenset()
        await shares.until(8, 0)
        again = await receive(first, 4)
        assert (ordered(again), {d.deliveries for d in again}) == (lost, {2})

    async def test_acknowledgements_for_a_lost_shard_are_ignored(self, broker: Broker) -> None:
        shares = Shares(2)
        before = await broker.consume_shards(shares[0])
        await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
        stale = await receive(before, 8)
        after = await (await self.another()).consume_shards(shares[1])
        await shares.until(4, 4)
        moved = [str(shard) for shard in sorted(shares.held[1])]
        assert ordered(await receive(after, 4)) == moved
        await before.ack(stale)
        await after.close()
        assert ordered(await receive(before, 4)) == moved

    # events

    async def test_every_subscriber_gets_a_copy_of_each_event_of_its_types(self, broker: Broker) -> None:
        one = await broker.subscribe("one", ["placed.v1"])
        two = await (await self.another()).subscribe("two", ["placed.v1", "paid.v1"])
        await broker.publish([message(topic_address(type), type) for type in ("placed.v1", "paid.v1", "shipped.v1")])
        assert sorted(ids(await receive(two, 2))) == ["paid.v1", "placed.v1"]
        assert await self.left_in(broker, one, topic_address("placed.v1")) == ["placed.v1"]

    async def test_an_event_about_nothing_in_particular_arrives_as_it_was_published(self, broker: Broker) -> None:
        subscriber = await broker.subscribe("one", ["placed.v1"])
        event = Envelope(
            id="e1", kind=Kind.EVENT, type="placed.v1", source="test", subject="", time=T0, data=b'{"a": 1}'
        )
        await broker.publish([Outgoing(topic_address("placed.v1"), event)])
        (delivery,) = await receive(subscriber, 1)
        assert (delivery.envelope, delivery.problem) == (event, "")

    async def test_consumers_with_one_subscriber_name_compete(self, broker: Broker) -> None:
        first = await broker.subscribe("one", ["placed.v1"])
        second = await (await self.another()).subscribe("one", ["placed.v1"])
        await broker.publish(numbered(topic_address("placed.v1"), range(4)))
        got: list[str] = []
        tasks = [asyncio.create_task(receive(consumer, 1)) for consumer in (first, second)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=GUARD_S)
        for task in pending:
            task.cancel()
        for task in done:
            got += ids(await task)
        await first.close()
        await second.close()
        again = await broker.subscribe("one", ["placed.v1"])
        everything = await receive(again, 4)
        assert ordered(everything) == ["0", "1", "2", "3"]
        assert {id for d in everything for id in ids([d]) if d.deliveries >= 2} >= set(got)

    async def test_events_wait_for_a_subscriber_that_is_away(self, broker: Broker) -> None:
        await (await broker.subscribe("one", ["placed.v1"])).close()
        await broker.publish(numbered(topic_address("placed.v1"), range(3)))
        back = await (await self.another()).subscribe("one", ["placed.v1"])
        assert ids(await receive(back, 3)) == ["0", "1", "2"]

    async def test_an_event_that_nobody_subscribed_to_is_dropped(self, broker: Broker) -> None:
        await broker.publish([message(topic_address("placed.v1"), "too early")])
        late = await broker.subscribe("one", ["placed.v1"])
        assert await self.left_in(broker, late, topic_address("placed.v1")) == []

    async def test_subscribing_with_other_types_replaces_them(self, broker: Broker) -> None:
        await broker.subscribe("one", ["placed.v1", "paid.v1"])
        await broker.publish([message(topic_address("placed.v1"), "before")])
        consumer = await broker.subscribe("two", ["placed.v1"])
        changed = await broker.subscribe("two", ["paid.v1"])
        await broker.publish([message(topic_address(type), type) for type in ("placed.v1", "paid.v1")])
        await consumer.close()
        assert await self.left_in(broker, changed, topic_address("paid.v1")) == ["paid.v1"]

    # clients

    async def test_messages_to_a_client_that_is_not_there_are_dropped(self, broker: Broker) -> None:
        await broker.publish([message(client_address("c1"), "too early")])
        client = await broker.consume_client("c1")
        assert await self.left_in(broker, client, client_address("c1")) == []

    async def test_what_is_left_vanishes_with_the_client(self, broker: Broker) -> None:
        client = await (await self.another()).consume_client("c1")
        await broker.publish(numbered(client_address("c1"), range(3)))
        assert ids(await receive(client, 1)) == ["0"]
        await client.close()
        await broker.publish([message(client_address("c1"), "too late")])
        again = await broker.consume_client("c1")
        assert await self.left_in(broker, again, client_address("c1")) == []

    # closing

    async def test_closing_interrupts_receive(self, broker: Broker) -> None:
        consumer = await broker.consume_service("inventory")
        waiting = asyncio.create_task(receive(consumer, 1))
        await others()
        await consumer.close()
        await consumer.close()
        with pytest.raises(ConsumerClosed, match="inventory"):
            await waiting
        with pytest.raises(ConsumerClosed):
            await consumer.receive()

    async def test_a_closed_broker_says_so(self, broker: Broker) -> None:
        await broker.close()
        await broker.close()
        with pytest.raises(UsageError, match="is closed"):
            await broker.publish([message(STOCK)])
        with pytest.raises(UsageError, match="is closed"):
            await broker.consume_service("inventory")


class DurableBrokerContract(BrokerContract):
    """The suite of a broker whose messages outlive the programs. `inject` puts bytes in a service's queue."""

    @abstractmethod
    async def inject(self, service: str, body: bytes) -> None: ...

    async def test_messages_subscriptions_and_dead_letters_outlive_every_program(self, broker: Broker) -> None:
        stock = await broker.consume_service("inventory")
        await broker.subscribe("one", ["placed.v1"])
        await broker.publish(numbered(STOCK, range(4)))
        got = await receive(stock, 3)
        await stock.ack(got[:1])
        await stock.dead_letter(got[1], "refused", "no")
        await broker.close()
        after = await self.another()
        await after.publish([message(topic_address("placed.v1"), "event")])
        assert ids(await receive(await after.consume_service("inventory"), 2)) == ["2", "3"]
        assert ids(await receive(await after.subscribe("one", ["placed.v1"]), 1)) == ["event"]
        assert ids(await after.dead_letters()) == ["1"]  # type: ignore[arg-type]

    @pytest.mark.parametrize("body", [b"", b"garbage", b"\x91\xa2m1", b"\xc1"])
    async def test_bytes_that_cannot_be_read_are_delivered_as_such(self, broker: Broker, body: bytes) -> None:
        await self.inject("inventory", body)
        consumer = await broker.consume_service("inventory")
        await broker.publish([message(STOCK, "good")])
        bad, good = await receive(consumer, 2)
        assert (bad.envelope, bad.body, bad.deliveries) == (None, body, 1)
        assert bad.problem
        assert ids([good]) == ["good"]
        await consumer.dead_letter(bad, "undecodable", bad.problem)
        (letter,) = await broker.dead_letters()
        assert (letter.envelope, letter.body, letter.detail) == (None, body, bad.problem)
