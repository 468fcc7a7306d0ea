"""Words from outside: cancel, pause and resume, and what an operator decides about a stuck step."""

from __future__ import annotations

from msgspec.structs import replace

from amends.contracts import Failure, TerminalError
from amends.contracts.payloads import Done
from amends.coordinator.core import backward, forward, lost, reconcile
from amends.coordinator.core.inputs import Cancel, Pause, ResolveStep, Resume, RetryStep, SkipStep
from amends.coordinator.core.journal import What
from amends.coordinator.core.sending import send_command, send_undo, settle
from amends.coordinator.core.snapshot import Phase, Recording, RunStatus, StepRun, Waived
from amends.coordinator.core.turn import Turn, Verdict, later
from amends.coordinator.declaration.definition import StepKind

Answer = tuple[Verdict, str]


def cancel(turn: Turn, word: Cancel) -> Answer:
    """Go back from wherever the saga is, unless the pivot is through."""
    if turn.phase is Phase.COMPENSATING:
        return Verdict.DUPLICATE, "it is going back already"
    if turn.aborting is not None:
        return Verdict.DUPLICATE, "it will go back as soon as the pivot's outcome is known, unless that is done"
    if turn.past_pivot():
        return Verdict.REFUSED, f"too late: {_pivot_name(turn)} is done, and what comes after it only goes forward"
    turn.note(What.CANCEL_REQUESTED, "", f"{word.by}: {word.reason}" if word.by else word.reason)
    backward.go_back(turn, Failure("cancelled", word.reason))
    return Verdict.APPLIED, ""


def _pivot_name(turn: Turn) -> str:
    return turn.definition.pivot.name if turn.definition.pivot is not None else "the pivot"


def deadline(turn: Turn) -> None:
    """The saga's own deadline has passed: go back if that is still possible."""
    turn.deadline = None
    if turn.past_pivot():
        turn.note(What.DEADLINE_PASSED, "", f"{_pivot_name(turn)} is done: going forward, late")
        return
    turn.note(What.DEADLINE_PASSED)
    if turn.aborting is None:
        backward.go_back(turn, Failure("deadline", f"not through within {turn.definition.deadline}"))


def pause(turn: Turn, word: Pause) -> Answer:
    """Dispatch nothing from here on; keep what comes in."""
    turn.paused_at = turn.now
    turn.note(What.PAUSED, "", f"{word.by}: {word.reason}" if word.by else word.reason)
    return Verdict.APPLIED, ""


def resume(turn: Turn, word: Resume) -> Answer:
    """Go on. The waits of the steps begin where they stood at the pause; the saga's deadline does not move."""
    assert turn.paused_at is not None
    pause = turn.now - turn.paused_at
    for run in list(turn.runs.values()):
        if run.wake_at is None and run.timeout_at is None:
            continue
        sleeping = run.status is RunStatus.SLEEPING
        turn.change(
            run,
            wake_at=run.wake_at if sleeping or run.wake_at is None else later(run.wake_at, pause),
            timeout_at=None if run.timeout_at is None else later(run.timeout_at, pause),
        )
    turn.paused_at = None
    turn.note(What.RESUMED, "", word.by)
    return Verdict.APPLIED, ""


def _changed(turn: Turn, word: RetryStep | SkipStep | ResolveStep) -> str | None:
    if word.expected_version is not None and word.expected_version != turn.before.version:
        versions = f"from version {word.expected_version} to {turn.before.version}"
        return f"the saga has moved on {versions}: look again, then decide"
    return None


def _stuck(turn: Turn, step: str | None) -> list[StepRun]:
    stuck = (RunStatus.STUCK, RunStatus.UNDO_STUCK)
    return [r for r in turn.runs.values() if r.status in stuck and step in (None, r.step, r.key)]


def _none_stuck(turn: Turn, step: str | None) -> Answer:
    names = ", ".join(run.step for run in _stuck(turn, None)) or "none"
    return Verdict.REFUSED, f"{f'step {step!r} is not' if step else 'no step is'} stuck; stuck steps: {names}"


def retry(turn: Turn, word: RetryStep) -> Answer:
    """Try what is stuck again, from where it stopped."""
    if problem := _changed(turn, word):
        return Verdict.REFUSED, problem
    runs = _stuck(turn, word.step)
    if not runs:
        return _none_stuck(turn, word.step)
    for run in runs:
        turn.note(What.OPERATOR, run.key, f"retry by {word.by}" if word.by else "retry")
        _retry(turn, run)
    _advance(turn)
    return Verdict.APPLIED, ""


