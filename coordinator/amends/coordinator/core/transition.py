"""The core: what a saga does about an input. Pure: the same definition, snapshot, input and time give the same."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from amends.contracts import ReplyOutcome, TerminalError
from amends.contracts.payloads import Notice
from amends.coordinator.core import backward, forward, lost, operator, reconcile
from amends.coordinator.core.inputs import (
    Answered,
    AnyInput,
    Cancel,
    EventReceived,
    Pause,
    ResolveStep,
    Resume,
    RetryStep,
    RolledBack,
    SignalReceived,
    SkipStep,
    TimersFired,
    Watch,
    decode_input,
    encode_input,
)
from amends.coordinator.core.journal import What
from amends.coordinator.core.policy import Policy
from amends.coordinator.core.snapshot import Phase, RunStatus, Snapshot
from amends.coordinator.core.turn import Transition, Turn, Verdict, later
from amends.coordinator.declaration.definition import Definition


class DoesNotFit(TerminalError):
    """A snapshot that was made by another shape of the same version of its definition."""

    def __init__(self, saga_id: str, saga: str, version: int) -> None:
        self.saga_id, self.saga, self.version = saga_id, saga, version
        super().__init__(
            f"saga {saga_id!r} was started by another {saga} version {version}: its steps have changed since. "
            f"Give the changed saga version={version + 1} and keep the old class for what is in flight"
        )


def start(
    definition: Definition,
    saga_id: str,
    state: bytes,
    now: datetime,
    commit_id: str,
    policy: Policy,
    *,
    cause: str,
    reply_to: str | None = None,
    correlation_id: str = "",
    causation_id: str = "",
    traceparent: str | None = None,
    epoch: str = "",
    incarnation: str = "",
) -> Transition:
    """Begin a new instance in a store of this epoch. Without an `incarnation`, that is the id of this commit."""
    incarnation = incarnation or commit_id
    blank = Snapshot(
        saga=definition.name,
        definition_version=definition.version,
        shape=definition.shape,
        id=saga_id,
        incarnation=incarnation,
        version=0,
        commit_id="",
        phase=Phase.RUNNING,
        state=state,
        clock=now,
        started_at=now,
        deadline=None if definition.deadline is None else later(now, definition.deadline),
        watchers=() if reply_to is None else (reply_to,),
        correlation_id=correlation_id or incarnation,
        causation_id=causation_id,
        traceparent=traceparent,
        epoch=epoch,
    )
    turn = Turn(definition, blank, now, policy)
    turn.note(What.STARTED, "", definition.tag)
    turn.answer(reply_to, cause, Notice(what="accepted", version=1))
    forward.advance(turn)
    return turn.finish(commit_id, f"start {cause}")


def transition(
    definition: Definition, snapshot: Snapshot, message: AnyInput, now: datetime, commit_id: str, policy: Policy
) -> Transition:
    """What `message` makes of the saga in `snapshot`.

    Raises `DoesNotFit` when the snapshot is not of this definition, and `TerminalError` when the message itself cannot
    be read; neither leaves a trace.
    """
    if snapshot.shape != definition.shape or snapshot.definition_version != definition.version:
        raise DoesNotFit(snapshot.id, definition.name, snapshot.definition_version)
    turn = Turn(definition, snapshot, now, policy)
    verdict, detail = _apply(turn, message)
    changed = verdict in (Verdict.APPLIED, Verdict.HELD, Verdict.RECONCILING)
    _tell(turn, message, verdict, detail)
    if changed:
        return turn.finish(commit_id, f"{type(message).__name__} {message.message_id}", verdict, detail)
    return Transition(verdict, None, None, tuple(turn.effects), detail)


def _tell(turn: Turn, message: AnyInput, verdict: Verdict, detail: str) -> None:
    """Answer the one who asked, if it is somebody who waits for an answer."""
    if message.reply_to is None or isinstance(message, Watch):
        return
    if verdict in (Verdict.REFUSED, Verdict.UNEXPECTED, Verdict.LATE):
        notice = Notice(what="refused", problem=detail, code=verdict.value, version=turn.before.version)
    else:
        version = turn.before.version + (verdict is not Verdict.DUPLICATE)
        notice = Notice(what="accepted", existing=verdict is Verdict.DUPLICATE, problem=detail, version=version)
    turn.answer(message.reply_to, message.message_id, notice)


_WORDS = (SignalReceived, EventReceived, Cancel, Pause, Resume, RetryStep, SkipStep, ResolveStep)
"""Inputs that are known again by their ids; answers and timers are by what they are about."""


def _apply(turn: Turn, message: AnyInput) -> tuple[Verdict, str]:
    if not isinstance(message, _WORDS):
        return _decide(turn, message)
    if _identity(message) in turn.seen:
        return Verdict.DUPLICATE, "it was received before"
    verdict, detail = _decide(turn, message)
    if verdict is Verdict.APPLIED:
        turn.seen = (*turn.seen, _identity(message))
    return verdict, detail


def _identity(message: AnyInput) -> str:
    """What a word is known again by. Whoever names events after an order gives events of several types one id."""
    if isinstance(message, SignalReceived | EventReceived):
        return f"{message.recording.type} {message.message_id}"
    return message.message_id


def _decide(turn: Turn, message: AnyInput) -> tuple[Verdict, str]:
    if isinstance(message, Watch):
        return _watch(turn, message)
    if turn.phase.ended:
        return _after_the_end(turn, message)
    if isinstance(message, RolledBack):
        return reconcile.begin(turn, message)
    if turn.paused_at is not None and not isinstance(message, Resume):
        return _while_paused(turn, message)
    match message:
        case Answered():
            return _answered(turn, message)
        case TimersFired():
            return _timers(turn, message)
        case SignalReceived() | EventReceived():
            return forward.receive(turn, message)
        case Cancel():
            return operator.cancel(turn, message)
        case Pause():
            return operator.pause(turn, message)
        case Resume():
            return _resume(turn, message)
        case RetryStep():
            return operator.retry(turn, message)
        case SkipStep():
            return operator.skip(turn, message)
        case ResolveStep():
            return operator.resolve(turn, message)
        case _:
            assert_never(message)


def _watch(turn: Turn, message: Watch) -> tuple[Verdict, str]:
    assert message.reply_to is not None
    if turn.phase.ended:
        turn.answer(message.reply_to, message.message_id, turn.outcome(turn.before.version))
        return Verdict.DUPLICATE, "it has ended"
    if message.reply_to in turn.watchers:
        return Verdict.DUPLICATE, "it is watched from there already"
    # the oldest watchers give way: they read the store when they hear nothing
    turn.watchers = (*turn.watchers[-15:], message.reply_to)
    return Verdict.APPLIED, ""


def _after_the_end(turn: Turn, message: AnyInput) -> tuple[Verdict, str]:
    match message:
        case Answered() if message.incarnation != turn.before.incarnation:
            return Verdict.UNEXPECTED, f"the saga is {turn.phase} and never was of incarnation {message.incarnation}"
        case Answered():
            return _answered(turn, message)
        case TimersFired() | RolledBack():
            return Verdict.LATE, f"the saga is {turn.phase}"
        case Cancel() if turn.phase is Phase.COMPENSATED:
            return Verdict.DUPLICATE, "it is compensated already"
        case _:
            return Verdict.REFUSED, f"saga {turn.before.id!r} has ended ({turn.phase})"


def _while_paused(turn: Turn, message: AnyInput) -> tuple[Verdict, str]:
    match message:
        case Pause():
            return Verdict.DUPLICATE, "it is paused already"
        case TimersFired():
            return Verdict.LATE, "it is paused; what is due is done at the resume"
        case RetryStep() | SkipStep() | ResolveStep():
            return Verdict.REFUSED, "it is paused: resume it first"
        case _:
            kept = encode_input(message)
            if any(_identity(decode_input(held)) == _identity(message) for held in turn.held):
                return Verdict.DUPLICATE, "it is kept for the resume already"
            turn.held = (*turn.held, kept)
            turn.note(What.HELD, "", type(message).__name__)
            return Verdict.HELD, "the saga is paused: this is done when it is resumed"


def _resume(turn: Turn, message: Resume) -> tuple[Verdict, str]:
    if turn.paused_at is None:
        return Verdict.DUPLICATE, "it is not paused"
    verdict = operator.resume(turn, message)
    held, turn.held = turn.held, ()
    # what came in during the pause goes before what is due because of it
    for kept in held:
        late = decode_input(kept)
        try:
            told, detail = _apply(turn, late)
        except TerminalError as error:
            told, detail = Verdict.REFUSED, str(error)
        if told in (Verdict.REFUSED, Verdict.UNEXPECTED):
            turn.note(What.LATE, "", f"{type(late).__name__} {late.message_id}, kept during the pause: {detail}")
    forward.advance(turn)
    backward.advance(turn)
    return verdict


_FORWARD = (RunStatus.ISSUED, RunStatus.RETRYING, RunStatus.SETTLING)
_BACKWARD = (RunStatus.UNKNOWN, *backward.UNDER_WAY)
_MAY_BE_UNDONE = (RunStatus.DONE, RunStatus.ISSUED, RunStatus.RETRYING, RunStatus.STUCK)
_NEVER_DONE = (RunStatus.REJECTED, RunStatus.CLOSED)


def _answered(turn: Turn, message: Answered) -> tuple[Verdict, str]:
    if message.incarnation != turn.before.incarnation:
        return Verdict.LATE, f"it belongs to incarnation {message.incarnation}, this is {turn.before.incarnation}"
    run = turn.runs.get(message.run)
    if run is None and turn.suspect is not None and message.run.partition("#")[0] in turn.definition.steps:
        return reconcile.unissued(turn, message)
    if run is None or run.command is None:
        return Verdict.UNEXPECTED, f"no command of {message.run} was ever sent"
    if reconcile.out_of_date(run, message):
        return Verdict.LATE, "the store has lost commits since; the question has been asked again"
    if run.forgotten and lost.is_open(run):
        return reconcile.found(turn, run, message)
    if run.status is RunStatus.CHECKING or run.stuck_on == "check":
        return reconcile.checked(turn, run, message)
    undone = message.outcome in (ReplyOutcome.UNDONE, ReplyOutcome.UNDO_FAILED)
    if undone and turn.suspect is not None and turn.phase is Phase.RUNNING and run.status in _MAY_BE_UNDONE:
        return reconcile.turned_back(turn, run, message)
    if run.status in _FORWARD or (run.status is RunStatus.STUCK and run.stuck_on == "outcome"):
        return forward.answered(turn, run, message)
    if run.status in _BACKWARD:
        return backward.answered(turn, run, message)
    unasked = undone and not run.undo_attempt and run.status is not RunStatus.UNDONE
    if unasked or (message.outcome is ReplyOutcome.DONE and run.status in _NEVER_DONE):
        return Verdict.UNEXPECTED, f"{run.key} is {run.status}, and yet {run.service} says that it is {message.outcome}"
    return Verdict.LATE, f"{run.key} is {run.status} already"


def _timers(turn: Turn, message: TimersFired) -> tuple[Verdict, str]:
    if message.incarnation != turn.before.incarnation:
        return Verdict.LATE, "it belongs to an earlier incarnation"
    due = [run.key for run in turn.runs.values() if run.wake_at is not None and run.wake_at <= turn.now]
    late = turn.deadline is not None and turn.deadline <= turn.now
    if not due and not late:
        return Verdict.DUPLICATE, "nothing is due any more"
    for key in due:
        run = turn.runs[key]
        # one timer may have changed what the next one is for, as when the first turns the saga round
        if run.wake_at is None or run.wake_at > turn.now:
            continue
        if run.status is RunStatus.CHECKING:
            reconcile.check(turn, run)
        elif run.status is RunStatus.SLEEPING and run is turn.pivot_run() and turn.reconciling():
            turn.change(run, wake_at=turn.resend_at(1, run.key))
        elif run.status in _BACKWARD:
            backward.wake(turn, run)
        else:
            forward.wake(turn, run)
    if late and turn.phase is Phase.RUNNING:
        operator.deadline(turn)
    forward.advance(turn)
    backward.advance(turn)
    return Verdict.APPLIED, ""
