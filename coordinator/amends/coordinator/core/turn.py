"""One transition in the making: a workspace over a snapshot, and the calls into the user's saga."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from amends.contracts import DecodeError, Failure
from amends.contracts.errors import text_of
from amends.contracts.payloads import Notice
from amends.coordinator.core.effects import Effect, End, Notify
from amends.coordinator.core.journal import Entry, JournalRecord, What
from amends.coordinator.core.policy import Policy
from amends.coordinator.core.snapshot import (
    Buffered,
    Phase,
    Recording,
    RunStatus,
    Snapshot,
    StepRun,
    StuckOn,
    Suspect,
    Waived,
)
from amends.coordinator.declaration.definition import Definition, Plan
from amends.coordinator.declaration.keys import key_values
from amends.coordinator.declaration.run import Run, bind


class Verdict(StrEnum):
    """What became of an input."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    """It was seen before; nothing changes."""
    LATE = "late"
    """It came after the matter was closed. It may be recorded, it changes no decision."""
    HELD = "held"
    """The saga is paused: kept for the resume."""
    REFUSED = "refused"
    """It cannot be done; the one who asked is told why."""
    UNEXPECTED = "unexpected"
    """Nothing this saga did can have led to it: worth an operator's look."""
    RECONCILING = "reconciling"
    """The store may have lost commits. What was issued is asked about again; the message that showed it comes next."""


class Transition(Struct, frozen=True, eq=False, gc=False):
    """The outcome of one input.

    `snapshot` and `record` are what to commit, or None when there is nothing to store; `effects` are to be carried out
    after that.
    """

    verdict: Verdict
    snapshot: Snapshot | None
    record: JournalRecord | None
    effects: tuple[Effect, ...]
    detail: str = ""


class UserCodeError(Exception):
    """A method of the user's saga raised, or left a state that cannot be stored."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


_ENCODE_STATE = msgspec.msgpack.Encoder().encode


def encode_state(saga: Any) -> bytes:
    """A saga's state as it is stored."""
    return _ENCODE_STATE(saga)