def _retry(turn: Turn, run: StepRun) -> None:
    plan = turn.plan(run)
    if run.unbegun:
        del turn.runs[run.key]
        return
    match run.stuck_on:
        case "answer":
            forward.succeed(turn, plan, run)
        case "compensation":
            # the compensation method is asked again when its turn comes
            turn.change(run, status=RunStatus.DONE if run.reply else RunStatus.UNKNOWN, stuck_on="")
        case "undo":
            send_undo(turn, replace(run, undo_failures=0, heard=run.sent))
        case "check":
            reconcile.check(turn, run)
        case _ if run.forgotten:
            lost.ask_again(turn, run)
        case _ if plan is turn.definition.pivot:
            settle(turn, run)
        case _:
            timeout_at = None if plan.timeout is None else turn.after(plan.timeout)
            # a refusal is recorded for this wording: only another one is looked at anew
            revision = run.revision if run.reply is None else run.revision + 1
            send_command(
                turn,
                replace(
                    run, failures=0, heard=run.sent, stuck_on="", timeout_at=timeout_at, revision=revision, reply=None
                ),
            )


def skip(turn: Turn, word: SkipStep) -> Answer:
    """Leave a stuck step, or a stuck undo, as it is; the saga's end lists it as waived."""
    if problem := _changed(turn, word):
        return Verdict.REFUSED, problem
    runs = _stuck(turn, word.step)
    if not runs:
        return _none_stuck(turn, word.step)
    for run in runs:
        if run.status is RunStatus.STUCK and not turn.past_pivot():
            return Verdict.REFUSED, f"{run.key} is not behind the pivot: retry or resolve it, or cancel the saga"
    for run in runs:
        _waive(turn, run, word)
    _advance(turn)
    return Verdict.APPLIED, ""


def _waive(turn: Turn, run: StepRun, word: SkipStep | ResolveStep) -> None:
    turn.waived = (*turn.waived, Waived(run.key, word.reason, word.by))
    turn.note(What.WAIVED, run.key, f"{word.by}: {word.reason}" if word.by else word.reason)
    turn.close_run(run, RunStatus.WAIVED, stuck_on="")


def resolve(turn: Turn, word: ResolveStep) -> Answer:
    """Take an operator's word for what became of a stuck step."""
    if problem := _changed(turn, word):
        return Verdict.REFUSED, problem
    runs = _stuck(turn, word.step)
    if not runs:
        return _none_stuck(turn, word.step)
    for run in runs:
        problem = _cannot_resolve(turn, run, word)
        if problem:
            return Verdict.REFUSED, problem
    for run in runs:
        turn.note(What.OPERATOR, run.key, f"resolved {word.direction} by {word.by or 'an operator'}: {word.reason}")
        if run.status is RunStatus.UNDO_STUCK:
            _waive(turn, run, word)
        elif word.direction == "forward":
            _resolve_forward(turn, run, word)
            if turn.aborting is not None and turn.past_pivot():
                forward.abort_too_late(turn)
        else:
            turn.waived = (*turn.waived, Waived(run.key, word.reason, word.by))
            run = turn.close_run(run, RunStatus.CLOSED, stuck_on="")
            backward.go_back(turn, turn.aborting or run.failure or Failure("resolved", word.reason))
    _advance(turn)
    return Verdict.APPLIED, ""


def _resolve_forward(turn: Turn, run: StepRun, word: ResolveStep) -> None:
    if run.stuck_on == "check":
        turn.change(run, status=RunStatus.DONE, stuck_on="", failure=None, vouched=True)
        return
    forgotten = run.forgotten
    if forgotten and turn.plan(run).kind is not StepKind.COMPENSATABLE:
        reconcile.only_forward(turn, run.key)
        return
    forward.succeed(turn, turn.plan(run), turn.change(run, reply=_reply(turn, run, word), vouched=True))
    if forgotten:
        reconcile.go_on_back(turn)


def _cannot_resolve(turn: Turn, run: StepRun, word: ResolveStep) -> str | None:
    if run.status is RunStatus.UNDO_STUCK:
        return None if word.direction == "back" else f"{run.key} is being undone: resolve it back, or retry"
    if word.direction == "forward":
        if run.command is None:
            return f"{run.key} was never sent: retry it, or cancel the saga"
        if run.stuck_on == "check" or (run.forgotten and turn.plan(run).kind is not StepKind.COMPENSATABLE):
            return None
        reply = _reply(turn, run, word)
        if reply is None:
            return f"resolving {run.key} forward needs the reply it would have had"
        try:
            forward.read_reply(turn.plan(run), replace(run, reply=reply))
        except TerminalError as error:
            return f"{run.key} cannot be resolved with this reply: {error}"
        return None
    if turn.past_pivot():
        return f"{run.key} comes after the pivot: resolve it forward, retry it, or skip it"
    return None


def _reply(turn: Turn, run: StepRun, word: ResolveStep) -> Recording | None:
    """The reply that resolves a run forward: the operator's, the one that came, or "done" where none is promised."""
    if word.reply is not None:
        return word.reply
    if run.stuck_on == "answer":
        return run.reply
    return None if turn.plan(run).replies else turn.record(Done())


def _advance(turn: Turn) -> None:
    forward.advance(turn)
    backward.advance(turn)
