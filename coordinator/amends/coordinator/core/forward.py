"""Going forward: dispatching steps, and what their answers and timers mean."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from amends.contracts import (
    Command,
    DecodeError,
    Failure,
    Message,
    Rejection,
    ReplyOutcome,
    TerminalError,
    as_timedelta,
    codec_for,
)
from amends.contracts.payloads import Done
from amends.coordinator.core import backward
from amends.coordinator.core.inputs import Answered, EventReceived, SignalReceived
from amends.coordinator.core.journal import What
from amends.coordinator.core.matching import matches
from amends.coordinator.core.sending import failure_in, publish, send_command, settle
from amends.coordinator.core.snapshot import Awaits, Buffered, Phase, Recording, RunStatus, StepRun
from amends.coordinator.core.turn import Turn, UserCodeError, Verdict, earliest
from amends.coordinator.declaration.definition import Plan, StepKind
from amends.coordinator.declaration.results import Compensate, Publish, Skip, Sleep, WaitFor
from amends.coordinator.retry import Retry

PASSED = (RunStatus.DONE, RunStatus.SKIPPED, RunStatus.WAIVED)
"""A step in one of these no longer holds up those after it."""


def advance(turn: Turn) -> None:
    """Dispatch every step whose predecessors are through; end the saga when all are.

    While it is open whether what was done still is, nothing is dispatched.
    """
    if turn.phase is not Phase.RUNNING or turn.paused_at is not None or turn.aborting is not None:
        return
    if turn.suspect is not None:
        if turn.reconciling():
            return
        _hand_out(turn)
    through = {run.step for run in turn.runs.values() if run.status in PASSED}
    begun = {run.step for run in turn.runs.values()}
    # plans are in topological order: one pass sees what it lets through itself
    for plan in turn.definition.steps.values():
        if plan.name in begun or not through.issuperset(plan.after):
            continue
        run = dispatch(turn, plan)
        begun.add(plan.name)
        if run.status in PASSED:
            through.add(plan.name)
    if len(through) == len(turn.definition.steps):
        turn.end(Phase.COMPLETED)


def dispatch(turn: Turn, plan: Plan) -> StepRun:
    """Begin a step: ask its method what to do, and do it. What cannot be done leaves it stuck, the state as it was."""
    # commits that the store has lost may have sent messages about this very run
    run = StepRun(plan.name, RunStatus.ISSUED, leap=0 if turn.suspect is None else turn.suspect.leap)
    before = turn.state
    try:
        return _begin(turn, plan, run)
    except UserCodeError as error:
        turn.state = before
        return turn.stick(run, "act", error.failure)


def _begin(turn: Turn, plan: Plan, run: StepRun) -> StepRun:
    if plan.when is not None and not turn.call(plan.when, run, "when"):
        turn.note(What.STEP_SKIPPED, run.key, "its condition is false")
        return turn.close_run(run, RunStatus.SKIPPED, note="its condition is false")
    result = turn.call(plan.act, run, "act")
    if not _as_annotated(plan, result):
        raise UserCodeError(_not_as_annotated(turn, plan, result))
    match result:
        case Command():
            return _issue(turn, plan, run, result)
        case WaitFor():
            return _wait(turn, plan, run, result)
        case Sleep():
            wake_at = turn.after(as_timedelta(result.duration))
            turn.note(What.STEP_SLEEPING, run.key, f"until {wake_at:%Y-%m-%d %H:%M:%S} UTC")
            return turn.change(run, status=RunStatus.SLEEPING, wake_at=wake_at, issued_at=turn.now)
        case Publish():
            publish(turn, run, result)
            return turn.close_run(run, RunStatus.DONE)
        case Skip():
            turn.note(What.STEP_SKIPPED, run.key, result.reason)
            return turn.close_run(run, RunStatus.SKIPPED, note=result.reason)
        case _:
            turn.note(What.STEP_DONE, run.key)
            return turn.close_run(run, RunStatus.DONE)


def _as_annotated(plan: Plan, result: Any) -> bool:
    if result is None:
        return plan.optional
    if isinstance(result, WaitFor) and result.type not in plan.awaits.values():
        return False
    return isinstance(result, plan.returns)


def _not_as_annotated(turn: Turn, plan: Plan, result: Any) -> Failure:
    wanted = [f"WaitFor[{word.__name__}]" for word in plan.awaits.values()]
    wanted += [arm.__name__ for arm in plan.returns if arm is not WaitFor]
    if plan.optional:
        wanted.append("None")
    got = f"WaitFor({result.type.__name__})" if isinstance(result, WaitFor) else type(result).__name__
    where = f"{turn.definition.saga.__name__}.{plan.name}"
    return Failure("TypeError", f"{where} returned {got}, its annotation says {' | '.join(wanted)}")


def _issue(turn: Turn, plan: Plan, run: StepRun, command: Command[Any, Any]) -> StepRun:
    run = turn.change(
        run,
        service=type(command).__service__ or "",
        command=turn.record(command),
        issued_at=turn.now,
        timeout_at=None if plan.timeout is None else turn.after(plan.timeout),
    )
    return send_command(turn, run)


# waits


def _wait(turn: Turn, plan: Plan, run: StepRun, wait: WaitFor[Any]) -> StepRun:
    timeout_at = None if plan.timeout is None else turn.after(plan.timeout)
    awaits = awaited(wait)
    run = turn.change(
        run,
        status=RunStatus.AWAITING,
        awaits=awaits,
        issued_at=turn.now,
        timeout_at=timeout_at,
        wake_at=timeout_at,
    )
    turn.note(What.STEP_AWAITING, run.key, awaits.type)
    return _from_buffer(turn, run)


def _from_buffer(turn: Turn, run: StepRun) -> StepRun:
    """Give a waiting run what has come for it already."""
    for buffered in turn.buffer:
        recording = Recording(buffered.type, buffered.data, buffered.content_type)
        if run.awaits is not None and matches(run.awaits, recording):
            turn.buffer = tuple(b for b in turn.buffer if b is not buffered)
            return _arrived(turn, turn.plan(run), run, recording)
    return run


def _hand_out(turn: Turn) -> None:
    """Give a pivot the word that was kept from it while the saga was reconciling."""
    pivot = turn.pivot_run()
    if pivot is not None and pivot.status is RunStatus.AWAITING:
        _from_buffer(turn, pivot)


def awaited(wait: WaitFor[Any]) -> Awaits:
    """What a wait is for, in the form that is stored and matched."""
    where = tuple((name, msgspec.json.encode(value)) for name, value in sorted((wait.where or {}).items()))
    return Awaits(wait.type.__tag__, where)


def receive(turn: Turn, word: SignalReceived | EventReceived) -> tuple[Verdict, str]:
    """Give a signal or event to the run that awaits it, or keep it for one that will.

    Raises `TerminalError` for one that cannot be read, before it can do harm.
    """
    recording = word.recording
    what = What.SIGNAL_RECEIVED if isinstance(word, SignalReceived) else What.EVENT_RECEIVED
    if turn.phase is not Phase.RUNNING:
        return Verdict.REFUSED, f"the saga is {turn.phase}; nobody awaits {recording.type} any more"
    coming = [plan for plan in turn.definition.steps.values() if recording.type in plan.awaits]
    for plan in coming:
        codec_for(recording.content_type).decode(recording.data, plan.awaits[recording.type])
    kept_from_pivot = False
    for run in turn.runs.values():
        if run.status is RunStatus.AWAITING and run.awaits is not None and matches(run.awaits, recording):
            if run is turn.pivot_run() and turn.reconciling():
                kept_from_pivot = True
                break
            turn.note(what, run.key, recording.type)
            _arrived(turn, turn.plan(run), run, recording)
            advance(turn)
            return Verdict.APPLIED, ""
    begun = {run.step for run in turn.runs.values() if not run.unbegun}
    if not kept_from_pivot and not any(plan.name not in begun for plan in coming):
        known = ", ".join(sorted({tag for plan in turn.definition.steps.values() for tag in plan.awaits})) or "nothing"
        problem = "none of its steps awaits it any more" if coming else f"no step ever does; its steps await {known}"
        return Verdict.REFUSED, f"{turn.definition.name} {turn.before.id} does not await {recording.type}: {problem}"
    if len(turn.buffer) >= turn.policy.buffer_limit:
        return (
            Verdict.REFUSED,
            f"{len(turn.buffer)} signals and events are waiting already; no room for {recording.type}",
        )
    turn.buffer = (*turn.buffer, Buffered(word.message_id, recording.type, recording.data, recording.content_type))
    turn.note(What.BUFFERED, "", recording.type)
    return Verdict.APPLIED, ""


def _arrived(turn: Turn, plan: Plan, run: StepRun, recording: Recording) -> StepRun:
    run = turn.change(run, reply=recording)
    return succeed(turn, plan, run)


# answers


def answered(turn: Turn, run: StepRun, message: Answered) -> tuple[Verdict, str]:
    """A participant's answer to the command, or the settle, of a run that is still open."""
    plan = turn.plan(run)
    settling = run.status is RunStatus.SETTLING
    match message.outcome:
        case ReplyOutcome.DONE:
            succeed(turn, plan, turn.change(run, reply=message.recording))
        case ReplyOutcome.REJECTED:
            if message.revision != run.revision:
                return Verdict.LATE, f"it rejects revision {message.revision}, now it is {run.revision}"
            if _heard_before(run, message) or (run.status is RunStatus.STUCK and run.reply == message.recording):
                return Verdict.DUPLICATE, f"{run.key} was stuck on this rejection already"
            _rejected(turn, plan, run, message.recording)
        case ReplyOutcome.CLOSED:
            failure = run.failure or Failure("closed", f"{run.service} closed {run.key}: it will never happen")
            only_forward = turn.past_pivot() or plan.kind is StepKind.RETRIABLE
            if _heard_before(run, message) or (only_forward and run.status is RunStatus.STUCK):
                return Verdict.DUPLICATE, f"{run.key} was stuck already"
            turn.note(What.STEP_CLOSED, run.key)
            if only_forward:
                turn.stick(run, "outcome", failure)
            else:
                run = turn.close_run(run, RunStatus.CLOSED)
                _go_back(turn, run, turn.aborting or failure)
        case ReplyOutcome.FAILED:
            if settling or run.status is RunStatus.STUCK:
                return Verdict.LATE, f"{run.key} is {run.status}: its outcome must be known"
            if message.attempt <= run.heard:
                return Verdict.DUPLICATE, "this failure, or a later one, is counted"
            # also of an attempt before the last: an action that takes longer than the resend would never have failed
            _failed(turn, plan, turn.change(run, heard=message.attempt), failure_in(message.recording))
        case ReplyOutcome.IN_DOUBT:
            if run.status is RunStatus.STUCK:
                return Verdict.LATE, f"{run.key} is stuck: asking has been given up"
            if message.attempt <= run.heard:
                return Verdict.DUPLICATE, "this doubt, or a later one, is counted"
            run = turn.change(run, heard=message.attempt)
            if settling:
                in_doubt(turn, run)
            else:
                _give_up(turn, plan, run, Failure("in-doubt", f"{run.service} cannot say whether {run.key} happened"))
        case ReplyOutcome.UNDONE | ReplyOutcome.UNDO_FAILED:
            return Verdict.UNEXPECTED, f"{run.key} is {run.status}; nobody asked to undo it"
        case _:
            assert_never(message.outcome)
    if turn.aborting is not None and turn.past_pivot():
        abort_too_late(turn)
    advance(turn)
    return Verdict.APPLIED, ""


