"""Another process on Kafka, for `test_kafka_packs.py`: acknowledges message after message, and dies of `poison`.

`kafka_handler_child.py URL NUMBER` writes the id of each that it has acknowledged as a line. After so many it stays,
with the rest in hand.
"""

from __future__ import annotations

import asyncio
import os
import sys

from tests.contract.broker import ids

from amends.brokers.kafka import KafkaBroker


async def main(url: str, number: int) -> None:
    broker = await KafkaBroker.open(url)
    consumer = await broker.consume_service("inventory")
    while True:
        for delivery in await consumer.receive():
            if ids([delivery]) == ["poison"]:
                os._exit(9)
            if number:
                await consumer.ack([delivery])
                print(*ids([delivery]), flush=True)
                number -= 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
