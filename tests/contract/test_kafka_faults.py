"""What a real Kafka does to its broker: it dies, hangs, moves partitions, and refuses."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.contract.broker import GUARD_S, STOCK, Shares, ids, message, numbered, ordered, receive
from tests.support.servers import PrivateKafka, free_port
from tests.support.services import _private

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from msgspec.structs import replace

from amends.brokers import BrokerUnavailable, Outgoing, ShardMap
from amends.brokers.kafka import KafkaBroker, KafkaOptions, MessageTooLarge
from amends.brokers.kafka.lag import Lag
from amends.brokers.kafka.topics import delete_installation
from amends.contracts import UsageError, slot_of
from amends.contracts.names import SLOTS, client_address, slot_address, topic_address

ROOT = Path(__file__).parents[2]
PARTITION = slot_of("order-1") * 4 // SLOTS
"""Where the messages of the suite are among four."""

QUICK = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}
"""So that a killed broker may come back soon: its controller waits for the end of its session."""

_tests = count(1)

Open = Callable[..., Awaitable[KafkaBroker]]


@pytest.fixture
async def options(kafka_url: str) -> AsyncIterator[KafkaOptions]:
    prefix = f"f{next(_tests)}-{uuid4().hex[:8]}"
    options = KafkaOptions.parse(f"{kafka_url}?prefix={prefix}&partitions=4&session_timeout_s=6&drain_s=0.1")
    yield options
    await delete_installation(options)


@pytest.fixture
async def open(options: KafkaOptions) -> AsyncIterator[Open]:
    """Opens brokers on the shared Kafka, or on that of a URL."""
    opened: list[KafkaBroker] = []

    async def open(url: str | KafkaOptions | None = None, shard_map: ShardMap | None = None) -> KafkaBroker:
        broker = await KafkaBroker.open(url or options, shard_map)
        opened.append(broker)
        return broker

    yield open
    for broker in opened:
        await broker.close()


async def committed(options: KafkaOptions, group: str, topic: str, partition: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=list(options.servers))
    await admin.start()
    try:
        tp = TopicPartition(f"{options.prefix}.{topic}", partition)
        found = await admin.list_consumer_group_offsets(f"{options.prefix}.{group}", partitions=[tp])
        return int(found[tp].offset)
    finally:
        await admin.close()


async def eventually_published(broker: KafkaBroker, messages: list[Outgoing]) -> int:
    """Publish as an outbox does, again and again; how often Kafka was away."""
    for failures in count():
        try:
            await broker.publish(messages)
            return failures
        except BrokerUnavailable:
            await asyncio.sleep(0.1)
    raise AssertionError


# offsets


async def test_a_slow_message_does_not_let_the_committed_offset_pass_it(open: Open, options: KafkaOptions) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory")
    for number in range(10):
        await broker.publish(numbered(STOCK, [number]))
    slow, *quick = await receive(consumer, 10)
    await consumer.ack(quick)
    where = ("service.inventory", "packs.inventory", PARTITION)
    assert await committed(options, *where) == 0
    await consumer.ack([slow])
    assert await committed(options, *where) == 10


async def test_what_was_acknowledged_behind_a_slow_message_stays_so_when_the_process_dies(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    url = f"{private_kafka().url}?session_timeout_s=1.5&partitions=4"
    broker = await open(url)
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(300)))
    got = await receive(consumer, 200)
    await consumer.ack(got[1:50] + got[60:])
    # as a dead process would: no commit, no leave
    consumer._reader._client._coordinator.generation = -1
    consumer._reader.partitions.clear()
    other = await (await open(url)).consume_service("inventory")
    again = await receive(other, 111)
    assert ids(again) == ["0", *map(str, range(50, 60)), *map(str, range(200, 300))]
    assert {delivery.deliveries for delivery in again[:11]} == {2}


async def test_a_long_pause_of_the_receiver_leaves_the_group_in_peace(open: Open) -> None:
    """More waits than is read ahead; everything comes, once, in order."""
    broker = await open()
    consumer = await broker.consume_service("inventory", prefetch=50)
    for start in range(0, 6000, 500):
        await broker.publish(numbered(STOCK, range(start, start + 500)))
    got: list[str] = []
    while len(got) < 6000:
        batch = await receive(consumer, 50)
        got += ids(batch)
        await consumer.ack(batch)
    assert got == [str(n) for n in range(6000)]


async def test_no_more_is_read_ahead_than_will_be_handed_out_soon(open: Open) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory", prefetch=10)
    large = [
        Outgoing(STOCK, replace(one.envelope, data=b'"%s"' % (b"x" * 2000))) for one in numbered(STOCK, range(500))
    ]
    for _ in range(12):
        await broker.publish(large)
    partition = consumer._reader.partitions[TopicPartition(f"{broker.options.prefix}.packs.inventory", PARTITION)]
    async with asyncio.timeout(GUARD_S):
        while not partition.paused:
            await asyncio.sleep(0.01)
    assert len(partition.waiting) < 3000
    got = 0
    while got < 6000:
        batch = await receive(consumer, 10)
        got += len(batch)
        await consumer.ack(batch)


async def test_an_operator_can_see_how_far_a_consumer_is_behind(open: Open, capsys: pytest.CaptureFixture[str]) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory", prefetch=10)
    assert await consumer.lag(time.time()) == Lag()
    for start in range(0, 3000, 10):
        await broker.publish(numbered(STOCK, range(start, start + 10)))
    got = await receive(consumer, 10)
    now = time.time()
    lag = await consumer.lag(now + 60)
    assert lag.in_hand == 10
    assert lag.waiting + 10 * lag.unread == 2990
    assert 60 <= lag.oldest_s < 60 + GUARD_S
    assert lag.oldest_at == f"{broker.options.prefix}.packs.inventory/{PARTITION}/0"
    for later in (0, 60, 90, 130):
        await consumer.report_lag(now + later)
    said = capsys.readouterr().out
    assert said.count("a consumer is behind") == 2
    assert f"{PARTITION}/0" in said
    await consumer.ack(got)
    while (left := await consumer.lag(now)).waiting or left.unread:
        await consumer.ack(await consumer.receive())
    await consumer.report_lag(now + 140)
    assert "a consumer has caught up" in capsys.readouterr().out


# sharing


async def test_a_member_that_joins_takes_only_the_surplus_and_what_stays_stays_in_hand(open: Open) -> None:
    shares = Shares(3)
    members = [await (await open()).consume_shards(shares[i]) for i in range(2)]
    await shares.until(4, 4, 0)
    before = shares.held[:2]
    broker = await open()
    await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
    in_hand = [await receive(member, 4) for member in members]
    third = await broker.consume_shards(shares[2])
    await shares.until(3, 3, 2)
    assert all(after < had for after, had in zip(shares.held[:2], before, strict=True))
    assert ordered(await receive(third, 2)) == sorted(str(shard) for shard in shares.held[2])
    for member, deliveries in zip(members, in_hand, strict=True):
        await member.ack(deliveries)
    await broker.publish([message(slot_address(shard * 128), f"1{shard}") for shard in range(8)])
    for member, held in zip(members, shares.held, strict=False):
        assert ordered(await receive(member, 3)) == [f"1{shard}" for shard in sorted(held)]


async def test_a_handover_waits_for_what_is_in_hand(open: Open, options: KafkaOptions) -> None:
    patient = replace(options, drain_s=GUARD_S)
    shares = Shares(2)
    first = await (await open(patient)).consume_shards(shares[0])
    broker = await open(patient)
    await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
    got = await receive(first, 8)
    joining = asyncio.create_task(broker.consume_shards(shares[1]))
    while not first._reader.resting:
        await asyncio.sleep(0.01)
    await first.ack(got)
    second = await joining
    await shares.until(4, 4)
    await broker.publish([message(slot_address(shard * 128), f"1{shard}") for shard in range(8)])
    assert ordered(await receive(second, 4)) == [f"1{shard}" for shard in sorted(shares.held[1])]


@pytest.mark.slow
async def test_messages_of_a_killed_process_go_to_others(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    url = f"{private_kafka().url}?session_timeout_s=1.5&partitions=4"
    broker = await open(url)
    await broker.publish(numbered(STOCK, range(20)))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.kafka_child", url, "20", cwd=ROOT, stdout=PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(GUARD_S):
        taken = json.loads(await child.stdout.readline())
    child.kill()
    await child.wait()
    killed = time.monotonic()
    got = await receive(await broker.consume_service("inventory"), 20)
    assert ids(got) == taken == [str(n) for n in range(20)]
    assert time.monotonic() - killed < 10


# outages


@pytest.mark.slow
async def test_nothing_that_was_published_is_lost_when_kafka_is_killed_in_the_middle(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    kafka = private_kafka(config=QUICK)
    url = f"{kafka.url}?session_timeout_s=3&partitions=4&publish_timeout_s=5"
    publisher, receiver = await open(url), await open(url)
    consumer = await receiver.consume_service("inventory")
    client = await receiver.consume_client("c1")
    await receiver.subscribe("one", ["placed.v1"])
    published: set[str] = set()
    got: set[str] = set()
    noticed = asyncio.Event()
    stop = asyncio.Event()

    async def publish() -> None:
        for start in count(step=20):
            batch = numbered(STOCK, range(start, start + 20))
            if await eventually_published(publisher, batch):
                noticed.set()
            published.update(m.envelope.id for m in batch)
            if stop.is_set():
                return

    async def consume() -> None:
        while not (stop.is_set() and publishing.done() and published <= got):
            try:
                batch = await consumer.receive()
                got.update(ids(batch))
                await consumer.ack(batch)
            except BrokerUnavailable:
                noticed.set()

    publishing = asyncio.create_task(publish())
    consuming = asyncio.create_task(consume())
    async with asyncio.timeout(90):
        while len(got) < 500:
            await asyncio.sleep(0.01)
        kafka.kill()
        await noticed.wait()
        before = len(published)
        await asyncio.to_thread(kafka.restart)
        while len(published) < before + 500:
            await asyncio.sleep(0.01)
        stop.set()
        await publishing
        # so that the consumer has something to see that it is done by
        await eventually_published(publisher, [message(STOCK)])
        await consuming
        assert published <= got
        await eventually_published(publisher, [message(client_address("c1"), "still there")])
        assert ids(await receive(client, 1)) == ["still there"]
        again = await receiver.subscribe("one", ["placed.v1"])
        await eventually_published(publisher, [message(topic_address("placed.v1"), "event")])
        assert ids(await receive(again, 1)) == ["event"]


@pytest.mark.slow
async def test_when_kafka_hangs_everyone_is_told_and_goes_on_afterwards(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    kafka = private_kafka()
    broker = await open(f"{kafka.url}?session_timeout_s=3&partitions=4&publish_timeout_s=2")
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(3)))
    got = await receive(consumer, 3)
    kafka.pause()
    try:
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            async with asyncio.timeout(GUARD_S):
                await broker.publish([message(STOCK, "meanwhile")])
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            async with asyncio.timeout(GUARD_S):
                await consumer.receive()
    finally:
        kafka.resume()
    await eventually_published(broker, [message(STOCK, "after")])
    seen: set[str] = set()
    async with asyncio.timeout(60):
        while "after" not in seen:
            try:
                await consumer.ack(got)
                got = list(await consumer.receive())
                seen.update(ids(got))
            except BrokerUnavailable:
                got = []


@pytest.mark.slow
async def test_closing_in_an_outage_leaves_nothing_running(
    private_kafka: Callable[..., PrivateKafka], open: Open
) -> None:
    kafka = private_kafka()
    before = asyncio.all_tasks()
    broker = await open(f"{kafka.url}?session_timeout_s=3")
    consumers = [await broker.consume_service("inventory"), await broker.consume_client("c1")]
    consumers.append(await broker.consume_shards(Shares()[0]))
    await broker.publish(numbered(STOCK, range(10)))
    await receive(consumers[0], 5)
    kafka.kill()
    with pytest.raises(BrokerUnavailable):
        async with asyncio.timeout(GUARD_S):
            await consumers[1].receive()
    with pytest.raises(BrokerUnavailable):
        await broker.consume_service("payments")
    async with asyncio.timeout(GUARD_S):
        await broker.close()
    assert asyncio.all_tasks() == before


async def test_a_producer_that_is_out_of_step_is_replaced_and_the_messages_are_sent_again(open: Open) -> None:
    broker = await open()
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(3)))
    line: Any = broker._publisher._line
    tp = TopicPartition(f"{broker.options.prefix}.packs.inventory", PARTITION)
    # as after a batch that the producer counted and Kafka did not
    line.producer._txn_manager.increment_sequence_number(tp, 7)
    await broker.publish(numbered(STOCK, range(3, 6)))
    assert broker._publisher._line is not line
    assert ids(await receive(consumer, 6)) == [str(n) for n in range(6)]


# refusals


async def test_a_message_that_is_too_large_is_refused_before_any_is_sent(open: Open, options: KafkaOptions) -> None:
    broker = await open(replace(options, max_message_bytes=10_000))
    consumer = await broker.consume_service("inventory")
    small, large = message(STOCK, "small"), message(STOCK, "large")
    large = Outgoing(STOCK, replace(large.envelope, data=b"x" * 10_000))
    with pytest.raises(MessageTooLarge, match="10000 are allowed") as caught:
        await broker.publish([small, large])
    assert caught.value.limit == 10_000
    fits = Outgoing(STOCK, replace(large.envelope, data=b"x" * 9_000))
    await broker.publish([fits])
    assert ids(await receive(consumer, 1)) == ["large"]


async def test_another_shard_map_is_refused(open: Open) -> None:
    await open(shard_map=ShardMap(4))
    with pytest.raises(UsageError, match="set up with 4 shards"):
        await open(shard_map=ShardMap(8))
    with pytest.raises(UsageError, match="map version 1"):
        await open(shard_map=ShardMap(4, version=2))


async def test_a_compacted_topic_is_refused(open: Open, options: KafkaOptions) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=list(options.servers))
    await admin.start()
    topic = f"{options.prefix}.service.inventory"
    await admin.create_topics([NewTopic(topic, 4, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    broker = await open()
    with pytest.raises(UsageError, match=rf"{topic} has cleanup.policy=compact.*Set it to delete"):
        await broker.publish([message(STOCK)])


async def test_kafka_is_told_to_remember_groups_as_long_as_messages(
    open: Open, options: KafkaOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    await open()
    assert "offsets.retention.minutes" not in capsys.readouterr().out
    await open(replace(options, retention_s=30 * 86_400.0))
    assert "Raise offsets.retention.minutes, or lower retention_s" in capsys.readouterr().out


async def test_a_kafka_that_is_not_there_is_told_in_plain_words() -> None:
    with pytest.raises(BrokerUnavailable, match=r"Kafka at 127\.0\.0\.1:1 cannot be reached"):
        await KafkaBroker.open("kafka://127.0.0.1:1")


class GuardedKafka(PrivateKafka):
    """Its users are `admin`, who may do everything, and `reader`, who may nothing; the passwords are the names."""

    def __init__(self) -> None:
        super().__init__()
        hosts = f"SASL://localhost:{self.port},PLAINTEXT://localhost:{free_port()}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        self._config = {
            "listeners": f"{hosts},CONTROLLER://localhost:{self._controller_port}",
            "advertised.listeners": hosts,
            "listener.security.protocol.map": "SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": f'{module} user_admin="admin" user_reader="reader";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
        }


@pytest.fixture
def guarded_kafka() -> Iterator[GuardedKafka]:
    with ExitStack() as stack:
        yield _private(stack, GuardedKafka)


@pytest.mark.slow
async def test_wrong_passwords_and_missing_rights_are_told_in_plain_words(
    guarded_kafka: GuardedKafka, open: Open
) -> None:
    port = guarded_kafka.port
    with pytest.raises(BrokerUnavailable, match=r"as user 'admin' refuses user or password.*Check the URL") as told:
        await open(f"kafka://admin:wr0ng@127.0.0.1:{port}")
    assert "wr0ng" not in str(told.value)
    with pytest.raises(BrokerUnavailable, match=r"as user 'reader' gives no right to topic.*Grant it"):
        await open(f"kafka://reader:reader@127.0.0.1:{port}")
    broker = await open(f"kafka://admin:admin@127.0.0.1:{port}")
    consumer = await broker.consume_service("inventory")
    await broker.publish([message(STOCK, "m")])
    assert ids(await receive(consumer, 1)) == ["m"]
    with pytest.raises(BrokerUnavailable, match="gives no right to topic"):
        await open(f"kafka://reader:reader@127.0.0.1:{port}")
