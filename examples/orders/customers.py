"""The side of the callers: orders are placed, parcels carried, and every order is seen to where it comes to rest.

Callers have outages, too: the broker, the store, all coordinators may be away for a while. Whatever is asked of amends
here may be asked again: an order is placed once by its id, an event is heard once by its id, a cancelled saga stays so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from tenacity import retry, retry_if_exception_type, wait_random_exponential

from amends.contracts import Event, TransientError
from amends.coordinator import Handle, SagaClient
from amends.coordinator.client import Refused

from .home import broker_url, store_url
from .saga import PlaceOrder
from .status import status_of
from .world import Ending, Order

AT_ONCE = 200
"""How many orders are on their way to the coordinators at a time."""

ANSWER_S = 5.0
"""How long a coordinator may take to answer before it is asked again."""

LOOK_S = 0.25
PATIENCE_S = 60.0
"""How long nothing at all may happen before we give up waiting."""

patiently = retry(retry=retry_if_exception_type(TransientError), wait=wait_random_exponential(0.1, max=2.0))
"""Asks again until there is an answer: a `TransientError` is one that passes."""


class Watcher(Protocol):
    """Who wants to know how far we are; `before` an order is placed it may be held back."""

    async def before(self, order: Order) -> None: ...

    def placed(self, order: Order) -> None: ...

    def at_rest(self, order: Order) -> None: ...


@asynccontextmanager
async def connected(home: Path) -> AsyncIterator[SagaClient]:
    """A client, once broker and store are there."""
    client = await _connect(home)
    try:
        yield client
    finally:
        await client.__aexit__()


@patiently
async def _connect(home: Path) -> SagaClient:
    return await SagaClient(broker=broker_url(home), store=store_url(home), timeout=ANSWER_S).__aenter__()


async def trade(
    sagas: SagaClient,
    orders: Sequence[Order],
    watcher: Watcher,
    *,
    patience_s: float = PATIENCE_S,
) -> None:
    """Place the orders; return when each is where it must end, or has ended elsewhere, or nothing happens any more."""
    waiting = iter(orders)
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s) as patience, asyncio.TaskGroup() as group:

            async def place(waiting: Iterator[Order]) -> None:
                for order in waiting:
                    await watcher.before(order)
                    handle = await _place(sagas, order)
                    watcher.placed(order)
                    group.create_task(see_through(order, handle))

            async def see_through(order: Order, handle: Handle[PlaceOrder]) -> None:
                await _come_to_rest(sagas, order, handle)
                watcher.at_rest(order)
                patience.reschedule(asyncio.get_running_loop().time() + patience_s)

            for _ in range(AT_ONCE):
                group.create_task(place(waiting))


async def _place(sagas: SagaClient, order: Order) -> Handle[PlaceOrder]:
    handle = await _start(sagas, order)
    # from here on events find the saga, even if it is not yet at the step that waits for them
    for number, event in enumerate(order.events):
        await _publish(sagas, order, event, number)
    return handle


@patiently
async def _start(sagas: SagaClient, order: Order) -> Handle[PlaceOrder]:
    return await sagas.start(order.saga, id=order.id)


@patiently
async def _publish(sagas: SagaClient, order: Order, event: Event, number: int) -> None:
    await sagas.publish(event, id=f"{order.id}/event-{number}", subject=order.saga.order_id)


@patiently
async def _come_to_rest(sagas: SagaClient, order: Order, handle: Handle[PlaceOrder]) -> None:
    if order.ending in (Ending.AT_HANDED_OVER, Ending.AT_DELIVERED):
        await _reach(sagas, order, order.ending)
        return
    if order.ending is Ending.WITHDRAWN and await _reach(sagas, order, Ending.AT_HANDED_OVER):
        with suppress(Refused):  # it goes back already, as when we said so before and never heard the answer
            await handle.cancel("the customer changed their mind")
    await handle.result()


async def _reach(sagas: SagaClient, order: Order, ending: Ending) -> bool:
    """Look now and then until the order is there. False if it will never be: it has ended, or is stuck."""
    while True:
        status = status_of(await sagas.snapshot(order.id))
        if status.where == ending or status.final:
            return status.where == ending
        await asyncio.sleep(LOOK_S)