def _heard_before(run: StepRun, message: Answered) -> bool:
    """Whether a "no" is to a message before the one that an operator's retry sent."""
    return run.status in (RunStatus.ISSUED, RunStatus.RETRYING) and message.attempt <= run.heard


def succeed(turn: Turn, plan: Plan, run: StepRun) -> StepRun:
    """The answer in `run.reply` has come: give it to the saga. What the saga cannot take leaves the run stuck."""
    assert run.reply is not None
    try:
        reply = read_reply(plan, run)
        if plan.on_success is not None:
            turn.call(plan.on_success, run, "on_success", reply)
    except UserCodeError as error:
        return turn.stick(run, "answer", error.failure)
    except TerminalError as error:
        return turn.stick(run, "answer", Failure(type(error).__name__, str(error)))
    turn.note(What.STEP_DONE, run.key, run.reply.type)
    return turn.close_run(run, RunStatus.DONE, stuck_on="", failure=None)


def read_reply(plan: Plan, run: StepRun) -> Message | None:
    """What has been answered; None where no reply is promised. Raises `TerminalError` when it is something else."""
    assert run.reply is not None
    types: dict[str, Any] = {**plan.awaits, **plan.replies}
    if run.reply.type == Done.__tag__ and not plan.replies:
        return None
    if run.reply.type not in types:
        promised = ", ".join(types) or Done.__tag__
        raise DecodeError(run.reply.type, f"{run.key} is answered with {promised}, not with this")
    message: Message = codec_for(run.reply.content_type).decode(run.reply.data, types[run.reply.type])
    return message


