"""Waiting for what happens by itself in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def assert_eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    """Look again and again until it holds."""
    end = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.02)
