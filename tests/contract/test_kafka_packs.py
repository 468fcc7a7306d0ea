"""Packs on a real Kafka: who gets them, and what becomes of them when their consumers die, move or choke."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from tests.contract.broker import GUARD_S, STOCK, Shares, envelope, ids, message, numbered, ordered, receive
from tests.support.servers import PrivateKafka

pytest.importorskip("aiokafka")

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec.structs import replace

from amends.brokers import Outgoing
from amends.brokers.kafka import KafkaBroker, KafkaOptions
from amends.brokers.kafka.topics import delete_installation
from amends.brokers.kafka.wire import pack_of, parts_in
from amends.contracts import slot_of
from amends.contracts.names import SLOTS, service_address, slot_address, topic_address

ROOT = Path(__file__).parents[2]
PARTITION = slot_of("order-1") * 4 // SLOTS
"""Where the messages of the suite are among four."""

_tests = count(1)

Open = Callable[..., Awaitable[KafkaBroker]]


@pytest.fixture
async def options(kafka_url: str) -> AsyncIterator[KafkaOptions]:
    prefix = f"p{next(_tests)}-{uuid4().hex[:8]}"
    options = KafkaOptions.parse(f"{kafka_url}?prefix={prefix}&partitions=4&session_timeout_s=6&drain_s=0.1")
    yield options
    await delete_installation(options)


@pytest.fixture
async def open(options: KafkaOptions) -> AsyncIterator[Open]:
    """Opens brokers on the shared Kafka, or on that of a URL."""
    opened: list[KafkaBroker] = []

    async def open(url: str | KafkaOptions | None = None) -> KafkaBroker:
        broker = await KafkaBroker.open(url or options)
        opened.append(broker)
        return broker

    yield open
    for broker in opened:
        await broker.close()


async def lying_in(options: KafkaOptions, topic: str) -> list[int]:
    """How many messages each record of a topic holds, as a program sees it that knows nothing of ours."""
    sizes = []
    async with AIOKafkaConsumer(bootstrap_servers=list(options.servers), auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(f"{options.prefix}.{topic}", partition) for partition in range(4)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(GUARD_S):
            for tp in partitions:
                while await consumer.position(tp) < ends[tp]:
                    for record in (await consumer.getmany(tp, timeout_ms=100)).get(tp, []):
                        sizes.append(len(parts_in(record) or [1]))
    return sizes


async def half_handled(url: str, number: int) -> Process:
    """A process that has acknowledged so many messages, and has the rest in hand."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.kafka_handler_child", url, str(number), cwd=ROOT, stdout=PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(GUARD_S):
        for expected in range(number):
            assert (await child.stdout.readline()).decode().strip() == str(expected)
    return child


# who gets packs


async def test_a_service_in_another_language_gets_single_messages_only(open: Open, options: KafkaOptions) -> None:
    broker = await open()
    await broker.publish(numbered(STOCK, range(100)))
    service = AIOKafkaConsumer(
        f"{options.prefix}.service.inventory",
        bootstrap_servers=list(options.servers),
        group_id=f"{options.prefix}.service.inventory",
        auto_offset_reset="earliest",
    )
    async with service, asyncio.timeout(GUARD_S):
        got = [await service.getone() for _ in range(100)]
        # its group is no group of ours
        await broker._pack_readers.look()
        await broker.publish(numbered(STOCK, range(100, 200)))
        got += [await service.getone() for _ in range(100)]
    assert [dict(record.headers)["ce_id"].decode() for record in got] == [str(number) for number in range(200)]
    assert await lying_in(options, "service.inventory") == [1] * 200


async def test_many_messages_to_participants_of_ours_go_as_packs_and_few_one_by_one(
    open: Open, options: KafkaOptions
) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(100)))
    await broker.publish(numbered(STOCK, range(100, 103)))
    assert ids(await receive(consumer, 103)) == [str(number) for number in range(103)]
    assert await lying_in(options, "packs.inventory") == [25] * 4 + [1] * 3
    assert await lying_in(options, "service.inventory") == []


