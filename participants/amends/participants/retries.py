"""Trying a handler again, by a tenacity policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import uniform
from typing import TypeAlias, TypeVar

from tenacity import AsyncRetrying, stop_after_attempt, wait_exponential, wait_random

from amends.participants.handlers import RetryPolicy

T = TypeVar("T")
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_DEFAULT = AsyncRetrying(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.1))


async def repeat(
    policy: RetryPolicy | None, attempt: Callable[[], Awaitable[T]], sleep: Sleep, error: Exception | None = None
) -> T:
    """The result of `attempt`, called as often as the policy wants; the last error when it gives up.

    `error` is what a first attempt raised that was made before. Without a policy: three attempts, waits that double
    from 0.1 s, with jitter.
    """
    if policy is None and error is None:
        try:
            return await attempt()  # most handlers succeed at once: no need to start the machinery
        except Exception as first:
            error = first

    async def numbered() -> T:
        nonlocal error
        if error is not None:
            first, error = error, None
            raise first
        return await attempt()

    result: T = await _as_async(policy or _DEFAULT, sleep)(numbered)
    return result


def _as_async(policy: RetryPolicy, sleep: Sleep) -> AsyncRetrying:
    if isinstance(policy, AsyncRetrying):
        return policy.copy(sleep=sleep, reraise=True, retry_error_callback=None)
    return AsyncRetrying(
        sleep=sleep,
        stop=policy.stop,
        wait=policy.wait,
        retry=policy.retry,
        before=policy.before,
        after=policy.after,
        before_sleep=policy.before_sleep,
        reraise=True,
        enabled=policy.enabled,
    )


def backoff() -> Iterator[float]:
    """Waits, in seconds, for something that is away: they grow to half a minute, and have no end."""
    wait = 0.1
    while True:
        yield wait * uniform(0.75, 1.25)
        wait = min(wait * 2, 30.0)
