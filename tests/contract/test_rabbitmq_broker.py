"""The RabbitMQ broker passes the suite of the port, on a real server, by either way of using the client library."""

from __future__ import annotations

import pytest
from tests.contract.broker import DurableBrokerContract
from tests.support.rabbitmq import Rabbit, worker

from amends.brokers import Broker
from amends.brokers.rabbitmq import RabbitmqBroker


class RabbitmqContract(DurableBrokerContract):
    counts_the_unseen = True

    bulk: bool
    rabbit: Rabbit

    @pytest.fixture(autouse=True)
    async def _namespace(self, rabbitmq_url: str) -> None:
        self.rabbit = Rabbit(rabbitmq_url, f"contract-{type(self).__name__}-{worker()}")
        await self.rabbit.empty()

    async def open(self) -> Broker:
        return await RabbitmqBroker.open(
            self.rabbit.url,
            namespace=self.rabbit.namespace,
            delivery_limit=self.delivery_limit,
            bulk=self.bulk,
        )

    async def inject(self, service: str, body: bytes) -> None:
        broker = await self.another()
        await (await broker.consume_service(service)).close()
        await self.rabbit.put(f"service.{service}", body)


class TestInBulk(RabbitmqContract):
    bulk = True


class TestOneByOne(RabbitmqContract):
    """By the documented functions of the client library alone."""

    bulk = False