async def test_publishers_learn_about_several_services_who_reads_packs(open: Open, options: KafkaOptions) -> None:
    publisher, participant = await open(), await open()
    payments = service_address("payments")
    await publisher.publish([*numbered(STOCK, range(5)), *numbered(payments, range(5))])
    consumers = [await participant.consume_service(service) for service in ("inventory", "payments")]
    await publisher._pack_readers.look()
    await publisher.publish([*numbered(STOCK, range(5, 10)), *numbered(payments, range(5, 10))])
    for consumer, service in zip(consumers, ("inventory", "payments"), strict=True):
        assert ordered(await receive(consumer, 10)) == [str(number) for number in range(10)]
        assert await lying_in(options, f"packs.{service}") == [5]


async def test_publishers_learn_from_kafka_who_reads_packs(open: Open, options: KafkaOptions) -> None:
    publisher, participant = await open(), await open()
    await publisher.publish(numbered(STOCK, range(5)))
    consumer = await participant.consume_service("inventory")
    await publisher._pack_readers.look()
    await publisher.publish(numbered(STOCK, range(5, 10)))
    await consumer.ack(await receive(consumer, 10))
    await consumer.close()
    await publisher._pack_readers.look()
    await publisher.publish(numbered(STOCK, range(10, 15)))
    assert await lying_in(options, "service.inventory") == [1] * 10
    assert await lying_in(options, "packs.inventory") == [5]
    again = await participant.consume_service("inventory")
    assert ids(await receive(again, 5)) == [str(number) for number in range(10, 15)]


async def test_publishers_look_by_themselves(open: Open) -> None:
    publisher, participant = await open(), await open()
    await participant.consume_service("inventory")
    await publisher.publish(numbered(STOCK, range(5)))
    async with asyncio.timeout(GUARD_S):
        while not publisher._pack_readers.consume("inventory"):
            await asyncio.sleep(0.01)


async def test_shards_get_packs_and_subscribers_single_events(open: Open, options: KafkaOptions) -> None:
    broker = await open()
    shards, events = await broker.consume_shards(Shares()[0]), await broker.subscribe("one", ["placed.v1"])
    await broker.publish([message(slot_address(number % 2), str(number)) for number in range(40)])
    await broker.publish(numbered(topic_address("placed.v1"), range(40)))
    assert ids(await receive(shards, 40)) == ids(await receive(events, 40)) == [str(number) for number in range(40)]
    assert await lying_in(options, "shards.v1") == [20, 20]
    assert await lying_in(options, "event.placed.v1") == [1] * 40


async def test_messages_that_are_too_large_together_go_one_by_one(open: Open, options: KafkaOptions) -> None:
    broker = await open(replace(options, max_message_bytes=10_000))
    consumer = await broker.consume_service("inventory")
    large = [Outgoing(STOCK, replace(envelope(str(number)), data=b'"%s"' % (b"x" * 4000))) for number in range(6)]
    await broker.publish(large)
    assert [delivery.envelope for delivery in await receive(consumer, 6)] == [one.envelope for one in large]
    assert await lying_in(options, "packs.inventory") == [1] * 6


# what becomes of them


async def test_a_part_of_a_pack_can_be_released_and_dead_lettered_on_its_own(open: Open) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(6)))
    got = await receive(consumer, 6)
    await consumer.ack(got[:2])
    await consumer.release(got[3:5])
    await consumer.dead_letter(got[2], "refused", "not now")
    again = await receive(consumer, 2)
    assert [(*ids([delivery]), delivery.deliveries) for delivery in again] == [("3", 2), ("4", 2)]
    await consumer.ack([*again, got[5]])
    (letter,) = await broker.dead_letters()
    assert (letter.queue, letter.reason, letter.envelope) == (STOCK, "refused", envelope("2"))
    await consumer.close()
    await broker.publish([message(STOCK, "last")])
    assert ids(await receive(await broker.consume_service("inventory"), 1)) == ["last"]


