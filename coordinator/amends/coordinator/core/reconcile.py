"""When the store may have lost commits: asking again about all that was issued, and what the answers mean.

A store that was failed over or restored shows a saga as it was, and the participants know what has happened since.
So what is in flight is sent again, which is answered from their records, and of what is done they are asked whether it
still is. The saga dispatches nothing new before they have said so. If anything was undone, the saga had turned back:
it turns back again.
"""

from __future__ import annotations

from amends.contracts import Failure, ReplyOutcome
from amends.coordinator.core import backward, forward
from amends.coordinator.core.inputs import Answered, AnyInput, RolledBack
from amends.coordinator.core.journal import What
from amends.coordinator.core.lost import LEAP, is_open, leap_of
from amends.coordinator.core.sending import send_command, settle
from amends.coordinator.core.snapshot import Phase, RunStatus, Snapshot, StepRun, Suspect
from amends.coordinator.core.turn import Turn, Verdict
from amends.coordinator.declaration.definition import Definition, StepKind

_BACKWARD = (ReplyOutcome.UNDONE, ReplyOutcome.UNDO_FAILED)
"""What only a saga that goes back is told."""

_ASKED = (RunStatus.ISSUED, RunStatus.RETRYING, RunStatus.SETTLING, RunStatus.CHECKING)


def sign_of_loss(definition: Definition, snapshot: Snapshot, message: AnyInput, epoch: str) -> RolledBack | None:
    """What to tell a saga first when the store, of this epoch, or a message shows that commits of it may be lost.

    An empty `epoch` is that of a store which cannot tell.
    """
    if snapshot.phase.ended:
        return None
    ours = isinstance(message, Answered) and message.incarnation == snapshot.incarnation
    known = message.version if isinstance(message, Answered) and ours else 0
    if epoch and snapshot.epoch != epoch:
        why = "the store was restarted, failed over or restored since the saga was last looked through"
    elif isinstance(message, Answered) and ours:
        why = _sign_in(definition, snapshot, message)
    else:
        return None
    if not why:
        return None
    answered = message.attempt if isinstance(message, Answered) and ours else 0
    return RolledBack(message_id=message.message_id, why=why, epoch=epoch, known=known, answered=answered)


def _sign_in(definition: Definition, snapshot: Snapshot, message: Answered) -> str:
    if message.version > snapshot.version:
        return f"an answer to {message.run} names version {message.version}, the store has {snapshot.version}"
    if message.version == snapshot.version and message.commit_id not in ("", snapshot.commit_id):
        return f"an answer to {message.run} names another version {message.version} than the store has"
    run = snapshot.runs.get(message.run)
    if run is not None and message.attempt > run.sent:
        return f"an answer is to message {message.attempt} about {message.run}, the store knows of {run.sent}"
    if snapshot.suspect is not None or snapshot.phase is not Phase.RUNNING:
        return ""
    if run is None and message.run.partition("#")[0] in definition.steps:
        return f"an answer to {message.run} came, and the store does not know that it was issued"
    if message.outcome in _BACKWARD and run is not None and run.command is not None and not run.undo_attempt:
        return f"an answer says that {message.run} is {message.outcome}, and the saga goes forward"
    return ""


def begin(turn: Turn, word: RolledBack) -> tuple[Verdict, str]:
    """Ask about everything again. A paused saga asks when it is resumed; one that goes back does so anyhow."""
    since = turn.suspect.since if turn.suspect is not None else turn.before.clock
    turn.epoch = word.epoch or turn.epoch
    turn.suspect = Suspect(since, word.why, leap_of(turn, word))
    turn.version = max(turn.before.version, word.known) + LEAP
    turn.note(What.ROLLED_BACK, "", word.why)
    for run in list(turn.runs.values()):
        if run.command is not None:
            _ask_again(turn, turn.change(run, leap=turn.suspect.leap, heard=turn.suspect.leap + run.sent - run.leap))
    return Verdict.RECONCILING, word.why


