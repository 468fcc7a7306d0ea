"""The `Inbox` port: a participant's memory of what it did, so that an effect happens at most once.

An adapter loads a row, asks `amends.participants.decisions`, and stores the row that comes back. It passes the suite in
`tests/contract/inbox.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from amends.brokers import Broker, Outgoing
from amends.brokers.handlings import Handlings
from amends.contracts import ReplyOutcome
from amends.participants.rows import (
    Answered,
    Begin,
    BeginUndo,
    Busy,
    Claimed,
    Closing,
    ClosingAnswer,
    Ignored,
    Opening,
    OpeningAnswer,
    Recording,
)


class Performed(Struct, frozen=True, gc=False):
    """What a handler did: an outcome as in `Finish`, and the reply, rejection or failure to record."""

    outcome: ReplyOutcome
    recording: Recording | None = None


class Work(Struct, frozen=True, eq=False):
    """A transactional handler and the request that must be granted first.

    `run` gets the claim and the session of the inbox's transaction. It may be run again when the transaction could not
    be committed, so it must keep what it does in the session. `reply` says what to publish about an answer, to an inbox
    that publishes.
    """

    request: Begin | BeginUndo
    run: Callable[[Claimed, Any], Performed]
    reply: Callable[[Answered], Outgoing | None] = lambda answer: None


class Raised(Struct, frozen=True, eq=False):
    """The handler raised; what it wrote was rolled back and nothing was recorded."""

    error: Exception


WorkAnswer: TypeAlias = Answered | Busy | Ignored | Raised


class Inbox(Handlings, Protocol):
    """Remembers the state of every effect by its effect key.

    Atomicity: each request is decided and stored as one step, as if no other were under way; requests of one call are
    decided in their order, and one that is refused does not touch the others. Durability: what a method returned
    survives the death of this process (and, but for in-memory inboxes, of the machine); a claim is therefore known
    before its handler starts. Idempotency: a `Finish` that is repeated with its fence gets what was stored first. Time
    is the inbox's own: leases are measured by it. All methods raise a `TransientError` when the inbox is away; a
    request then may or may not have been stored, and is to be repeated. Handlings are counted by names of their own,
    each method as one step.
    """

    @property
    def shared(self) -> bool:
        """Whether all processes of the service see the same rows. A private one is no use behind a shared broker."""
        ...

    async def begin(self, requests: Sequence[Opening]) -> Sequence[OpeningAnswer]:
        """May these be started, undone; what became of them? One answer each, in the order asked."""
        ...

    async def finish(self, requests: Sequence[Closing]) -> Sequence[ClosingAnswer]:
        """Claims end, or are kept. A claim that somebody else has taken over meanwhile is answered `Fenced`."""
        ...

    async def purge(self, before: datetime) -> int:
        """Forget effects that were issued and last touched before this moment; say how many.

        Raises the low-water mark to it first: from then on, a missing row of an effect issued earlier means "in doubt".
        Keep rows for longer than any saga and any message may live. Raises `UsageError` for a moment to come.
        """
        ...

    async def low_water_mark(self) -> datetime | None:
        """Rows of effects that were issued before it may have been forgotten. None: all rows are there."""
        ...

    async def ping(self) -> None:
        """Raise a `TransientError` when the inbox cannot be written now."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class TransactionalInbox(Inbox, Protocol):
    """An inbox that lets handlers write in its own transaction."""

    async def transact(self, works: Sequence[Work]) -> Sequence[WorkAnswer]:
        """Run handlers and record their outcomes in one transaction, without claims in between.

        A handler's writes are kept with `done` and `undone` only; they are rolled back, alone, when it raises or when
        its outcome is another. An effect that somebody has claimed, is finished or closed, is answered as by `begin`.
        """
        ...


@runtime_checkable
class PublishingInbox(TransactionalInbox, Protocol):
    """A transactional inbox that may stand in the same database as a broker: one transaction then does for both."""

    def joins(self, broker: Broker) -> bool:
        """Whether its database is that of this broker."""
        ...

    async def transact_and_publish(self, works: Sequence[Work], broker: Broker) -> Sequence[WorkAnswer]:
        """As `transact`, and the replies to all `Answered` are published in the same transaction.

        Only for a broker that it `joins`.
        """
        ...
