"""Another process on Kafka, for `test_kafka_faults.py`: takes so many messages, acknowledges none, and stays.

`kafka_child.py URL NUMBER` writes their ids as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.contract.broker import ids, receive

from amends.brokers.kafka import KafkaBroker


async def main(url: str, number: int) -> None:
    broker = await KafkaBroker.open(url)
    consumer = await broker.consume_service("inventory")
    print(json.dumps(ids(await receive(consumer, number))), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