def _ask_again(turn: Turn, run: StepRun) -> None:
    plan = turn.plan(run)
    paused = turn.paused_at is not None
    match run.status:
        case RunStatus.ISSUED | RunStatus.RETRYING:
            # the question is new, and so is the time for the answer
            run = turn.change(run, timeout_at=None if plan.timeout is None else turn.after(plan.timeout))
            if paused:
                turn.change(run, wake_at=turn.now)
            else:
                send_command(turn, run)
        case RunStatus.SETTLING if paused:
            turn.change(run, wake_at=turn.now)
        case RunStatus.SETTLING:
            settle(turn, run)
        case _ if turn.phase is not Phase.RUNNING or turn.past_pivot() or plan.kind is not StepKind.COMPENSATABLE:
            pass
        case RunStatus.DONE if run.vouched:
            pass
        case RunStatus.STUCK if run.stuck_on not in ("answer", "check"):
            pass
        case RunStatus.DONE | RunStatus.STUCK | RunStatus.CHECKING if paused:
            turn.change(run, status=RunStatus.CHECKING, wake_at=turn.now)
        case RunStatus.DONE | RunStatus.STUCK | RunStatus.CHECKING:
            check(turn, run)
        case _:
            pass


def check(turn: Turn, run: StepRun) -> None:
    """Ask the participant whether a run is still done; again, if it was asked before."""
    settle(turn, run, RunStatus.CHECKING)


def out_of_date(run: StepRun, message: Answered) -> bool:
    """Whether an answer is to a question from before commits were lost, which has been asked again.

    What was done then may be undone now. A participant that does not number its answers is believed.
    """
    return 0 < message.attempt <= run.leap and run.status in _ASKED and message.outcome not in _BACKWARD


def checked(turn: Turn, run: StepRun, message: Answered) -> tuple[Verdict, str]:
    """An answer about a run that was done."""
    match message.outcome:
        case ReplyOutcome.DONE:
            _stands(turn, run)
        case ReplyOutcome.UNDONE | ReplyOutcome.UNDO_FAILED:
            return turned_back(turn, run, message)
        case ReplyOutcome.CLOSED | ReplyOutcome.REJECTED:
            failure = Failure("lost-commit", f"{run.service} says that {run.key} is {message.outcome}, but it was done")
            turn.note(What.STEP_CLOSED, run.key, failure.message)
            turn.close_run(run, RunStatus.DONE, stuck_on="")
            backward.go_back(turn, failure)
        case ReplyOutcome.IN_DOUBT if message.attempt > run.heard and run.status is RunStatus.CHECKING:
            _in_doubt(turn, turn.change(run, heard=message.attempt))
        case _:
            return Verdict.LATE, f"{run.key} is {run.status}; that says nothing new of it"
    return Verdict.APPLIED, ""


def _stands(turn: Turn, run: StepRun) -> None:
    if run.stuck_on == "answer":
        forward.succeed(turn, turn.plan(run), run)
    else:
        turn.change(run, status=RunStatus.DONE, wake_at=None, stuck_on="", failure=None)
    if not any(other.status is RunStatus.CHECKING for other in turn.runs.values()):
        turn.note(What.RECONCILED)
    forward.advance(turn)


def _in_doubt(turn: Turn, run: StepRun) -> None:
    policy = turn.policy.settle_retry
    doubts = run.failures + 1
    if policy.exhausted(doubts):
        failure = Failure("in-doubt", f"{run.service} cannot say whether {run.key}, which was done, still is")
        turn.stick(turn.change(run, failures=0), "check", failure)
        return
    wait = policy.wait(doubts, f"{turn.before.incarnation}/{run.key}/check")
    turn.note(What.STEP_SETTLING, run.key, f"{run.service} is in doubt; asking again in {wait.total_seconds():.1f} s")
    turn.change(run, failures=doubts, wake_at=turn.after(wait))


