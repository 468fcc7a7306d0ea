"""What a program without our library sees at RabbitMQ, and what it may send there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from tests.contract.broker import STOCK, Shares, envelope, ids, message, receive
from tests.support.rabbitmq import Rabbit, worker

from amends.brokers import Outgoing
from amends.brokers.rabbitmq import RabbitmqBroker
from amends.contracts.names import topic_address


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> Rabbit:
    found = Rabbit(rabbitmq_url, f"wire-{worker()}")
    await found.empty()
    return found


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[RabbitmqBroker]:
    broker = await RabbitmqBroker.open(rabbit.url, namespace=rabbit.namespace)
    yield broker
    await broker.close()


@pytest.fixture
async def stranger(rabbit: Rabbit) -> AsyncIterator[AbstractChannel]:
    connection = await aiormq.connect(rabbit.url)
    yield await connection.channel()
    await connection.close()


HEADERS: dict[str, Any] = {
    "cloudEvents:specversion": "1.0",
    "cloudEvents:id": "from-a-stranger",
    "cloudEvents:amendskind": "reply",
    "cloudEvents:type": "inventory.stock-reserved.v1",
    "cloudEvents:source": "elsewhere",
    "cloudEvents:subject": "order-1",
    "cloudEvents:revision": 3,
}


async def test_a_stranger_can_read_a_command(rabbit: Rabbit, broker: RabbitmqBroker, stranger: AbstractChannel) -> None:
    await broker.publish([Outgoing(STOCK, envelope("m1"))])
    message = await stranger.basic_get(rabbit.name("service.inventory"))
    properties = message.header.properties
    assert message.body == b"{}"
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert properties.headers is not None
    told = {name: value for name, value in properties.headers.items() if name.startswith("cloudEvents:")}
    assert told == {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "m1",
        "cloudEvents:amendskind": "command",
        "cloudEvents:type": "inventory.reserve-stock.v1",
        "cloudEvents:source": "test",
        "cloudEvents:subject": "order-1",
        "cloudEvents:time": "2026-01-01T12:00:00.250000Z",
        "cloudEvents:revision": "0",
        "cloudEvents:attempt": "0",
        "cloudEvents:sagaversion": "0",
    }


async def test_a_stranger_can_answer_to_a_slot(
    rabbit: Rabbit, broker: RabbitmqBroker, stranger: AbstractChannel
) -> None:
    properties = Basic.Properties(headers=dict(HEADERS), content_type="application/json", delivery_mode=2)
    for slot in (0, 413, 1023):
        await stranger.basic_publish(
            b"{}",
            exchange=rabbit.name("slots"),
            routing_key=f"slot:{slot:04d}",
            properties=properties,
            mandatory=True,
        )
    got = await receive(await broker.consume_shards(Shares()[0]), 3)
    assert ids(got) == ["from-a-stranger"] * 3
    assert {d.envelope.revision for d in got if d.envelope} == {3}


async def test_a_stranger_can_publish_and_receive_events(
    rabbit: Rabbit, broker: RabbitmqBroker, stranger: AbstractChannel
) -> None:
    ours = await broker.subscribe("one", ["placed.v1"])
    theirs = (await stranger.queue_declare(exclusive=True)).queue
    assert theirs is not None
    await stranger.queue_bind(theirs, rabbit.name("events"), "placed.v1")
    properties = Basic.Properties(headers=dict(HEADERS), delivery_mode=2)
    await stranger.basic_publish(b"", exchange=rabbit.name("events"), routing_key="placed.v1", properties=properties)
    assert ids(await receive(ours, 1)) == ["from-a-stranger"]
    await broker.publish([message(topic_address("placed.v1"), "ours")])
    bodies = [await stranger.basic_get(theirs), await stranger.basic_get(theirs)]
    told = [body.header.properties.headers for body in bodies]
    assert [headers["cloudEvents:id"] for headers in told if headers] == ["from-a-stranger", "ours"]
