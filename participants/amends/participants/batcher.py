"""Group commit: what many tasks ask for at a time is asked in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Collects items while the call before is under way, and passes them on together: no waiting, no timer.

    `call` takes up to `limit` items and gives as many results. When it raises, all who wait for that call get the
    error.
    """

    def __init__(self, call: Callable[[list[T]], Awaitable[Sequence[R]]], limit: int = 256) -> None:
        self._call, self._limit = call, limit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._drainer: asyncio.Task[None] | None = None

    def __call__(self, item: T) -> asyncio.Future[R]:
        """Pass one item on; the future is its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._drainer is None:
            self._drainer = loop.create_task(self._drain())
        return future

    def close(self) -> None:
        """Break off; those who still wait are cancelled."""
        if self._drainer is not None:
            self._drainer.cancel()

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                try:
                    results = await self._call([item for item, _ in batch])
                except asyncio.CancelledError:
                    for _, future in batch + self._waiting:
                        future.cancel()
                    self._waiting = []
                    raise
                except BaseException as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in zip(batch, results, strict=True):
                        if not future.done():
                            future.set_result(result)
        finally:
            self._drainer = None
