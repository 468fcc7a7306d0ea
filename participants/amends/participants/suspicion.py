"""Finding the command or undo whose handler kills its process, without blaming those that were beside it.

What was delivered or sent before may be why a process died. So its handling is counted in the inbox before the handler
begins, and the count is forgotten when the handler has ended in whatever way but a crash. From its third counted
handling on it is handled alone, so that what kills then is found out and takes nobody along. What is only waiting, in
the broker's buffers or for somebody's claim, is not counted.

Counts go by the command, not by the message: what the coordinator sends again does not begin at zero. Once the limit is
reached, each further attempt that is asked for (in the end by an operator, who may have repaired the service) is begun
once, alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from amends.brokers.handlings import TOGETHER, Handlings
from amends.contracts import Kind, TransientError
from amends.participants.batcher import Batcher
from amends.participants.incoming import Incoming

_log: Any = structlog.get_logger("amends.participants")


class Suspicion:
    """What is known of earlier handlings. `limit`: how many of them a command or an undo may have."""

    def __init__(self, inbox: Handlings, limit: int) -> None:
        self._inbox, self._limit = inbox, limit
        self._counted: set[str] = set()
        self._over: set[str] = set()
        self._known: set[str] = set()
        self._count = Batcher(self._count_all)
        self._forget = Batcher(self._forget_all)

    def concerns(self, incoming: Incoming) -> bool:
        """Whether it is to be counted. Asks nothing of the inbox, and is quick about what comes for the first time."""
        envelope = incoming.envelope
        # attempts say little of an undo: they go on from those of its command
        if incoming.delivery.deliveries > 1 or (envelope.attempt > 1 and envelope.kind is Kind.COMMAND):
            self._known.add(_name(incoming))
            return True
        return bool(self._known) and _name(incoming) in self._known

    async def must_be_alone(self, suspects: Sequence[Incoming]) -> list[bool]:
        """Which of these must be handled alone. Raises a `TransientError`."""
        names = [_name(incoming) for incoming in suspects]
        counts = await self._inbox.handlings(names)
        self._known.difference_update(name for name, count in zip(names, counts, strict=True) if not count)
        return [count >= min(TOGETHER, self._limit) for count in counts]

    async def spent(self, incoming: Incoming) -> int:
        """How many handlings it has had, if those are all that there are for it; else 0. Raises a `TransientError`."""
        count, of_attempt = await self._inbox.handlings(_names(incoming))
        return count if count >= self._limit and of_attempt else 0

    async def begin(self, suspects: Iterable[Incoming]) -> None:
        """Their handlers are about to run: count that. Raises a `TransientError`."""
        names = [name for incoming in suspects for name in _names(incoming)]
        if names:
            self._over.difference_update(names)
            self._counted.update(names)
            await self._count(names)

    async def end(self, suspects: Iterable[Incoming]) -> None:
        """Their handlers have ended, well or not, and this process lives."""
        names = [name for incoming in suspects for name in _names(incoming)]
        if names:
            await self._forget(names)

    async def release(self) -> None:
        """This process ends in peace: what it has counted and broken off has killed nobody."""
        if self._counted:
            await self._forget_all([list(self._counted)])

    def close(self) -> None:
        self._count.close()
        self._forget.close()

    async def _count_all(self, groups: list[list[str]]) -> list[None]:
        await self._inbox.count_handlings([name for group in groups for name in group])
        return [None] * len(groups)

    async def _forget_all(self, groups: list[list[str]]) -> list[None]:
        """Forget these, and those that could not be forgotten before: the inbox's trouble is no handler's."""
        self._over.update(name for group in groups for name in group)
        names = list(self._over)
        try:
            await self._inbox.forget_handlings(names)
        except TransientError as error:
            _log.info("counts of handlings cannot be forgotten now; later", reason=str(error))
        else:
            for known in (self._over, self._counted, self._known):
                known.difference_update(names)
        return [None] * len(groups)


def sentence(count: int) -> str:
    """What is told of a handler that has had its handlings."""
    return f"its handler was begun {count} times, and each time the process died"


def _name(incoming: Incoming) -> str:
    request = incoming.request
    return f"{request.effect_key}@{request.revision}/{incoming.envelope.kind.value}"


def _names(incoming: Incoming) -> list[str]:
    """That of the command, and that of this attempt at it."""
    name = _name(incoming)
    return [name, f"{name}#{incoming.envelope.attempt}"]
