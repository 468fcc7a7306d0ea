"""The side of the callers: orders are placed, parcels carried, and every order is seen to where it comes to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from amends.contracts import TransientError
from amends.coordinator import Handle, SagaClient

from .saga import PlaceOrder
from .status import status_of
from .world import Ending, Order

AT_ONCE = 200
"""How many orders are on their way to the coordinators at a time."""

LOOK_S = 0.25
PATIENCE_S = 60.0
"""How long nothing at all may happen before we give up waiting."""


class Watcher(Protocol):
    """Who wants to know how far we are."""

    def placed(self) -> None: ...

    def at_rest(self) -> None: ...


async def trade(sagas: SagaClient, orders: Sequence[Order], watcher: Watcher) -> None:
    """Place the orders; return when each is where it must end, or has ended elsewhere, or nothing happens any more."""
    waiting = iter(orders)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S) as patience, asyncio.TaskGroup() as group:

            async def place(waiting: Iterator[Order]) -> None:
                for order in waiting:
                    handle = await _place(sagas, order)
                    watcher.placed()
                    group.create_task(see_through(order, handle))

            async def see_through(order: Order, handle: Handle[PlaceOrder]) -> None:
                await _come_to_rest(sagas, order, handle)
                watcher.at_rest()
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)

            for _ in range(AT_ONCE):
                group.create_task(place(waiting))


async def _place(sagas: SagaClient, order: Order) -> Handle[PlaceOrder]:
    while True:
        # should all coordinators be down for too long, asking again is safe: by its id, the order is placed only once
        with suppress(TransientError):
            handle = await sagas.start(order.saga, id=order.id)
            break
    # from here on events find the saga, even if it is not yet at the step that waits for them
    for number, event in enumerate(order.events):
        await sagas.publish(event, id=f"{order.id}/event-{number}", subject=order.saga.order_id)
    return handle


async def _come_to_rest(sagas: SagaClient, order: Order, handle: Handle[PlaceOrder]) -> None:
    if order.ending in (Ending.AT_HANDED_OVER, Ending.AT_DELIVERED):
        await _reach(sagas, order, order.ending)
        return
    if order.ending is Ending.WITHDRAWN and await _reach(sagas, order, Ending.AT_HANDED_OVER):
        with suppress(TransientError):  # that nobody has answered yet: it will be heard all the same
            await handle.cancel("the customer changed their mind")
    await handle.result()


async def _reach(sagas: SagaClient, order: Order, ending: Ending) -> bool:
    """Look now and then until the order is there. False if it will never be: it has ended, or is stuck."""
    while True:
        status = status_of(await sagas.snapshot(order.id))
        if status.where == ending or status.final:
            return status.where == ending
        await asyncio.sleep(LOOK_S)
