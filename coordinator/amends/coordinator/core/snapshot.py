"""The state of one saga instance, as it is stored after every transition."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import Struct

from amends.contracts import Failure
from amends.contracts.names import run_key


class Phase(StrEnum):
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"

    @property
    def ended(self) -> bool:
        return self is Phase.COMPLETED or self is Phase.COMPENSATED


class RunStatus(StrEnum):
    """Where one run of a step stands. A step without a run has not been reached."""

    ISSUED = "issued"
    """Its command is on its way; no answer yet."""
    RETRYING = "retrying"
    """An attempt failed; the command is sent again when its timer is due."""
    AWAITING = "awaiting"
    """Waits for an event or a signal."""
    SLEEPING = "sleeping"
    SETTLING = "settling"
    """Its outcome is unknown and must be known: the participant has been asked to settle it."""
    DONE = "done"
    CHECKING = "checking"
    """It was done; now that the store may have lost commits, the participant has been asked whether it still is."""
    SKIPPED = "skipped"
    REJECTED = "rejected"
    CLOSED = "closed"
    """It never happened and never will."""
    FAILED = "failed"
    """It was given up, and left nothing to undo."""
    STUCK = "stuck"
    """It cannot go forward and cannot be undone: an operator must decide."""
    UNKNOWN = "unknown"
    """It may have happened; it will be undone."""
    UNDOING = "undoing"
    UNDO_RETRYING = "undo-retrying"
    UNDONE = "undone"
    UNDO_STUCK = "undo-stuck"
    """Its compensation keeps failing: an operator must decide."""
    WAIVED = "waived"
    """An operator decided that it need not be done, or undone."""


class Recording(Struct, frozen=True, array_like=True, gc=False):
    """A message as it went over the wire: its type, its data, and the data's content type."""

    type: str
    data: bytes
    content_type: str = "application/json"


class Awaits(Struct, frozen=True, array_like=True, gc=False):
    """What a waiting run waits for: a type, and for an event the values (JSON) that its fields must have."""

    type: str
    where: tuple[tuple[str, bytes], ...] = ()


StuckOn = Literal["", "act", "answer", "outcome", "check", "compensation", "undo"]
"""Where a stuck run stopped: its step method raised; the handler of its answer raised or the answer was unreadable;
the outcome is a refusal, exhaustion or lasting doubt; nobody can say whether it is still done; its compensation method
raised; its undo was given up."""


class StepRun(Struct, frozen=True, array_like=True, gc=False):
    """One run of one step (visit, item), from its dispatch to its end.

    `command` is frozen at dispatch (for `service`), and `revision` counts its wordings; `attempt` counts the sends of
    the present wording, `failures` the failed ones. `issued_at` is the first send. `timeout_at` ends the wait for an
    outcome. `wake_at` is when the run next has something to do by itself: send again, time out, wake up. `heard` is the
    number of the latest message whose bad answer was counted (see `sent`). `leap` are numbers left out for messages
    that lost commits may have sent; `vouched` says that an operator, not the participant, said that it is done.
    """

    step: str
    status: RunStatus
    visit: int = 0
    item: int | None = None
    service: str = ""
    command: Recording | None = None
    reply: Recording | None = None
    undo: Recording | None = None
    awaits: Awaits | None = None
    revision: int = 0
    attempt: int = 0
    failures: int = 0
    undo_attempt: int = 0
    undo_failures: int = 0
    settle_attempt: int = 0
    issued_at: datetime | None = None
    timeout_at: datetime | None = None
    wake_at: datetime | None = None
    ended_at: datetime | None = None
    failure: Failure | None = None
    stuck_on: StuckOn = ""
    note: str = ""
    heard: int = 0
    leap: int = 0
    vouched: bool = False

    @property
    def key(self) -> str:
        # written out, since it is read a dozen times in every transition
        return f"{self.step}#{self.visit}" if self.item is None else run_key(self.step, self.visit, self.item)

    @property
    def sent(self) -> int:
        """The number of the last message about this run. They are numbered through: an answer tells which it is for."""
        return self.leap + self.attempt + self.settle_attempt + self.undo_attempt

    @property
    def forgotten(self) -> bool:
        """Whether it is known of only by guess: a commit that the store has lost may have issued it, saying what?"""
        return self.command is not None and not self.command.data

    @property
    def unbegun(self) -> bool:
        """Whether it is stuck with nothing sent or received: a retry begins the step anew."""
        return self.status is RunStatus.STUCK and self.command is None and self.stuck_on != "answer"


class Buffered(Struct, frozen=True, array_like=True):
    """A signal or event that came before the step that awaits it."""

    id: str
    type: str
    data: bytes
    content_type: str


class Waived(Struct, frozen=True, array_like=True):
    """A step that an operator decided to leave as it is."""

    step: str
    reason: str
    by: str


class Suspect(Struct, frozen=True, array_like=True, gc=False):
    """The store may have lost commits of this saga: why that is thought, and from when on they would have been made.

    `leap` is where the numbers of messages begin that went out after it was noticed.
    """

    since: datetime
    why: str
    leap: int


class Snapshot(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One instance. `version` counts its commits, `commit_id` names the last one, `incarnation` the first.

    `state` is the user's saga as msgpack. `clock` is the latest moment this saga has seen. `aborting` holds the reason
    for going back while the outcome of the pivot is still being settled; `failure` the reason once it goes back.
    `watchers` are the client addresses that want to hear of the end. `seen` are the ids of the words that were heeded
    (of signals and events, with their type);
    `held` are inputs kept while paused. `keys` are the business keys that it can be found by, as text. `epoch` is that
    of the store when it was last known that no commit is missing; `suspect` is set when some were. `committed` says
    that the pivot happened, though the commit that knew it is lost.
    """

    saga: str
    definition_version: int
    shape: str
    id: str
    incarnation: str
    version: int
    commit_id: str
    phase: Phase
    state: bytes
    clock: datetime
    started_at: datetime
    runs: dict[str, StepRun] = {}
    deadline: datetime | None = None
    ended_at: datetime | None = None
    paused_at: datetime | None = None
    aborting: Failure | None = None
    failure: Failure | None = None
    waived: tuple[Waived, ...] = ()
    buffer: tuple[Buffered, ...] = ()
    seen: tuple[str, ...] = ()
    held: tuple[bytes, ...] = ()
    watchers: tuple[str, ...] = ()
    sequence: int = 0
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str | None = None
    parent: str | None = None
    keys: dict[str, str] = {}
    epoch: str = ""
    suspect: Suspect | None = None
    committed: bool = False

    @property
    def paused(self) -> bool:
        return self.paused_at is not None

    @property
    def stuck(self) -> bool:
        return any(run.status in (RunStatus.STUCK, RunStatus.UNDO_STUCK) for run in self.runs.values())

    @property
    def retained_from(self) -> datetime | None:
        """When its retention begins: at its end. That of a child begins with the end of its root, so not by itself."""
        return self.ended_at if self.parent is None else None

    @property
    def wake_at(self) -> datetime | None:
        """When the earliest timer is due; None while there is none, or while paused."""
        if self.paused_at is not None or self.phase.ended:
            return None
        earliest = self.deadline
        for run in self.runs.values():
            if run.wake_at is not None and (earliest is None or run.wake_at < earliest):
                earliest = run.wake_at
        return earliest


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _ENCODER.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises `msgspec.MsgspecError` when the bytes are no snapshot."""
    return _DECODER.decode(data)