def _rejected(turn: Turn, plan: Plan, run: StepRun, recording: Recording) -> None:
    failure = Failure(recording.type, recording.data[:500].decode(errors="replace"))
    turn.note(What.STEP_REJECTED, run.key, recording.type)
    run = turn.change(run, reply=recording, failure=failure)
    if turn.past_pivot() or plan.kind is StepKind.RETRIABLE:
        turn.stick(run, "outcome", failure)
        return
    expected = plan.rejections.get(recording.type)
    if expected is None and any(not command.__rejections__ for command in plan.commands):
        # a contract that names none leaves it open: the saga hears that it was refused, not with what
        expected = Rejection
    if plan.on_rejection is not None and expected is not None:
        try:
            rejection = codec_for(recording.content_type).decode(recording.data, expected)
        except TerminalError as error:
            turn.note(What.STEP_FAILED, run.key, f"the rejection cannot be read: {error}")
        else:
            failure = _decide(turn, failure, plan.on_rejection, run, "on_rejection", rejection)
    run = turn.close_run(run, RunStatus.REJECTED, failure=failure)
    _go_back(turn, run, turn.aborting or failure)


def _decide(turn: Turn, failure: Failure, handler: Any, run: StepRun, role: str, *arguments: Any) -> Failure:
    """Let the saga react to a bad outcome; give the failure with the saga's own reason.

    Going back is its only choice, so a handler that raises cannot prevent it.
    """
    try:
        decision = turn.call(handler, run, role, *arguments)
    except UserCodeError as error:
        told = f"{error.failure.error} in {error.failure.message}"
        turn.note(What.STEP_FAILED, run.key, f"{told}; going back all the same")
        return failure
    if isinstance(decision, Compensate) and decision.reason:
        return Failure(failure.error, decision.reason)
    return failure


