"""Packs on RabbitMQ: who gets them, who never does, and what becomes of one when its consumer dies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from msgspec.structs import replace
from tests.contract.broker import GUARD_S, STOCK, Shares, envelope, ids, message, numbered, ordered, receive
from tests.support.rabbitmq import Rabbit, worker
from yarl import URL

from amends.brokers import Outgoing
from amends.brokers.rabbitmq import RabbitmqBroker
from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.names import Names
from amends.brokers.rabbitmq.pack_readers import PackReaders
from amends.brokers.rabbitmq.problems import Server
from amends.contracts.names import client_address, slot_address
from amends.contracts.packs import PACK_TYPE, is_pack, write_pack

CHILD = Path(__file__).with_name("rabbitmq_child.py")


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> Rabbit:
    found = Rabbit(rabbitmq_url, f"packs-{worker()}")
    await found.empty()
    return found


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[RabbitmqBroker]:
    broker = await RabbitmqBroker.open(rabbit.url, namespace=rabbit.namespace)
    yield broker
    await broker.close()


@pytest.fixture
async def other(rabbit: Rabbit) -> AsyncIterator[RabbitmqBroker]:
    broker = await RabbitmqBroker.open(rabbit.url, namespace=rabbit.namespace)
    yield broker
    await broker.close()


# who gets them


async def test_a_large_call_is_a_few_messages_for_shards(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    await broker.publish([message(slot_address(slot), str(slot)) for slot in range(64)])
    assert await rabbit.count("shard.00") == 2


async def test_a_client_gets_single_messages_as_it_may_be_in_any_language(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await rabbit.declare("client.stranger", {"x-queue-type": "quorum"})
    await broker.publish(numbered(client_address("stranger"), range(40)))
    assert await rabbit.count("client.stranger") == 40
    await rabbit.delete("client.stranger")


async def test_a_service_without_consumers_of_packs_gets_single_messages(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await broker.publish(numbered(STOCK, range(64)))
    assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (64, None)


async def test_a_service_whose_consumers_of_packs_are_away_gets_single_messages(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    await (await other.consume_service("inventory")).close()
    await broker.publish(numbered(STOCK, range(64)))
    assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (64, 0)


async def test_a_consumer_with_little_room_asks_for_no_packs(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    consumer = await other.consume_service("inventory", prefetch=10)
    await broker.publish(numbered(STOCK, range(64)))
    assert await rabbit.count("packs.inventory") is None
    assert ids(await receive(consumer, 10)) == [str(number) for number in range(10)]


async def test_a_program_in_another_language_beside_ours_gets_single_messages_only(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    ours = await other.consume_service("inventory")
    theirs: list[aio_pika.abc.AbstractIncomingMessage] = []
    mine: list[str] = []
    connection = await aio_pika.connect(rabbit.url)
    channel = await connection.channel()
    queue = await channel.get_queue(rabbit.name("service.inventory"))

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        theirs.append(message)
        await message.ack()

    await queue.consume(take)
    numbers = iter(range(1_000))
    sent = 0
    async with asyncio.timeout(GUARD_S):
        for size in (40, 1, 1, 2, 80, 3, 1, 1, 1, 1, 50):
            await broker.publish(numbered(STOCK, [next(numbers) for _ in range(size)]))
            sent += size
        while len(mine) + len(theirs) < sent:
            # what is waited for may have gone to the other one
            receiving = asyncio.create_task(ours.receive())
            await asyncio.wait({receiving}, timeout=0.05)
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait({receiving})
            if not receiving.cancelled():
                got = receiving.result()
                await ours.ack(got)
                mine += ids(got)
    await connection.close()
    assert theirs
    assert not [one for one in theirs if is_pack(one.content_type)]
    found = [*mine, *(str(one.headers["cloudEvents:id"]) for one in theirs)]
    assert sorted(found, key=int) == [str(number) for number in range(sent)]


async def test_when_the_queue_for_packs_is_deleted_the_call_goes_on_with_single_messages(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    consumer = await other.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(64)))
    await consumer.ack(await receive(consumer, 64))
    await consumer.close()
    await rabbit.delete("packs.inventory")
    await broker.publish(numbered(STOCK, range(64, 128)))
    assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (64, None)
    again = await other.consume_service("inventory")
    assert ids(await receive(again, 64)) == [str(number) for number in range(64, 128)]


async def test_consumers_of_packs_that_come_and_go_are_noticed_while_publishing(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    link = Link(URL(rabbit.url), Server("here", "guest", "test.v1"), "test")
    readers = PackReaders(link, Names.of(rabbit.namespace), ask_again_s=0)
    assert not await readers.of("inventory")
    consumer = await broker.consume_service("inventory")
    async with asyncio.timeout(GUARD_S):
        while not await readers.of("inventory"):
            await asyncio.sleep(0)
        await consumer.close()
        while await readers.of("inventory"):
            await asyncio.sleep(0)
    await link.close()


# packs that come again


async def child(rabbit: Rabbit, *what: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), rabbit.url, rabbit.namespace, *what, stdout=asyncio.subprocess.PIPE
    )


async def line(process: asyncio.subprocess.Process, wanted: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_S):
        while (said := (await process.stdout.readline()).decode().strip()) != wanted:
            assert said, "the child has ended"


@pytest.mark.slow
@pytest.mark.parametrize(("what", "queue"), [("inventory", "service.inventory"), ("shards", "shard.00")])
async def test_what_a_killed_process_had_in_hand_of_a_pack_comes_again_as_single_messages(
    rabbit: Rabbit, broker: RabbitmqBroker, what: str, queue: str
) -> None:
    process = await child(rabbit, what, "31")
    try:
        await line(process, "ready")
        address = STOCK if what == "inventory" else slot_address(0)
        await broker.publish(numbered(address, range(64)))
        await line(process, "acked 31")
    finally:
        process.kill()
        await process.wait()
    consumer = await (broker.consume_shards(Shares()[0]) if what == "shards" else broker.consume_service(what))
    got = [d for d in await receive(consumer, 64) if d.envelope]
    assert ordered(got) == [str(number) for number in range(64)]
    assert {d.deliveries for d in got} == {2}
    await consumer.close()
    # nothing was acknowledged, and each of them lies there for itself
    assert await rabbit.count(queue) == 64


async def test_a_pack_that_comes_again_is_split_before_any_of_it_is_handed_out(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    await (await broker.consume_service("inventory")).close()
    await rabbit.put("packs.inventory", write_pack([envelope(str(n)) for n in range(32)]), content_type=PACK_TYPE)
    await rabbit.give_back("packs.inventory", times=1)
    got = await receive(await other.consume_service("inventory"), 1)
    assert got[0].deliveries == 2
    await other.close()
    assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (32, 0)


async def test_the_unreadable_in_a_pack_is_a_delivery_of_its_own_also_when_it_comes_again(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    body = write_pack([envelope("1"), envelope("2")])[:-1] + b',{"id":"3"}]'
    await (await broker.consume_service("inventory")).close()
    for times in (0, 1):
        await rabbit.put("packs.inventory", body, content_type=PACK_TYPE)
        await rabbit.give_back("packs.inventory", times)
        consumer = await broker.consume_service("inventory")
        got = await receive(consumer, 3)
        assert ids(got) == ["1", "2", "?"]
        assert (got[2].envelope, got[2].body, got[2].deliveries) == (None, b'{"id":"3"}', times + 1)
        assert got[2].problem
        await consumer.dead_letter(got[2], "undecodable", got[2].problem)
        await consumer.ack(got[:2])
        await consumer.close()
        assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (0, 0)
    assert [letter.body for letter in await broker.dead_letters()] == [b'{"id":"3"}'] * 2


@pytest.mark.parametrize("body", [b"garbage", b"{}", b"[]"])
@pytest.mark.parametrize("times", [0, 2])
async def test_a_pack_that_is_none_is_one_delivery(
    rabbit: Rabbit, broker: RabbitmqBroker, body: bytes, times: int
) -> None:
    await broker.publish([message(STOCK, "first")])
    consumer = await broker.consume_service("inventory")
    await consumer.ack(await receive(consumer, 1))
    await consumer.close()
    await rabbit.put("service.inventory", body, content_type=PACK_TYPE)
    await rabbit.give_back("service.inventory", times)
    (delivery,) = await receive(await broker.consume_service("inventory"), 1)
    assert (delivery.envelope, delivery.body, delivery.deliveries) == (None, body, times + 1)


async def test_packs_that_come_again_while_others_are_being_split_are_split_too(
    rabbit: Rabbit, broker: RabbitmqBroker, other: RabbitmqBroker
) -> None:
    consumer = await broker.consume_service("inventory", prefetch=512)
    await broker.publish([Outgoing(STOCK, replace(envelope(str(number)), data=b"." * 6_000)) for number in range(320)])
    await receive(consumer, 320)
    await consumer.close()
    again = await other.consume_service("inventory", prefetch=512)
    got = await receive(again, 320)
    assert sorted(ids(got), key=int) == [str(number) for number in range(320)]
    await again.ack(got)
    await again.close()
    assert (await rabbit.count("service.inventory"), await rabbit.count("packs.inventory")) == (0, 0)
