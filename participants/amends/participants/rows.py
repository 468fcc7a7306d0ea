"""What an inbox remembers of one effect, what it is asked, and what it says."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

from amends.contracts import ReplyOutcome


class State(StrEnum):
    CLAIMED = "claimed"
    """Somebody runs the action, or ran it when the process died: past its lease it may have happened."""
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    """The action was given up; it may have happened, unless it was transactional."""
    CLOSED = "closed"
    """A tombstone: the action did not happen and never will."""
    UNDOING = "undoing"
    """Somebody runs the compensation, or ran it when the process died."""
    UNDO_FAILED = "undo-failed"
    UNDONE = "undone"


class Recording(Struct, frozen=True, array_like=True, gc=False):
    """A message as it went over the wire."""

    type: str
    data: bytes
    content_type: str


class Row(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One effect. `fence` grows with every claim and tells a claim from those before it.

    `revision` and `attempt` are those of the last request that claimed, in its direction (action or undo).
    `transactional` says that no attempt so far can have left anything behind but in the inbox's own transaction.
    `command` is the wording that was run last, `reply` what a done action answered, `problem` the rejection or the last
    failure.
    """

    state: State
    fence: int
    updated_at: datetime
    revision: int = 0
    attempt: int = 0
    transactional: bool = False
    issued_at: datetime | None = None
    lease_until: datetime | None = None
    owner: str = ""
    command: Recording | None = None
    reply: Recording | None = None
    problem: Recording | None = None

    def live(self, now: datetime) -> bool:
        """Whether the claim still holds."""
        return self.lease_until is not None and now < self.lease_until

    @property
    def touched(self) -> datetime:
        """The latest moment that concerns this row; it may be purged when that is long past."""
        return max(moment for moment in (self.updated_at, self.issued_at, self.lease_until) if moment is not None)


class Begin(Struct, frozen=True, kw_only=True, gc=False):
    """May this action be started? `start_before` is the last moment for it, the clocks' skew included."""

    effect_key: str
    revision: int
    attempt: int
    issued_at: datetime | None
    start_before: datetime | None
    transactional: bool
    owner: str
    lease: timedelta
    command: Recording


class BeginUndo(Struct, frozen=True, kw_only=True, gc=False):
    """May this effect be undone? `command` and `reply` are as the coordinator recorded them.

    `reply` is None when the coordinator does not know that the action was done.
    """

    effect_key: str
    revision: int
    attempt: int
    issued_at: datetime | None
    owner: str
    lease: timedelta
    command: Recording
    reply: Recording | None = None


class Settle(Struct, frozen=True, kw_only=True):
    """What became of this effect, for good?"""

    effect_key: str
    revision: int
    issued_at: datetime | None


class Finish(Struct, frozen=True, kw_only=True, gc=False):
    """A claim ends: `done`, `rejected` or `failed` for an action, `undone` or `undo-failed` for a compensation."""

    effect_key: str
    fence: int
    outcome: ReplyOutcome
    recording: Recording | None = None


class Renew(Struct, frozen=True, kw_only=True):
    """The handler is still at work: keep the claim for another lease."""

    effect_key: str
    fence: int
    lease: timedelta


class Release(Struct, frozen=True, kw_only=True):
    """The handler was broken off: the claim's lease ends now. The effect may have happened."""

    effect_key: str
    fence: int


Opening: TypeAlias = Begin | BeginUndo | Settle
Closing: TypeAlias = Finish | Renew | Release


class Claimed(Struct, frozen=True, gc=False):
    """Run the handler. For an undo, `command` and `reply` tell of the action; without reply its outcome is unknown."""

    fence: int
    command: Recording
    reply: Recording | None = None


class Answered(Struct, frozen=True, gc=False):
    """Run nothing: this is the answer."""

    outcome: ReplyOutcome
    recording: Recording | None = None


class Busy(Struct, frozen=True):
    """Somebody else is at it. Ask again when they are done, or at `until` (inbox time)."""

    until: datetime
    owner: str = ""


class Ignored(Struct, frozen=True):
    """Run nothing and answer nothing: the command came too late, or a newer wording has replaced it."""

    reason: Literal["expired", "stale"]


class Fenced(Struct, frozen=True):
    """The claim is not yours any more: throw the result away."""


class Kept(Struct, frozen=True):
    """The claim was renewed, or released."""


OpeningAnswer: TypeAlias = Claimed | Answered | Busy | Ignored
ClosingAnswer: TypeAlias = Answered | Kept | Fenced
