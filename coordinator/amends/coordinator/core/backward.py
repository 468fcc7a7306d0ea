"""Going back: undoing what was done, and what may have been, in reverse order along the graph of the steps."""

from __future__ import annotations

from typing import Any, assert_never

from amends.contracts import Compensation, Failure, ReplyOutcome
from amends.coordinator.core import lost
from amends.coordinator.core.inputs import Answered
from amends.coordinator.core.journal import What
from amends.coordinator.core.sending import failure_in, publish, send_undo, settle
from amends.coordinator.core.snapshot import Phase, Recording, RunStatus, StepRun
from amends.coordinator.core.turn import Turn, UserCodeError, Verdict
from amends.coordinator.declaration.definition import Plan
from amends.coordinator.declaration.results import Publish

UNDER_WAY = (RunStatus.UNDOING, RunStatus.UNDO_RETRYING, RunStatus.UNDO_STUCK)


def go_back(turn: Turn, failure: Failure) -> bool:
    """Start to compensate, or first settle a pivot whose outcome is open, and what lost commits may have issued.

    False when only forward is left.
    """
    if turn.phase is not Phase.RUNNING:
        return True
    if turn.past_pivot():
        return False
    pivot = turn.pivot_run()
    if pivot is not None and pivot.command is not None and pivot.status in _OPEN_PIVOT:
        if turn.aborting is None:
            turn.aborting = failure
        if pivot.status is not RunStatus.SETTLING:
            settle(turn, pivot)
        return True
    if lost.find_out(turn):
        if turn.aborting is None:
            turn.aborting = failure
        return True
    _begin(turn, failure)
    return True


_OPEN_PIVOT = (RunStatus.ISSUED, RunStatus.RETRYING, RunStatus.SETTLING, RunStatus.STUCK)


def _begin(turn: Turn, failure: Failure) -> None:
    turn.phase = Phase.COMPENSATING
    turn.failure = failure
    turn.aborting = None
    turn.deadline = None
    turn.buffer = ()
    turn.note(
        What.COMPENSATION_STARTED, "", f"{failure.error}: {failure.message}" if failure.message else failure.error
    )
    lost.warn(turn)
    for run in list(turn.runs.values()):
        _turn_round(turn, run)
    advance(turn)


def _turn_round(turn: Turn, run: StepRun) -> None:
    """What an open run is now that the saga goes back: something in flight has an unknown outcome."""
    undoable = turn.plan(run).compensation is not None
    match run.status:
        case RunStatus.ISSUED | RunStatus.RETRYING:
            turn.close_run(run, RunStatus.UNKNOWN if undoable else RunStatus.FAILED)
        case RunStatus.AWAITING | RunStatus.SLEEPING:
            turn.close_run(run, RunStatus.CLOSED)
        case RunStatus.STUCK if run.stuck_on == "act":
            turn.close_run(run, RunStatus.CLOSED)
        case RunStatus.CHECKING:
            # an undo asks by itself whether there is anything to undo
            turn.close_run(run, RunStatus.DONE, stuck_on="")
        case RunStatus.STUCK if run.stuck_on in ("answer", "check"):
            turn.close_run(run, RunStatus.DONE)
        case RunStatus.STUCK:
            turn.close_run(run, RunStatus.UNKNOWN if undoable and run.command is not None else RunStatus.FAILED)
        case _:
            pass


def to_undo(turn: Turn, run: StepRun) -> bool:
    """Whether a run is done, or may be, and its undo has not been begun."""
    return turn.plan(run).compensation is not None and run.status in (RunStatus.DONE, RunStatus.UNKNOWN)


def advance(turn: Turn) -> None:
    """Undo every run behind which nothing is left to undo; end the saga when all are undone."""
    if turn.phase is not Phase.COMPENSATING or turn.paused_at is not None:
        return
    again = True
    while again:
        again = False
        pending = {run.step for run in turn.runs.values() if run.status in UNDER_WAY or to_undo(turn, run)}
        for run in list(turn.runs.values()):
            if to_undo(turn, run) and pending.isdisjoint(turn.plan(run).descendants):
                # what is undone on the spot may let its predecessors go
                again |= _undo(turn, run).status is RunStatus.UNDONE
        if not pending:
            turn.end(Phase.COMPENSATED)


def _undo(turn: Turn, run: StepRun) -> StepRun:
    """Ask the saga how to undo a run, and begin it."""
    before = turn.state
    try:
        return _begin_undo(turn, turn.plan(run), run)
    except UserCodeError as error:
        turn.state = before
        return turn.stick(run, "compensation", error.failure)


