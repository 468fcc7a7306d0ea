"""The load for Celery."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from redis import Redis

from benchmarks.others.programs.celery_tasks import ENDED, place_order
from benchmarks.others.programs.driver import serve

RUN = os.getpid() * 1_000_000
"""Orders are told apart from those of earlier runs, and keep their last digit."""


class Load:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: dict[int, asyncio.Future[None]] = {}
        self._threads = ThreadPoolExecutor(8)
        self._redis = Redis.from_url(os.environ["ORDERS_BACKEND"], socket_timeout=None)
        threading.Thread(target=self._listen, daemon=True).start()

    async def order(self, number: int) -> None:
        number += RUN
        end = self._ends[number] = self._loop.create_future()
        await self._loop.run_in_executor(self._threads, place_order, number)
        await end

    def _listen(self) -> None:
        while True:
            _, number = self._redis.blpop(ENDED)
            self._loop.call_soon_threadsafe(self._heard, int(number))

    def _heard(self, number: int) -> None:
        self._ends.pop(number).set_result(None)


async def main() -> None:
    await serve(Load().order)


if __name__ == "__main__":
    asyncio.run(main())
