"""amends as separate processes: `python -m benchmarks.servers.product coordinator|participant|load BROKER REDIS`."""

from __future__ import annotations

import sys
from typing import Final

from amends.brokers import connect_broker
from amends.coordinator import Coordinator, SagaClient
from amends.coordinator.cli.runner import run
from amends.coordinator.stores import connect_store
from benchmarks.load import saturate, trickle
from benchmarks.measures import Measure, Stopwatch, latency
from benchmarks.order import PlaceOrder, shop_with_claims
from benchmarks.servers.parts import LOOK_S, quiet, serve


async def coordinator(broker: str, redis: str) -> None:
    async with Coordinator([PlaceOrder], broker=broker, store=redis).running():
        await serve()


async def participant(broker: str, redis: str) -> None:
    async with shop_with_claims().running(broker, inbox=redis):
        await serve()


async def load(broker: str, redis: str) -> None:
    """Answers `saturate`, sagas; and `trickle`, sagas, how many per second."""
    carrier, store = await connect_broker(broker), await connect_store(redis)
    try:
        async with SagaClient(broker=carrier, store=store) as client:

            async def answer(what: str, sagas: int, per_second: float = 0.0) -> Measure:
                if what == "trickle":
                    return latency(await trickle(client, sagas, per_second))
                with Stopwatch() as watch:
                    await saturate(carrier, store, sagas, LOOK_S)
                return watch.measure(sagas)

            await serve(answer)
    finally:
        await store.close()
        await carrier.close()


ROLES: Final = {"coordinator": coordinator, "participant": participant, "load": load}

if __name__ == "__main__":
    quiet()
    role, broker_url, redis_url = sys.argv[1:]
    run(ROLES[role](broker_url, redis_url))