def _begin_undo(turn: Turn, plan: Plan, run: StepRun) -> StepRun:
    assert plan.compensation is not None
    if run.forgotten:
        run = turn.change(run, command=lost.wording(turn, run))
    result = turn.call(plan.compensation, run, "compensation")
    match result:
        case Compensation() if run.command is not None and _undoes(plan, result, run.command):
            return send_undo(turn, turn.change(run, undo=turn.record(result), heard=run.sent))
        case Publish():
            publish(turn, run, result)
        case None:
            pass
        case _:
            name = f"{turn.definition.saga.__name__}.{getattr(plan.compensation, '__name__', 'compensation')}"
            asked = "asked nobody" if run.command is None else f"asked for {run.command.type}"
            problem = f"{name} returned {type(result).__name__}, which does not undo {run.key}: that {asked}"
            raise UserCodeError(Failure("TypeError", problem))
    turn.note(What.STEP_UNDONE, run.key)
    return turn.close_run(run, RunStatus.UNDONE)


def _undoes(plan: Plan, undo: Compensation[Any], command: Recording) -> bool:
    """Whether an undo is of this command, where the step may ask for several."""
    known = {asked.__tag__ for asked in plan.commands}
    return isinstance(undo, plan.undos) and (command.type not in known or undo.__command__.__tag__ == command.type)


def answered(turn: Turn, run: StepRun, message: Answered) -> tuple[Verdict, str]:
    """A participant's answer about a run that is to be undone, or being undone."""
    asked = run.status in UNDER_WAY and run.undo is not None
    match message.outcome:
        case ReplyOutcome.UNDONE:
            if not asked:
                return Verdict.UNEXPECTED, f"{run.key} is {run.status}; nobody has asked to undo it yet"
            turn.note(What.STEP_UNDONE, run.key)
            turn.close_run(run, RunStatus.UNDONE, stuck_on="")
        case ReplyOutcome.CLOSED if run.reply is None:
            turn.note(What.NOTHING_TO_UNDO, run.key)
            turn.close_run(run, RunStatus.CLOSED, stuck_on="")
        case ReplyOutcome.UNDO_FAILED | ReplyOutcome.IN_DOUBT | ReplyOutcome.CLOSED:
            if run.status is RunStatus.UNDO_STUCK or run.undo is None:
                return Verdict.LATE, f"{run.key} is {run.status}"
            if message.attempt <= run.heard:
                return Verdict.DUPLICATE, "this failure, or a later one, is counted"
            failure = failure_in(message.recording)
            if message.outcome is ReplyOutcome.CLOSED:
                # a reply is proof that it happened
                failure = Failure("closed", f"{run.service} says that {run.key} never happened, but had replied to it")
            _undo_failed(turn, turn.change(run, heard=message.attempt), failure)
        case ReplyOutcome.DONE:
            if run.reply is not None:
                return Verdict.DUPLICATE, "this reply is recorded"
            turn.note(What.LATE, run.key, f"{message.recording.type} came after the saga had turned back")
            turn.change(run, reply=message.recording)
        case ReplyOutcome.REJECTED:
            if asked or message.revision != run.revision:
                return Verdict.LATE, "its undo is under way and will be answered"
            turn.note(What.STEP_REJECTED, run.key, message.recording.type)
            turn.close_run(run, RunStatus.REJECTED, reply=message.recording)
        case ReplyOutcome.FAILED:
            return Verdict.LATE, "its outcome stays unknown; its undo settles it"
        case _:
            assert_never(message.outcome)
    advance(turn)
    return Verdict.APPLIED, ""


def _undo_failed(turn: Turn, run: StepRun, failure: Failure) -> None:
    failures = run.undo_failures + 1
    told = f"{failure.error}: {failure.message}"
    policy = turn.policy.undo_retry
    if failure.final or policy.exhausted(failures):
        turn.note(What.UNDO_FAILED, run.key, f"{told} (attempt {failures}, the last)")
        turn.stick(turn.change(run, undo_failures=failures), "undo", failure)
        return
    wait = policy.wait(failures, f"{turn.before.incarnation}/{run.key}/undo")
    turn.note(What.UNDO_FAILED, run.key, f"{told} (attempt {failures}, again in {wait.total_seconds():.1f} s)")
    turn.change(run, status=RunStatus.UNDO_RETRYING, undo_failures=failures, failure=failure, wake_at=turn.after(wait))


def wake(turn: Turn, run: StepRun) -> None:
    """The undo of a run is due to be sent again."""
    if run.status in (RunStatus.UNDOING, RunStatus.UNDO_RETRYING):
        send_undo(turn, run)
    else:
        turn.change(run, wake_at=None)
