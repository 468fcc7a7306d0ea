"""Who may be at work beside whom: many together, or one alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta


class Gate:
    """Handlers go through it together; one that must be alone waits until all others are out, and then keeps them out.

    Who wants to be alone goes before those who do not, so that a stream of them cannot keep it waiting. It waits for
    no longer than `patience`: one that takes very long, or that itself waits for others to come in, is then beside it.
    """

    def __init__(self, patience: timedelta) -> None:
        self._patience_s = patience.total_seconds()
        self._inside = 0
        self._alone = asyncio.Lock()
        self._wanting = 0
        self._opened, self._emptied = asyncio.Event(), asyncio.Event()

    async def acquire(self) -> None:
        """Go in together with others. `release` is the way out."""
        while self._wanting:
            self._opened.clear()
            await self._opened.wait()
        self._inside += 1

    def release(self) -> None:
        self._inside -= 1
        if not self._inside:
            self._emptied.set()

    async def acquire_alone(self) -> None:
        """Wait until nobody is inside any more, and go in alone. `release_alone` is the way out."""
        self._wanting += 1
        try:
            await self._alone.acquire()
            try:
                if self._inside:
                    self._emptied.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._patience_s):
                            await self._emptied.wait()
            except BaseException:
                self._alone.release()
                raise
        except BaseException:
            self._want_no_more()
            raise

    def release_alone(self) -> None:
        self._alone.release()
        self._want_no_more()

    def _want_no_more(self) -> None:
        self._wanting -= 1
        if not self._wanting:
            self._opened.set()
