"""What the in-memory broker offers beyond the port."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tests.contract.broker import STOCK, Shares, ids, message, numbered

from amends.brokers import MemoryBroker, ShardMap
from amends.contracts.names import client_address, slot_address, topic_address

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


class StoppedClock:
    def now(self) -> datetime:
        return NEW_YEAR


async def test_pending_counts_what_is_queued_or_in_hand() -> None:
    broker = MemoryBroker()
    consumer = await broker.consume_service("inventory")
    client = await broker.consume_client("c1")
    await broker.subscribe("one", ["placed.v1"])
    await broker.publish([*numbered(STOCK, range(4)), message(client_address("c1")), message(client_address("gone"))])
    await broker.publish([message(topic_address("placed.v1")), message(topic_address("paid.v1"))])
    assert broker.pending == broker.join().pending == 6
    taken = consumer.take(3)
    assert broker.pending == 6
    await consumer.ack(taken[:1])
    await consumer.ack(taken[:1])
    assert broker.pending == 5
    await consumer.release(taken[1:2])
    assert broker.pending == 5
    await consumer.dead_letter(taken[2], "refused", "no")
    assert broker.pending == 4
    await client.close()
    assert broker.pending == 3


async def test_take_gives_what_is_there_without_waiting() -> None:
    broker = MemoryBroker()
    consumer = await broker.consume_service("inventory")
    assert consumer.take() == []
    await broker.publish(numbered(STOCK, range(3)))
    assert ids(consumer.take(2)) == ["0", "1"]
    assert ids(consumer.take()) == ["2"]
    await consumer.close()
    assert consumer.take() == []


async def test_shards_are_moved_at_once() -> None:
    broker, shares = MemoryBroker(ShardMap(shards=4)), Shares(2)
    first = await broker.consume_shards(shares[0])
    await broker.publish([message(slot_address(slot), str(slot)) for slot in (0, 300, 600, 900)])
    assert ids(first.take(1)) == ["0"]
    second = await broker.join().consume_shards(shares[1])
    assert shares.held == [frozenset({0, 1}), frozenset({2, 3})]
    assert (ids(first.take()), ids(second.take())) == (["300"], ["600", "900"])


async def test_dead_letters_are_dated_by_the_given_clock() -> None:
    broker = MemoryBroker(clock=StoppedClock())
    consumer = await broker.consume_service("inventory")
    await broker.publish([message(STOCK)])
    await consumer.dead_letter(consumer.take()[0], "refused", "no")
    assert [letter.at for letter in await broker.dead_letters()] == [NEW_YEAR]


async def test_a_consumer_that_always_has_something_to_do_lets_others_go_on() -> None:
    broker = MemoryBroker()
    consumer = await broker.consume_service("inventory")
    await broker.publish([message(STOCK)])
    rounds: list[int] = []
    turns: list[int] = []

    async def circulate() -> None:
        for number in range(10):
            got = await consumer.receive()
            await broker.publish([message(STOCK)])
            await consumer.ack(got)
            rounds.append(number)

    async def watch() -> None:
        turns.append(len(rounds))

    await asyncio.gather(circulate(), watch())
    assert rounds == list(range(10))
    assert turns == [0]
