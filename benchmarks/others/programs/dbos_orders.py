"""DBOS: a workflow of steps, in the process of whoever starts it. `dbos_orders.py DATABASE_URL`"""

import asyncio
import sys

from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks.others.programs.driver import is_refused, serve

RUN = str(__import__("os").getpid())


class NoCarrier(Exception):
    pass


@DBOS.step()
async def reserve(number: int) -> str:
    return f"blue-mug-{number}"


@DBOS.step()
async def release(reservation_id: str) -> None:
    return None


@DBOS.step()
async def charge(number: int) -> str:
    return "charge-1990"


@DBOS.step()
async def refund(charge_id: str) -> None:
    return None


@DBOS.step()
async def ship(number: int) -> str:
    if is_refused(number):
        raise NoCarrier
    return "1Z-12345"


@DBOS.workflow()
async def place_order(number: int) -> str:
    reservation_id = await reserve(number)
    charge_id = await charge(number)
    try:
        await ship(number)
    except NoCarrier:
        await refund(charge_id)
        await release(reservation_id)
        return "undone"
    return "shipped"


async def order(number: int) -> None:
    with SetWorkflowID(f"order-{RUN}-{number:06d}"):
        handle = await DBOS.start_workflow_async(place_order, number)
    await handle.get_result()


async def main(url: str) -> None:
    config: DBOSConfig = {"name": "orders", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    try:
        await serve(order)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
