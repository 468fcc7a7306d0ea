"""Load for a running coordinator: as much as it takes, or a little at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import msgspec

from amends.brokers import Broker, Outgoing
from amends.contracts import JSON, Kind
from amends.contracts.payloads import Start
from amends.coordinator import SagaClient
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import SagaQuery, SagaStore
from amends.coordinator.wire import word
from benchmarks.order import order

_AT_ONCE: Final = 256
_IN_FLIGHT: Final = 2048
_LOOK_S: Final = 0.05

_numbers = count()


def start_message(number: int) -> Outgoing:
    """A start to which nobody expects an answer."""
    data = JSON.encode(Start("place-order", msgspec.Raw(JSON.encode(order(number)))))
    return word(
        f"order-{number:06d}",
        Kind.START,
        Start.__tag__,
        data,
        f"start-{number:06d}",
        datetime.now(UTC),
        source="/benchmarks",
        partition_key=f"order-{number:06d}",
    )


async def ended(store: SagaStore) -> int:
    """How many sagas have ended."""
    return sum([await store.count(SagaQuery(phase=phase)) for phase in (Phase.COMPLETED, Phase.COMPENSATED)])


async def saturate(broker: Broker, store: SagaStore, sagas: int, look_s: float = _LOOK_S) -> None:
    """Start that many sagas, as fast as they go, and wait until the last one has ended."""

    async def start(count: int) -> None:
        await broker.publish([start_message(next(_numbers)) for _ in range(count)])

    await drive(start, store, sagas, look_s)


async def drive(start: Callable[[int], Awaitable[None]], store: SagaStore, sagas: int, look_s: float = _LOOK_S) -> None:
    """`saturate`, by any way of starting several sagas. Looking costs the store something: it is done every `look_s`
    seconds, for the last thousand twice as often."""
    before = await ended(store)
    started = done = 0
    while done < sagas:
        while started < sagas and started - done < _IN_FLIGHT:
            batch = min(_AT_ONCE, sagas - started)
            await start(batch)
            started += batch
        await asyncio.sleep(look_s if sagas - done > _IN_FLIGHT / 2 else look_s / 2)
        done = await ended(store) - before


async def trickle(sagas: SagaClient, count: int, per_second: float) -> list[float]:
    """Start sagas at even intervals; the seconds from asking for each to the word of its end."""

    async def one() -> float:
        number = next(_numbers)
        begun = time.perf_counter()
        await sagas.run(order(number), id=f"order-{number:06d}")
        return time.perf_counter() - begun

    return await evenly(one, count, per_second)


async def evenly(one: Callable[[], Coroutine[Any, Any, float]], count: int, per_second: float) -> list[float]:
    """Begin that many at even intervals, however long each takes, and give what they give."""
    begun = time.perf_counter()
    running = []
    for place in range(count):
        await asyncio.sleep(max(0.0, begun + place / per_second - time.perf_counter()))
        running.append(asyncio.create_task(one()))
    return await asyncio.gather(*running)
