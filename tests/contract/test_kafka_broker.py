"""The Kafka broker passes the suite of the port on a real Kafka, and stands what only Kafka does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from uuid import uuid4

import pytest
from tests.contract.broker import DurableBrokerContract

pytest.importorskip("aiokafka")

from aiokafka import AIOKafkaProducer

from amends.brokers import Broker
from amends.brokers.kafka import KafkaBroker, KafkaOptions
from amends.brokers.kafka.topics import delete_installation
from amends.contracts import slot_of
from amends.contracts.names import SLOTS

_tests = count(1)


@pytest.fixture
async def options(kafka_url: str) -> AsyncIterator[KafkaOptions]:
    """An installation of the test's own."""
    query = f"prefix=t{next(_tests)}-{uuid4().hex[:8]}&partitions=4&session_timeout_s=6&drain_s=0.1&delivery_limit=3"
    options = KafkaOptions.parse(f"{kafka_url}?{query}")
    yield options
    await delete_installation(options)


class TestKafkaBroker(DurableBrokerContract):
    competes_by_key = True
    options: KafkaOptions

    @pytest.fixture(autouse=True)
    async def _close_brokers(self, options: KafkaOptions) -> AsyncIterator[None]:
        # before the topics are deleted
        self.options = options
        self._opened = []
        yield
        for broker in self._opened:
            await broker.close()

    async def open(self) -> Broker:
        return await KafkaBroker.open(self.options)

    async def inject(self, service: str, body: bytes) -> None:
        # makes the topic
        await (await self._opened[0].consume_service(service)).close()
        # where the suite's own messages go, so that they come behind it
        partition = slot_of("order-1") * self.options.partitions // SLOTS
        async with AIOKafkaProducer(bootstrap_servers=list(self.options.servers)) as producer:
            await producer.send_and_wait(f"{self.options.prefix}.service.{service}", body, partition=partition)
