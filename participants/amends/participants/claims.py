"""The claims of this process: kept while their handlers are at work, given back when they are broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from amends.contracts import TransientError
from amends.participants.inbox import Inbox
from amends.participants.retries import Sleep
from amends.participants.rows import Fenced, Release, Renew

T = TypeVar("T")

_log: Any = structlog.get_logger("amends.participants")


class Claim:
    """One claim in this process. `lost`: somebody else has taken it over; `ended`: nobody works on it here any more."""

    __slots__ = ("_scope", "ended", "fence", "key", "lost")

    def __init__(self, key: str, fence: int) -> None:
        self.key, self.fence = key, fence
        self.lost = False
        self.ended = asyncio.Event()
        self._scope: asyncio.Timeout | None = None

    async def at_work(self, handling: Awaitable[T]) -> T:
        """The result of the handler. Breaks it off with `TimeoutError` when the claim is lost."""
        try:
            async with asyncio.timeout(None) as self._scope:
                return await handling
        finally:
            self._scope = None

    @property
    def handling(self) -> bool:
        """Whether the handler is at work."""
        return self._scope is not None

    def lose(self) -> None:
        """Somebody else has the claim: what the handler still does here must not count."""
        self.lost = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Claims:
    """Renews the leases of all claims held, three times per lease."""

    def __init__(self, inbox: Inbox, lease: timedelta, sleep: Sleep) -> None:
        self._inbox, self._lease, self._sleep = inbox, lease, sleep
        self._held: dict[str, Claim] = {}
        self._abandoned: list[Claim] = []
        self._keeper: asyncio.Task[None] | None = None

    def hold(self, key: str, fence: int) -> Claim:
        """Keep a claim until `let_go`."""
        claim = self._held[key] = Claim(key, fence)
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return claim

    def abandon(self, claim: Claim) -> None:
        """The handler was broken off: `release` gives its claim back."""
        self._abandoned.append(claim)

    def let_go(self, claim: Claim) -> None:
        """Nobody works on it here any more."""
        claim.ended.set()
        if self._held.get(claim.key) is claim:
            del self._held[claim.key]
        if not self._held and self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None

    def of(self, key: str) -> Claim | None:
        """The claim that this process holds on an effect."""
        return self._held.get(key)

    async def release(self) -> None:
        """Give back the claims of handlers that were broken off, so that others need not wait for the lease."""
        abandoned, self._abandoned = self._abandoned, []
        if not abandoned:
            return
        try:
            await self._inbox.finish([Release(effect_key=claim.key, fence=claim.fence) for claim in abandoned])
        except TransientError as error:
            _log.warning("claims could not be given back; they run out by themselves", reason=str(error))

    async def _keep(self) -> None:
        while True:
            await self._sleep(self._lease.total_seconds() / 3)
            claims = list(self._held.values())
            renewals = [Renew(effect_key=claim.key, fence=claim.fence, lease=self._lease) for claim in claims]
            try:
                answers = await self._inbox.finish(renewals)
            except TransientError as error:
                _log.warning("leases could not be renewed; trying again", reason=str(error))
                continue
            for claim, answer in zip(claims, answers, strict=True):
                # once the handler has ended, recording its outcome says whose the claim is
                if isinstance(answer, Fenced) and claim.handling:
                    _log.warning("lost a claim to somebody else; its handler is broken off", effect_key=claim.key)
                    claim.lose()