async def test_what_cannot_be_read_in_a_pack_does_not_spoil_the_rest_of_it(open: Open, options: KafkaOptions) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory")
    (good, headers) = pack_of([envelope("good")])
    async with AIOKafkaProducer(bootstrap_servers=list(options.servers)) as producer:
        for body in (b"[%b,%b]" % (b'{"id":7}', good[1:-1]), b"no pack"):
            topic = f"{options.prefix}.packs.inventory"
            await producer.send_and_wait(topic, body, partition=PARTITION, headers=headers)
    bad, fine, worse = await receive(consumer, 3)
    assert (bad.envelope, bad.body, fine.envelope) == (None, b'{"id":7}', envelope("good"))
    assert (worse.envelope, worse.body) == (None, b"no pack")
    assert "a pack cannot be read" in worse.problem
    await consumer.dead_letter(bad, "undecodable", bad.problem)
    (letter,) = await broker.dead_letters()
    assert (letter.envelope, letter.body) == (None, b'{"id":7}')


async def test_a_pack_that_moves_in_the_middle_goes_on_with_what_is_left(open: Open) -> None:
    shares = Shares(2)
    first = await (await open()).consume_shards(shares[0])
    broker = await open()
    await broker.publish([message(slot_address(shard * 128), f"{shard}{n}") for shard in range(8) for n in range(10)])
    got = await receive(first, 40)
    acknowledged = [delivery for delivery in got if int(ids([delivery])[0]) % 2]
    await first.ack(acknowledged)
    second = await broker.consume_shards(shares[1])
    await shares.until(4, 4)
    left = {f"{shard}{n}" for shard in range(8) for n in range(10)}.difference(ids(acknowledged))
    moved = {id for id in left if int(id) // 10 in shares.held[1]}
    assert set(ids(await receive(second, len(moved)))) == moved
    # the other half of the partitions is still here, with what is in hand
    stayed = left - moved - set(ids(got))
    assert set(ids(await receive(first, len(stayed)))) == stayed


@pytest.mark.slow
async def test_half_a_pack_in_the_hands_of_a_killed_process_is_not_lost(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    url = f"{private_kafka().url}?session_timeout_s=1.5&partitions=4"
    broker = await open(url)
    await (await broker.consume_service("inventory")).close()
    await broker.publish(numbered(STOCK, range(30)))
    child = await half_handled(url, 12)
    child.kill()
    await child.wait()
    consumer = await broker.consume_service("inventory")
    got = await receive(consumer, 18)
    assert ordered(got) == [str(number) for number in range(12, 30)]
    assert {delivery.deliveries for delivery in got} == {2}
    await consumer.ack(got)
    await consumer.close()
    await broker.publish([message(STOCK, "last")])
    assert ids(await receive(await broker.consume_service("inventory"), 1)) == ["last"]
    # they were split off
    assert await lying_in(broker.options, "packs.inventory") == [30, *[1] * 19]


@pytest.mark.slow
async def test_a_message_that_kills_its_consumers_ends_as_a_dead_letter_and_takes_no_other_along(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    url = f"{private_kafka().url}?session_timeout_s=2&partitions=4&delivery_limit=4"
    broker = await open(url)
    await (await broker.consume_service("inventory")).close()
    names = ["a", "b", "c", "poison", "d", "e", "f", "g"]
    await broker.publish([message(STOCK, name) for name in names])
    handled: list[str] = []
    deaths = 0
    async with asyncio.timeout(90):
        while len(handled) < 8:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.contract.kafka_handler_child", url, "100", cwd=ROOT, stdout=PIPE
            )
            assert child.stdout is not None
            while line := await child.stdout.readline():
                handled.append(line.decode().strip())
                if handled[-1] == "g":
                    await broker.publish([message(STOCK, "last")])
                if handled[-1] == "last":
                    child.kill()
            deaths += await child.wait() == 9
    assert sorted(handled) == sorted({*names, "last"} - {"poison"})
    assert deaths == 4
    (letter,) = await broker.dead_letters()
    assert (letter.reason, letter.deliveries, letter.envelope) == ("delivery-limit", 4, envelope("poison"))
