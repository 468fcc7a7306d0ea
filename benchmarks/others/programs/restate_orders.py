"""Restate: a service whose handler runs the steps; `restate_orders.py INGRESS_URL` is the load, `app` the service.

After Restate's guide to sagas: what would undo a step is put on a list before the step, and run in reverse.
"""

import asyncio
import os
import sys
from typing import Any

import aiohttp
import restate

from benchmarks.others.programs.driver import is_refused, serve

orders = restate.Service("PlaceOrder")
RUN = str(os.getpid())


async def reserve(number: int) -> str:
    return f"blue-mug-{number}"


async def release(number: int) -> None:
    return None


async def charge(number: int) -> str:
    return "charge-1990"


async def refund(number: int) -> None:
    return None


async def ship(number: int) -> str:
    if is_refused(number):
        raise restate.TerminalError("no carrier")
    return "1Z-12345"


@orders.handler()
async def run(ctx: restate.Context, number: int) -> str:
    compensations: list[Any] = []
    try:
        compensations.append(lambda: ctx.run_typed("release", release, number=number))
        await ctx.run_typed("reserve", reserve, number=number)
        compensations.append(lambda: ctx.run_typed("refund", refund, number=number))
        await ctx.run_typed("charge", charge, number=number)
        await ctx.run_typed("ship", ship, number=number)
    except restate.TerminalError:
        for compensation in reversed(compensations):
            await compensation()
        return "undone"
    return "shipped"


app = restate.app([orders])


async def main(ingress: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(ingress, connector=connector) as http:

        async def order(number: int) -> None:
            headers = {"idempotency-key": f"order-{RUN}-{number:06d}"}
            async with http.post("/PlaceOrder/run", json=number, headers=headers) as answer:
                assert await answer.json() == ("undone" if is_refused(number) else "shipped")

        await serve(order)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
