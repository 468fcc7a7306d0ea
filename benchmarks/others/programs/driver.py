"""Load for one program: closed loop to find its limit, open loop for the times. Only the standard library.

The program says it is ready with a line, and answers each line of JSON with one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

Order = Callable[[int], Awaitable[None]]
"""Takes one order from start to end; every tenth number is refused at the third step and undone."""

_numbers = count()


def is_refused(number: int) -> bool:
    return number % 10 == 9


async def serve(order: Order) -> None:
    """Answer `saturate`, seconds, how many at a time; and `trickle`, seconds, how many per second."""
    loop = asyncio.get_running_loop()
    _say(None)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, *words = json.loads(line)
        _say(await {"saturate": saturate, "trickle": trickle}[what](order, *words))


async def saturate(order: Order, seconds: float, at_once: int) -> dict[str, float]:
    """Keep so many orders going for that time. `rate`: how many ended per second once a quarter of it was over, since
    the first ones have everything to themselves; `all`: how many were made, those under way at the end among them.
    """
    ended = every = 0
    begun = time.perf_counter()
    counted, until = begun + seconds / 4, begun + seconds

    async def one_after_another() -> None:
        nonlocal ended, every
        while time.perf_counter() < until:
            await order(next(_numbers))
            every += 1
            if counted < time.perf_counter() < until:
                ended += 1

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return {"rate": ended / (until - counted), "all": every}


async def trickle(order: Order, seconds: float, per_second: float) -> list[float]:
    """Begin orders at even intervals, however long each takes; the seconds that each took."""

    async def one() -> float:
        begun = time.perf_counter()
        await order(next(_numbers))
        return time.perf_counter() - begun

    begun = time.perf_counter()
    running = []
    for place in range(max(1, round(seconds * per_second))):
        await asyncio.sleep(max(0.0, begun + place / per_second - time.perf_counter()))
        running.append(asyncio.create_task(one()))
    return await asyncio.gather(*running)


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)