class Turn:
    """A snapshot being changed. Everything in here is thrown away unless `finish` is called."""

    __slots__ = (
        "aborting", "before", "buffer", "committed", "deadline", "definition", "effects", "entries", "epoch", "failure",
        "held", "now", "paused_at", "phase", "policy", "runs", "seen", "sequence", "state", "suspect", "version",
        "waived", "watchers",
    )  # fmt: skip

    def __init__(self, definition: Definition, snapshot: Snapshot, now: datetime, policy: Policy) -> None:
        self.definition, self.before, self.policy = definition, snapshot, policy
        self.now = max(now, snapshot.clock)
        self.phase: Phase = snapshot.phase
        self.state: bytes = snapshot.state
        self.runs: dict[str, StepRun] = dict(snapshot.runs)
        self.deadline = snapshot.deadline
        self.paused_at = snapshot.paused_at
        self.aborting: Failure | None = snapshot.aborting
        self.failure: Failure | None = snapshot.failure
        self.waived: tuple[Waived, ...] = snapshot.waived
        self.buffer: tuple[Buffered, ...] = snapshot.buffer
        self.seen: tuple[str, ...] = snapshot.seen
        self.held: tuple[bytes, ...] = snapshot.held
        self.watchers: tuple[str, ...] = snapshot.watchers
        self.sequence: int = snapshot.sequence
        self.version: int = snapshot.version + 1
        self.epoch: str = snapshot.epoch
        self.suspect: Suspect | None = snapshot.suspect
        self.committed: bool = snapshot.committed
        self.entries: list[Entry] = []
        self.effects: list[Effect] = []

    # what is told

    def note(self, what: What, step: str = "", detail: str = "") -> None:
        self.entries.append(Entry(what, step, detail))

    def answer(self, reply_to: str | None, about: str, notice: Notice) -> None:
        if reply_to is not None:
            self.effects.append(Notify(reply_to, notice, about))

    # the runs

    def plan(self, run: StepRun) -> Plan:
        return self.definition.steps[run.step]

    def change(self, run: StepRun, **fields: Any) -> StepRun:
        changed = replace(run, **fields)
        self.runs[changed.key] = changed
        return changed

    def close_run(self, run: StepRun, status: RunStatus, **fields: Any) -> StepRun:
        """Bring a run to a status in which nothing is due any more."""
        return self.change(run, status=status, wake_at=None, timeout_at=None, ended_at=self.now, **fields)

    def stick(self, run: StepRun, on: StuckOn, failure: Failure) -> StepRun:
        undoing = on in ("compensation", "undo")
        self.note(What.UNDO_STUCK if undoing else What.STEP_STUCK, run.key, f"{failure.error}: {failure.message}")
        status = RunStatus.UNDO_STUCK if undoing else RunStatus.STUCK
        return self.change(
            run, status=status, stuck_on=on, failure=failure, wake_at=None, timeout_at=None, ended_at=None
        )

    def pivot_run(self) -> StepRun | None:
        pivot = self.definition.pivot
        return None if pivot is None else next((r for r in self.runs.values() if r.step == pivot.name), None)

    def past_pivot(self) -> bool:
        """Whether the saga can only go forward."""
        run = self.pivot_run()
        return self.committed or (
            run is not None
            and (
                run.status in (RunStatus.DONE, RunStatus.SKIPPED, RunStatus.WAIVED)
                or (run.status is RunStatus.STUCK and run.stuck_on == "answer")
            )
        )

    def reconciling(self) -> bool:
        """Whether it is open if what was done still is. Meanwhile nothing new is begun, and no pivot passed."""
        return self.suspect is not None and any(
            run.status is RunStatus.CHECKING or run.stuck_on == "check" for run in self.runs.values()
        )

    # the user's code

    def call(self, method: Callable[..., Any], run: StepRun, role: str, *arguments: Any) -> Any:
        """Run one method of the saga on a copy of the state, and keep what it changed if it returns.

        Raises `UserCodeError`; the state then is as it was.
        """
        try:
            result, state = self.try_call(method, run, role, *arguments)
        except Exception as error:
            where = f"{self.definition.saga.__name__}.{getattr(method, '__name__', role)}"
            raise UserCodeError(Failure(type(error).__name__, f"{where}: {text_of(error)}")) from error
        self.state = state
        return result

    def try_call(self, method: Callable[..., Any], run: StepRun, role: str, *arguments: Any) -> tuple[Any, bytes]:
        """Run one method on a copy of the state; give its result and the state it left. Raises whatever it raises."""
        saga = self.definition.decoder.decode(self.state)
        bind(saga, Run(id=self.before.id, now=self.now, seed=f"{self.before.incarnation}/{run.key}/{role}"))
        result = method(saga, *arguments)
        state = encode_state(saga)
        if state != self.state:
            # encoding validates nothing: what cannot be read back must not be committed
            self.definition.decoder.decode(state)
        return result, state

    def record(self, message: Any) -> Recording:
        """A message as it will go over the wire. Raises `UserCodeError` when its receiver could not read it."""
        codec = self.policy.codec
        try:
            data = codec.encode(message)
            codec.decode(data, type(message))
        except (TypeError, ValueError, OverflowError, DecodeError) as error:
            problem = error.problem if isinstance(error, DecodeError) else str(error)
            name = f"{self.definition.saga.__name__}: its {type(message).__name__}"
            raise UserCodeError(Failure(type(error).__name__, f"{name} cannot be sent: {problem}")) from error
        return Recording(type(message).__tag__, data, codec.content_type)

    # the end

    def end(self, phase: Phase) -> None:
        self.phase = phase
        self.deadline = None
        self.buffer = ()
        self.note(What.COMPLETED if phase is Phase.COMPLETED else What.COMPENSATED)
        self.effects.append(End(phase))
        for watcher in self.watchers:
            self.effects.append(Notify(watcher, self.outcome(self.version), ""))

    def outcome(self, version: int) -> Notice:
        """How the saga has ended, and why."""
        told = Notice(what="ended", version=version, status=self.phase.value)
        return told if self.failure is None else replace(told, code=self.failure.error, problem=self.failure.message)

    def after(self, wait: timedelta) -> datetime:
        """The moment that far from now."""
        return later(self.now, wait)

    def resend_at(self, attempt: int, key: str) -> datetime:
        """When a message that was sent for the `attempt`-th time (from 1) is sent again."""
        return self.after(self.policy.resend.wait(attempt, key))

    def finish(self, commit_id: str, cause: str, verdict: Verdict = Verdict.APPLIED, detail: str = "") -> Transition:
        """The transition, with a snapshot one version further; after lost commits, further than those can have been."""
        before = self.before
        snapshot = Snapshot(
            saga=before.saga,
            definition_version=before.definition_version,
            shape=before.shape,
            id=before.id,
            incarnation=before.incarnation,
            version=self.version,
            commit_id=commit_id,
            phase=self.phase,
            state=self.state,
            clock=self.now,
            started_at=before.started_at,
            runs=self.runs,
            deadline=self.deadline,
            ended_at=self.now if self.phase.ended and before.ended_at is None else before.ended_at,
            paused_at=self.paused_at,
            aborting=self.aborting,
            failure=self.failure,
            waived=self.waived,
            buffer=self.buffer,
            seen=self.seen,
            held=self.held,
            watchers=self.watchers,
            sequence=self.sequence,
            correlation_id=before.correlation_id,
            causation_id=before.causation_id,
            traceparent=before.traceparent,
            parent=before.parent,
            keys=self._keys(),
            epoch=self.epoch,
            suspect=self.suspect,
            committed=self.committed,
        )
        record = JournalRecord(
            version=snapshot.version,
            commit_id=commit_id,
            at=self.now,
            cause=cause,
            entries=tuple(self.entries),
            state=None if self.state == before.state and before.version else self.state,
        )
        return Transition(verdict, snapshot, record, tuple(self.effects), detail)

    def _keys(self) -> dict[str, str]:
        keys = self.definition.keys
        return key_values(self.definition.decoder.decode(self.state), keys) if keys else {}


_NEVER = datetime.max.replace(tzinfo=UTC)


def later(moment: datetime, by: timedelta) -> datetime:
    """`moment` plus `by`; the end of the calendar for what lies beyond it."""
    try:
        return moment + by
    except OverflowError:
        return _NEVER


def earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
