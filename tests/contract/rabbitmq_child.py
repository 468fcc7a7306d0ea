"""A program of its own on the RabbitMQ broker: takes shards, or the commands of a service, and keeps what it gets.

`rabbitmq_child.py URL NAMESPACE shards|SERVICE [NUMBER]` prints `ready`, `holds N` and `got ID` lines. It acknowledges
the first NUMBER messages, prints `acked NUMBER`, and acknowledges no others. With `blind` for NUMBER it never
looks at what is sent ahead to it.
"""

from __future__ import annotations

import asyncio
import sys

from amends.brokers.rabbitmq import RabbitmqBroker


async def main(url: str, namespace: str, what: str, number: str = "0") -> None:
    broker = await RabbitmqBroker.open(url, namespace=namespace)
    if what == "shards":
        consumer = await broker.consume_shards(lambda shards: print("holds", len(shards), flush=True))
    else:
        consumer = await broker.consume_service(what)
    await consumer.open()
    print("ready", flush=True)
    if number == "blind":
        await asyncio.Event().wait()
    left = int(number)
    while left:
        deliveries = await consumer.receive(left)
        await consumer.ack(deliveries)
        left -= len(deliveries)
        if not left:
            # an answer to a request: by then the acknowledgements have arrived, too
            await broker.dead_letters()
            print("acked", number, flush=True)
    while True:
        for delivery in await consumer.receive():
            print("got", delivery.envelope.id if delivery.envelope else "?", flush=True)


asyncio.run(main(*sys.argv[1:]))
