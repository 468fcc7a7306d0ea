"""The RabbitMQ broker when things go wrong: servers killed, connections cut, processes gone, rights missing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.contract.broker import GUARD_S, STOCK, Shares, ids, message, numbered, ordered, receive
from tests.support.proxy import Proxy
from tests.support.rabbitmq import Rabbit, worker
from tests.support.servers import PrivateRabbitmq
from yarl import URL

from amends.brokers import BrokerUnavailable, Consumer, ShardMap
from amends.brokers.rabbitmq import RabbitmqBroker
from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.problems import Server
from amends.brokers.rabbitmq.publisher import Publisher
from amends.brokers.rabbitmq.wire import Parcel
from amends.contracts import UsageError
from amends.contracts.names import client_address, service_address, slot_address, topic_address

CHILD = Path(__file__).with_name("rabbitmq_child.py")
RESTART_S = 90.0


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> Rabbit:
    found = Rabbit(rabbitmq_url, f"faults-{worker()}")
    await found.empty()
    return found


@asynccontextmanager
async def opened(rabbit: Rabbit, url: str | None = None) -> AsyncIterator[RabbitmqBroker]:
    broker = await RabbitmqBroker.open(url or rabbit.url, namespace=rabbit.namespace)
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[RabbitmqBroker]:
    async with opened(rabbit) as broker:
        yield broker


@asynccontextmanager
async def child(rabbit: Rabbit, what: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), rabbit.url, rabbit.namespace, what, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process, wanted: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_S):
        while (said := (await process.stdout.readline()).decode().strip()) != wanted:
            assert said, "the child has ended"


# the server


@pytest.mark.slow
async def test_what_was_confirmed_survives_a_killed_server_and_everything_arrives(
    private_rabbitmq: Callable[..., PrivateRabbitmq],
) -> None:
    server = private_rabbitmq()
    broker = await RabbitmqBroker.open(server.url)
    other = await RabbitmqBroker.open(server.url)
    consumers = [await b.consume_service("inventory") for b in (broker, other)]
    shards = await other.consume_shards(Shares()[0])
    await asyncio.to_thread(server.until_saved)
    up = asyncio.Event()
    up.set()
    count = 5_000
    got: set[str] = set()
    complete = asyncio.Event()

    async def publish() -> None:
        for start in range(0, count, 50):
            batch = [
                message(STOCK if number % 2 else slot_address(number % 1024), str(number))
                for number in range(start, start + 50)
            ]
            while True:
                try:
                    await broker.publish(batch)
                    break
                except BrokerUnavailable:
                    await up.wait()
            if start == 2_000:
                killed.set()

    async def consume(consumer: Consumer) -> None:
        while True:
            try:
                deliveries = await consumer.receive()
                await consumer.ack(deliveries)
            except BrokerUnavailable:
                await up.wait()
                continue
            got.update(ids(deliveries))
            if len(got) == count:
                complete.set()

    killed = asyncio.Event()
    tasks = [asyncio.create_task(consume(consumer)) for consumer in (*consumers, shards)]
    publishing = asyncio.create_task(publish())
    async with asyncio.timeout(RESTART_S):
        await killed.wait()
        up.clear()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        up.set()
        await publishing
        await complete.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await broker.close()
    await other.close()
    assert got == {str(number) for number in range(count)}


@pytest.mark.slow
async def test_an_outage_is_said_in_plain_words_and_ends_by_itself(
    private_rabbitmq: Callable[..., PrivateRabbitmq],
) -> None:
    server = private_rabbitmq()
    broker = await RabbitmqBroker.open(server.url)
    shares = Shares()
    consumer = await broker.consume_service("inventory")
    client = await broker.consume_client("c1")
    subscriber = await broker.subscribe("one", ["placed.v1"])
    shards = await broker.consume_shards(shares[0])
    waiting = asyncio.create_task(consumer.receive())
    await asyncio.to_thread(server.until_saved)
    await asyncio.to_thread(server.kill)
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(BrokerUnavailable, match=r"RabbitMQ at 127.0.0.1:\d+/ cannot be reached"):
            await waiting
        with pytest.raises(BrokerUnavailable):
            await broker.publish([message(STOCK)])
        with pytest.raises(BrokerUnavailable):
            await broker.subscribe("one", ["placed.v1"])
        with pytest.raises(BrokerUnavailable):
            await broker.dead_letters()
    await shares.until(0)
    await asyncio.to_thread(server.start)
    await shares.until(8)
    taking = [asyncio.create_task(receive(c, 1)) for c in (consumer, subscriber, shards)]
    await broker.publish([message(STOCK, "1"), message(topic_address("placed.v1"), "2"), message(slot_address(5), "3")])
    assert [ids(await task) for task in taking] == [["1"], ["2"], ["3"]]
    # its queue is a new one, which is there as soon as the consumer has asked for something
    taking = [asyncio.create_task(receive(client, 1))]
    async with asyncio.timeout(GUARD_S):
        while not taking[0].done():
            await broker.publish([message(client_address("c1"), "4")])
    assert ids(await taking[0]) == ["4"]
    await broker.close()


@pytest.mark.slow
async def test_a_server_that_does_not_confirm_makes_publishing_fail_and_not_hang(
    private_rabbitmq: Callable[..., PrivateRabbitmq],
) -> None:
    server = private_rabbitmq()
    whom = Server("here", "guest", "test.v1")
    link = Link(URL(server.url), whom, "test")
    publisher = Publisher(link, confirm_s=0.5)
    parcel = Parcel("", "nowhere", b"x", {}, "text/plain", mandatory=False)
    assert await publisher.publish([parcel]) == []
    server.pause()
    with pytest.raises(BrokerUnavailable, match=r"has not confirmed 3 messages within 0\.5 s"):
        await publisher.publish([parcel] * 3)
    server.resume()
    assert await publisher.publish([parcel]) == []
    await link.close()


# the connection


async def test_after_a_cut_connection_stale_acknowledgements_are_ignored_and_messages_come_again(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    address = URL(rabbit.url)
    async with Proxy(address.port or 5672) as proxy, opened(rabbit, str(address.with_port(proxy.port))) as distant:
        consumer = await distant.consume_service("inventory")
        for one in numbered(STOCK, range(4)):
            await broker.publish([one])
        got = await receive(consumer, 4)
        await consumer.ack(got[:1])
        # an answer to a request: by then the acknowledgement has arrived, too
        await distant.dead_letters()
        proxy.cut()
        again = await receive(consumer, 3)
        assert [(*ids([d]), d.deliveries) for d in again] == [("1", 2), ("2", 2), ("3", 2)]
        await consumer.ack(got)
        await consumer.release(got)
        await consumer.dead_letter(got[1], "refused", "stale")
        assert await broker.dead_letters() == []
        await consumer.close()
        await consumer.ack(again)
        elsewhere = await broker.consume_service("inventory")
        assert ids(await receive(elsewhere, 3)) == ["1", "2", "3"]


async def test_publishing_goes_on_over_a_new_connection_after_a_cut(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    address = URL(rabbit.url)
    async with Proxy(address.port or 5672) as proxy, opened(rabbit, str(address.with_port(proxy.port))) as distant:
        consumer = await broker.consume_service("inventory")
        await distant.publish([message(STOCK, "1")])
        before = proxy.connections
        proxy.hold()
        hanging = asyncio.create_task(distant.publish([message(STOCK, "2")]))
        while not hanging.done():
            # whichever connection it is just making use of
            proxy.cut()
            await asyncio.sleep(0)
        proxy.let_go()
        with pytest.raises(BrokerUnavailable, match=r"RabbitMQ at"):
            await hanging
        await distant.publish([message(STOCK, "3")])
        assert proxy.connections > before
        got = set(ids(await receive(consumer, 2)))
        assert {"1", "3"} <= got | {"2"}


async def test_a_cancelled_publish_leaves_the_next_ones_in_order(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    consumer = await broker.consume_service("inventory")
    for number in range(30):
        doomed = asyncio.create_task(broker.publish([message(STOCK, f"doomed {number}")] * 3))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.wait({doomed})
        await broker.publish([message(STOCK, str(number))])
    got: list[str] = []
    async with asyncio.timeout(GUARD_S):
        while "29" not in got:
            deliveries = await consumer.receive()
            got += ids(deliveries)
            await consumer.ack(deliveries)
    assert [id for id in got if "doomed" not in id] == [str(number) for number in range(30)]


# processes


@pytest.mark.slow
async def test_what_a_killed_process_had_in_hand_comes_again_at_once(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    async with child(rabbit, "inventory") as process:
        await line(process, "ready")
        await broker.publish(numbered(STOCK, range(20)))
        await line(process, "got 19")
        consumer = await broker.consume_service("inventory")
        process.kill()
        again = await receive(consumer, 20)
    assert (ids(again), {d.deliveries for d in again}) == ([str(n) for n in range(20)], {2})


@pytest.mark.slow
async def test_the_shards_of_a_killed_process_are_taken_over(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    shares = Shares()
    consumer = await broker.consume_shards(shares[0])
    async with child(rabbit, "shards") as process:
        await shares.until(4)
        await broker.publish([message(slot_address(shard * 128), str(shard)) for shard in range(8)])
        mine = ordered(await receive(consumer, 4))
        theirs = next(shard for shard in map(str, range(8)) if shard not in mine)
        await line(process, f"got {theirs}")
        process.kill()
        await shares.until(8)
        again = await receive(consumer, 4)
    assert sorted([*mine, *ids(again)]) == [str(shard) for shard in range(8)]


# what others have done to the broker


async def test_a_process_with_another_shard_map_refuses_to_start(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    for other in (ShardMap(4), ShardMap(8, version=2)):
        with pytest.raises(UsageError, match=r"was set up with 8 shards \(map version 1\)"):
            await RabbitmqBroker.open(rabbit.url, other, namespace=rabbit.namespace)
    async with opened(rabbit) as same:
        assert same.shard_map == ShardMap(8)


async def test_commands_wait_for_a_service_that_never_ran(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    await broker.publish([message(service_address("payments"), "early")])
    async with opened(rabbit) as other:
        assert ids(await receive(await other.consume_service("payments"), 1)) == ["early"]


async def test_queues_that_were_deleted_are_made_again_and_nothing_is_lost(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await broker.publish([message(STOCK, "lost with the queue")])
    await rabbit.delete("service.inventory")
    await rabbit.delete("shard.00")
    await broker.publish([message(STOCK, "1"), message(slot_address(0), "2"), message(STOCK, "3")])
    assert ids(await receive(await broker.consume_service("inventory"), 2)) == ["1", "3"]
    assert ids(await receive(await broker.consume_shards(Shares()[0]), 1)) == ["2"]


async def test_a_consumer_whose_queue_is_deleted_gets_a_new_one(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    consumer = await broker.consume_service("inventory")
    taking = asyncio.create_task(receive(consumer, 1))
    await rabbit.delete("service.inventory")
    async with asyncio.timeout(GUARD_S):
        while await rabbit.count("service.inventory") is None:
            pass
    async with opened(rabbit) as other:
        await other.publish([message(STOCK, "1")])
        assert ids(await taking) == ["1"]


async def test_messages_that_the_broker_refuses_are_not_reported_as_published(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await rabbit.declare(
        "service.inventory", {"x-queue-type": "classic", "x-max-length": 2, "x-overflow": "reject-publish"}
    )
    await broker.publish(numbered(STOCK, range(2)))
    with pytest.raises(BrokerUnavailable, match="refused to store 3 of 3 messages"):
        await broker.publish(numbered(STOCK, range(2, 5)))
    consumer = await broker.consume_service("inventory")
    await consumer.ack(await receive(consumer, 2))
    await broker.publish([message(STOCK, "room again")])
    assert ids(await receive(consumer, 1)) == ["room again"]


# who may not


@pytest.fixture
def refused(rabbitmq_url: str) -> Callable[[str, str, str], str]:
    address = URL(rabbitmq_url)
    return lambda user, password, vhost: str(address.with_user(user).with_password(password).with_path(f"/{vhost}"))


async def test_a_wrong_password_is_said_in_plain_words(refused: Callable[[str, str, str], str]) -> None:
    with pytest.raises(BrokerUnavailable, match=r"refuses the user 'guest': wrong name or password") as caught:
        await RabbitmqBroker.open(refused("guest", "wrong-secret", ""))
    assert "wrong-secret" not in str(caught.value)


async def test_an_unknown_virtual_host_is_said_in_plain_words(refused: Callable[[str, str, str], str]) -> None:
    with pytest.raises(BrokerUnavailable, match=r"/nowhere does not let the user 'guest' in: there is no such"):
        await RabbitmqBroker.open(refused("guest", "guest", "nowhere"))


@pytest.mark.slow
async def test_missing_rights_are_said_in_plain_words(private_rabbitmq: Callable[..., PrivateRabbitmq]) -> None:
    server = private_rabbitmq()
    await (await RabbitmqBroker.open(server.url)).close()
    with pytest.raises(BrokerUnavailable, match=r"the user 'reader' lacks rights: .*Give it configure, write and read"):
        await RabbitmqBroker.open(server.url_of("reader", "reader"))


async def test_a_port_where_nobody_listens_is_said_in_plain_words() -> None:
    with pytest.raises(BrokerUnavailable, match=r"RabbitMQ at 127.0.0.1:1/ cannot be reached"):
        await RabbitmqBroker.open("amqp://127.0.0.1:1/")