def turned_back(turn: Turn, run: StepRun, message: Answered) -> tuple[Verdict, str]:
    """A run is undone, or its undo has failed, and this saga has not asked for it: so a lost commit did."""
    failure = Failure("lost-commit", f"{run.key} is {message.outcome}: the saga had turned back in a lost commit")
    undone = message.outcome is ReplyOutcome.UNDONE
    turn.note(What.STEP_UNDONE if undone else What.UNDO_FAILED, run.key, failure.message)
    if turn.past_pivot():
        turn.stick(run, "outcome", failure)
        return Verdict.APPLIED, ""
    if undone:
        turn.close_run(run, RunStatus.UNDONE, stuck_on="")
    backward.go_back(turn, failure)
    return Verdict.APPLIED, ""


def unissued(turn: Turn, message: Answered) -> tuple[Verdict, str]:
    """An answer about a run of which the saga remembers nothing: a lost commit issued it."""
    plan = turn.definition.steps[message.run.partition("#")[0]]
    if turn.phase is Phase.RUNNING and message.outcome in _BACKWARD and not turn.past_pivot():
        told = f"{message.run} is {message.outcome}: the saga had turned back in a lost commit"
        turn.note(What.LATE, message.run, told)
        backward.go_back(turn, Failure("lost-commit", told))
        return Verdict.APPLIED, ""
    beyond = plan.kind in (StepKind.PIVOT, StepKind.RETRIABLE)
    if turn.phase is Phase.RUNNING and message.outcome is ReplyOutcome.DONE and beyond and not turn.past_pivot():
        only_forward(turn, message.run)
        return Verdict.APPLIED, ""
    return Verdict.LATE, f"a lost commit issued {message.run}; it is asked about again when its turn comes"


def found(turn: Turn, run: StepRun, message: Answered) -> tuple[Verdict, str]:
    """An answer about a run that was asked about on suspicion, before going back."""
    plan = turn.plan(run)
    undoable = plan.kind is StepKind.COMPENSATABLE
    match message.outcome:
        case ReplyOutcome.DONE if undoable:
            forward.succeed(turn, plan, turn.change(run, reply=message.recording))
        case ReplyOutcome.DONE:
            only_forward(turn, run.key)
            return Verdict.APPLIED, ""
        case ReplyOutcome.CLOSED | ReplyOutcome.REJECTED:
            turn.note(What.STEP_CLOSED, run.key, "no lost commit has had it done")
            turn.close_run(run, RunStatus.CLOSED, stuck_on="")
        case ReplyOutcome.UNDONE:
            turn.note(What.STEP_UNDONE, run.key, "in a lost commit")
            turn.close_run(run, RunStatus.UNDONE, stuck_on="")
        case ReplyOutcome.IN_DOUBT | ReplyOutcome.UNDO_FAILED if undoable:
            turn.close_run(run, RunStatus.UNKNOWN, stuck_on="")
        case ReplyOutcome.IN_DOUBT if run.status is RunStatus.SETTLING and message.attempt > run.heard:
            forward.in_doubt(turn, turn.change(run, heard=message.attempt))
            return Verdict.APPLIED, ""
        case _:
            return Verdict.LATE, f"{run.key} is {run.status}; that says nothing new of it"
    go_on_back(turn)
    return Verdict.APPLIED, ""


def go_on_back(turn: Turn) -> None:
    """Go on with finding out, or turn round when all is found out."""
    assert turn.aborting is not None
    if turn.past_pivot():
        forward.abort_too_late(turn)
        forward.advance(turn)
    else:
        backward.go_back(turn, turn.aborting)


def only_forward(turn: Turn, key: str) -> None:
    """The pivot happened: what was asked about on suspicion comes when its turn comes, and is answered from records."""
    turn.committed = True
    turn.note(What.LATE, key, "it happened in a lost commit: the saga only goes forward")
    for run in list(turn.runs.values()):
        begins_anew = run.command is None and run.status is RunStatus.CLOSED
        if begins_anew or (run.forgotten and (is_open(run) or run.status is RunStatus.UNKNOWN)):
            del turn.runs[run.key]
    if turn.aborting is not None:
        forward.abort_too_late(turn)
    forward.advance(turn)
