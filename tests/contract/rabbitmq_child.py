"""A program of its own on the RabbitMQ broker: takes shards, or the commands of a service, and keeps what it gets.

`rabbitmq_child.py URL NAMESPACE shards|SERVICE`, prints `holds N` and `got ID` lines, and never acknowledges.
"""

from __future__ import annotations

import asyncio
import sys

from amends.brokers.rabbitmq import RabbitmqBroker


async def main(url: str, namespace: str, what: str) -> None:
    broker = await RabbitmqBroker.open(url, namespace=namespace)
    if what == "shards":
        consumer = await broker.consume_shards(lambda shards: print("holds", len(shards), flush=True))
    else:
        consumer = await broker.consume_service(what)
        print("ready", flush=True)
    while True:
        for delivery in await consumer.receive():
            print("got", delivery.envelope.id if delivery.envelope else "?", flush=True)


asyncio.run(main(*sys.argv[1:]))