def _failed(turn: Turn, plan: Plan, run: StepRun, failure: Failure) -> None:
    failures = run.failures + 1
    policy = policy_of(turn, plan)
    told = f"{failure.error}: {failure.message}"
    if failure.final or policy.exhausted(failures):
        turn.note(What.STEP_FAILED, run.key, f"{told} (attempt {failures}, the last)")
        _give_up(turn, plan, turn.change(run, failures=failures), failure)
        return
    wait = policy.wait(failures, f"{turn.before.incarnation}/{run.key}")
    turn.note(What.STEP_FAILED, run.key, f"{told} (attempt {failures}, again in {wait.total_seconds():.1f} s)")
    turn.change(
        run,
        status=RunStatus.RETRYING,
        failures=failures,
        failure=failure,
        wake_at=earliest(turn.after(wait), run.timeout_at),
    )


def policy_of(turn: Turn, plan: Plan) -> Retry:
    if plan.retry is not None:
        return plan.retry
    return turn.policy.retriable if plan.kind is StepKind.RETRIABLE else turn.policy.retry


def _give_up(turn: Turn, plan: Plan, run: StepRun, failure: Failure, *, timed_out: bool = False) -> None:
    """A step has no outcome and gets no more tries: it may have happened."""
    if plan.kind is StepKind.RETRIABLE or turn.past_pivot():
        turn.stick(run, "outcome", failure)
        return
    if timed_out and plan.on_timeout is not None:
        failure = _decide(turn, failure, plan.on_timeout, run, "on_timeout")
    elif not timed_out and plan.on_failure is not None:
        failure = _decide(turn, failure, plan.on_failure, run, "on_failure", failure)
    run = turn.change(run, failure=failure)
    if plan.kind is StepKind.PIVOT and run.command is not None:
        settle(turn, run)
    elif plan.kind is StepKind.COMPENSATABLE and run.command is not None:
        run = turn.close_run(run, RunStatus.UNKNOWN)
        _go_back(turn, run, failure)
    else:
        run = turn.close_run(run, RunStatus.FAILED)
        _go_back(turn, run, failure)


