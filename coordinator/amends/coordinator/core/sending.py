"""Sending on behalf of a run: its command, its undo, the question what became of it, an event."""

from __future__ import annotations

from datetime import datetime

from amends.contracts import Failure, TerminalError, codec_for
from amends.coordinator.core.effects import PublishEvent, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Phase, Recording, RunStatus, StepRun
from amends.coordinator.core.turn import Turn, earliest
from amends.coordinator.declaration.results import Publish


def send_command(turn: Turn, run: StepRun) -> StepRun:
    """Send the command of a run, for the first time or again; always with a fresh not-after."""
    command, issued_at = _asked(run)
    attempt = run.attempt + 1
    # the resend timer bounds every wait for an answer; a timeout that is sooner comes first
    run = turn.change(
        run,
        status=RunStatus.ISSUED,
        attempt=attempt,
        wake_at=earliest(turn.resend_at(attempt, run.key), run.timeout_at),
    )
    expires = turn.after(turn.policy.command_ttl)
    turn.effects.append(
        SendCommand(
            run=run.key,
            service=run.service,
            command=command,
            revision=run.revision,
            attempt=run.sent,
            issued_at=issued_at,
            not_after=expires if run.timeout_at is None else min(expires, run.timeout_at),
        )
    )
    if attempt == 1:
        turn.note(What.STEP_ISSUED, run.key, command.type)
    else:
        turn.note(What.STEP_RESENT, run.key, f"attempt {attempt}")
    return run


def send_undo(turn: Turn, run: StepRun) -> StepRun:
    """Send the undo of a run, for the first time or again. Undos never expire."""
    command, issued_at = _asked(run)
    assert run.undo is not None
    attempt = run.undo_attempt + 1
    if attempt == 1:
        turn.note(What.UNDO_ISSUED, run.key, run.undo.type)
    else:
        turn.note(What.UNDO_RESENT, run.key, f"attempt {attempt}")
    turn.effects.append(
        SendUndo(
            run=run.key,
            service=run.service,
            undo=run.undo,
            command=command,
            reply=run.reply,
            revision=run.revision,
            attempt=run.sent + 1,
            issued_at=issued_at,
        )
    )
    return turn.change(
        run,
        status=RunStatus.UNDOING,
        undo_attempt=attempt,
        stuck_on="",
        wake_at=turn.resend_at(attempt, run.key),
        timeout_at=None,
    )


def settle(turn: Turn, run: StepRun, into: RunStatus = RunStatus.SETTLING) -> StepRun:
    """Ask the participant what became of a run, for good; again, if it was asked before. It is `into` meanwhile."""
    command, issued_at = _asked(run)
    attempt = run.settle_attempt + 1
    again = run.status is into
    run = turn.change(
        run,
        status=into,
        stuck_on="" if into is RunStatus.SETTLING else run.stuck_on,
        settle_attempt=attempt,
        # from here on it counts the doubts
        failures=run.failures if again else 0,
        heard=run.heard if again else run.sent,
        timeout_at=None,
        wake_at=turn.resend_at(attempt, run.key),
    )
    turn.effects.append(SendSettle(run.key, run.service, command.type, run.revision, run.sent, issued_at))
    question = "what became of it" if into is RunStatus.SETTLING else "whether it is still done"
    turn.note(What.STEP_SETTLING, run.key, f"asking {run.service} {question}")
    return run


def _asked(run: StepRun) -> tuple[Recording, datetime]:
    """The command of a run, and when it was first sent."""
    assert run.command is not None
    assert run.issued_at is not None
    return run.command, run.issued_at


def publish(turn: Turn, run: StepRun, result: Publish) -> None:
    """Publish a domain event in the name of a run. Raises `UserCodeError` when it cannot be written."""
    recording = turn.record(result.event)
    turn.sequence += 1
    occasion = run.key if turn.phase is Phase.RUNNING else f"{run.key}.undone"
    turn.effects.append(PublishEvent(recording, turn.sequence, occasion))
    turn.note(What.EVENT_PUBLISHED, run.key, recording.type)


def failure_in(recording: Recording) -> Failure:
    """The failure that an answer tells of; its raw text when it is no `Failure`."""
    try:
        return codec_for(recording.content_type).decode(recording.data, Failure)
    except TerminalError:
        return Failure(recording.type, recording.data[:500].decode(errors="replace"))
