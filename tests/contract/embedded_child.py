"""Another process at the file of an embedded broker, for `test_embedded_processes.py`.

It does what it is told on standard input, one JSON list a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.contract.broker import Shares, ids, numbered, receive

from amends.brokers import Consumer, Delivery, EmbeddedBroker
from amends.contracts.names import client_address


class Child:
    """`held` are the deliveries that were taken and not acknowledged."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.consumers: dict[str, Consumer] = {}
        self.held: list[Delivery] = []
        self.echoing: asyncio.Task[None] | None = None
        self.shares = Shares()

    async def consume(self, name: str) -> None:
        kind, _, rest = name.partition(":")
        if kind == "shards":
            self.consumers[name] = await self.broker.consume_shards(self.shares[0])
        elif kind == "client":
            self.consumers[name] = await self.broker.consume_client(rest)
        else:
            self.consumers[name] = await self.broker.consume_service(rest, prefetch=20)

    async def shards(self, number: int) -> None:
        await self.shares.until(number)

    async def take(self, name: str, number: int) -> list[str]:
        self.held = await receive(self.consumers[name], number)
        return ids(self.held)

    async def deliveries(self) -> list[int]:
        return [delivery.deliveries for delivery in self.held]

    async def ack(self, name: str) -> None:
        await self.consumers[name].ack(self.held)

    async def publish(self, address: str, *numbers: int) -> None:
        await self.broker.publish(numbered(address, numbers))

    async def echo(self, name: str, client: str) -> None:
        """From now on, answer each message with one of the same id to a client, and acknowledge it."""
        consumer = self.consumers[name]

        async def run() -> None:
            while True:
                deliveries = await consumer.receive(10)
                await self.publish(client_address(client), *map(int, ids(deliveries)))
                await consumer.ack(deliveries)

        self.echoing = asyncio.create_task(run())


async def main(path: str, lease_s: float) -> None:
    child = Child(await EmbeddedBroker.open(path, lease_s=lease_s))
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    while line := await lines.readline():
        order: list[Any] = json.loads(line)
        print(json.dumps(await getattr(child, order[0])(*order[1:])), flush=True)
    await child.broker.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