def _go_back(turn: Turn, run: StepRun, failure: Failure) -> None:
    if not backward.go_back(turn, failure):
        turn.stick(turn.runs[run.key], "outcome", failure)


def abort_too_late(turn: Turn) -> None:
    """The pivot turned out done while going back was wanted: forward it is, and what failed beside it is stuck."""
    assert turn.aborting is not None
    turn.note(What.CANCEL_TOO_LATE, "", f"the pivot is done; not going back for: {turn.aborting.message}")
    for run in list(turn.runs.values()):
        if run.status in (RunStatus.FAILED, RunStatus.REJECTED, RunStatus.CLOSED, RunStatus.UNDONE):
            turn.stick(run, "outcome", run.failure or turn.aborting)
        elif run.status is RunStatus.UNKNOWN:
            # only a pivot that a lost commit issued can be done before this is known: then this is done too
            timeout = turn.plan(run).timeout
            timeout_at = None if timeout is None else turn.after(timeout)
            send_command(turn, turn.change(run, heard=run.sent, failures=0, timeout_at=timeout_at, ended_at=None))
    turn.aborting = None


# settling


def in_doubt(turn: Turn, run: StepRun) -> None:
    """The participant cannot say what became of a run: ask again later, up to a limit."""
    policy = turn.policy.settle_retry
    doubts = run.failures + 1
    if policy.exhausted(doubts):
        failure = Failure("in-doubt", f"{run.service} still cannot say whether {run.key} happened")
        turn.stick(turn.change(run, failures=0), "outcome", failure)
        return
    wait = policy.wait(doubts, f"{turn.before.incarnation}/{run.key}/settle")
    turn.note(What.STEP_SETTLING, run.key, f"{run.service} is in doubt; asking again in {wait.total_seconds():.1f} s")
    turn.change(run, failures=doubts, wake_at=turn.after(wait))


# timers


def wake(turn: Turn, run: StepRun) -> None:
    """Something of a run that goes forward is due."""
    plan = turn.plan(run)
    if run.timeout_at is not None and run.timeout_at <= turn.now:
        waited = "" if plan.timeout is None else f" within {plan.timeout}"
        awaited_for = run.awaits.type if run.awaits is not None else f"answer of {run.service}"
        turn.note(What.STEP_TIMED_OUT, run.key, f"no {awaited_for}{waited}")
        _give_up(turn, plan, run, Failure("timeout", f"{run.key}: no {awaited_for}{waited}"), timed_out=True)
        return
    match run.status:
        case RunStatus.SLEEPING:
            turn.note(What.STEP_DONE, run.key)
            turn.close_run(run, RunStatus.DONE)
        case RunStatus.ISSUED | RunStatus.RETRYING:
            send_command(turn, run)
        case RunStatus.SETTLING:
            settle(turn, run)
        case _:
            turn.change(run, wake_at=None)
