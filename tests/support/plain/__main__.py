"""`python -m tests.support.plain BROKER URL NAMESPACE serve DB [POINT:NUMBER]` is the payments service; it kills itself
with -9 when it reaches a point for the so-manieth time. `… call ORDERS` trades the orders of a file of JSON, and prints
what it was told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tests.support.plain.caller import Caller, Order
from tests.support.plain.participant import Payments, serve


def connected(broker: str, url: str, namespace: str) -> AbstractAsyncContextManager[Any]:
    if broker == "rabbitmq":
        from tests.support.plain.rabbitmq import Rabbitmq

        return Rabbitmq.connected(url, namespace)
    from tests.support.plain.kafka import Kafka

    return Kafka.connected(url, namespace)


def dying(at: str) -> Callable[[str], None]:
    """What kills this process at a point such as `commit:3`."""
    point, _, number = at.partition(":")
    reached: Counter[str] = Counter()

    def reach(here: str) -> None:
        reached[here] += 1
        if here == point and reached[here] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


async def call(place: AbstractAsyncContextManager[Any], orders: list[Order]) -> None:
    async with place as transport:
        print(json.dumps(await Caller(transport).trade(orders)), flush=True)


async def work(place: AbstractAsyncContextManager[Any], payments: Payments) -> None:
    async with place as transport:
        await serve(transport, payments)


def main(broker: str, url: str, namespace: str, what: str, file: str, die_at: str = "") -> None:
    place = connected(broker, url, namespace)
    if what == "call":
        asyncio.run(call(place, json.loads(Path(file).read_text("utf-8"))))
    else:
        asyncio.run(work(place, Payments(file, dying(die_at))))


if __name__ == "__main__":
    main(*sys.argv[1:])
