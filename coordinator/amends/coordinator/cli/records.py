"""What `--json` prints. The names of these fields are promises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from amends.brokers import DeadLetter
from amends.contracts import Failure, codec_for
from amends.contracts.errors import TerminalError
from amends.coordinator.core.journal import JournalRecord
from amends.coordinator.core.snapshot import Recording, Snapshot, StepRun, Waived
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.outcome import Outcome
from amends.coordinator.store import SagaSummary


def summary_record(summary: SagaSummary) -> dict[str, Any]:
    """One line of a list."""
    return {
        "id": summary.id,
        "saga": summary.saga,
        "definition_version": summary.definition_version,
        "phase": summary.phase,
        "stuck": summary.stuck,
        "paused": summary.paused,
        "waived": summary.waived,
        "version": summary.version,
        "started_at": summary.started_at,
        "updated_at": summary.updated_at,
        "next_timer_at": summary.wake_at,
        "keys": summary.keys,
    }


def outcome_record(outcome: Outcome[Any]) -> dict[str, Any]:
    """What became of a saga."""
    return {
        "id": outcome.saga_id,
        "status": outcome.status,
        "stuck": outcome.stuck,
        "paused": outcome.paused,
        "failure": _failure(outcome.failure),
        "waived": _waived(outcome.waived),
        "state": outcome.state,
    }


def snapshot_record(snapshot: Snapshot, definition: Definition | None) -> dict[str, Any]:
    """One saga. `remaining` are the steps it has not reached while it goes forward; null when its class is unknown."""
    return {
        "id": snapshot.id,
        "saga": snapshot.saga,
        "definition_version": snapshot.definition_version,
        "incarnation": snapshot.incarnation,
        "version": snapshot.version,
        "phase": snapshot.phase,
        "stuck": snapshot.stuck,
        "paused": snapshot.paused,
        "started_at": snapshot.started_at,
        "updated_at": snapshot.clock,
        "ended_at": snapshot.ended_at,
        "keys": snapshot.keys,
        "failure": _failure(snapshot.failure or snapshot.aborting),
        "waived": _waived(snapshot.waived),
        "suspect": None
        if snapshot.suspect is None
        else {"since": snapshot.suspect.since, "why": snapshot.suspect.why, "committed": snapshot.committed},
        "steps": [_run(run) for run in snapshot.runs.values()],
        "remaining": None if definition is None else remaining(snapshot, definition),
        "timers": [{"at": at, "what": what} for at, what in sorted(timers(snapshot))],
        "kept_messages": [kept.type for kept in snapshot.buffer],
        "state": state_of(snapshot.state),
    }


def remaining(snapshot: Snapshot, definition: Definition) -> list[str]:
    """The steps that were not reached; none once the saga has ended or goes back."""
    if snapshot.phase != "running":
        return []
    reached = {run.step for run in snapshot.runs.values()}
    return [name for name in definition.steps if name not in reached]


def timers(snapshot: Snapshot) -> Iterator[tuple[datetime, str]]:
    """What the saga does by itself, and when. Nothing is due while it is paused, or ended."""
    if snapshot.paused or snapshot.phase.ended:
        return
    for run in snapshot.runs.values():
        if run.wake_at is not None:
            yield run.wake_at, _why(run)
    if snapshot.deadline is not None:
        yield snapshot.deadline, "deadline of the saga"


def _why(run: StepRun) -> str:
    if run.status in ("sleeping", "awaiting"):
        return f"{run.key}: end of {'the sleep' if run.status == 'sleeping' else 'the wait'}"
    if run.wake_at == run.timeout_at:
        return f"{run.key}: timeout"
    return f"{run.key}: send again"


def state_of(state: bytes) -> Any:
    """A stored state as plain data."""
    return msgspec.msgpack.decode(state)


def _run(run: StepRun) -> dict[str, Any]:
    return {
        "run": run.key,
        "step": run.step,
        "visit": run.visit,
        "item": run.item,
        "status": run.status,
        "service": run.service or None,
        "attempts": run.attempt,
        "failures": run.failures,
        "undo_attempts": run.undo_attempt,
        "undo_failures": run.undo_failures,
        "issued_at": run.issued_at,
        "timeout_at": run.timeout_at,
        "next_timer_at": run.wake_at,
        "ended_at": run.ended_at,
        "awaits": None if run.awaits is None else run.awaits.type,
        "command": _message(run.command),
        "reply": _message(run.reply),
        "undo": _message(run.undo),
        "failure": _failure(run.failure),
        "stuck_on": run.stuck_on or None,
        "note": run.note,
    }


def _message(recording: Recording | None) -> dict[str, Any] | None:
    if recording is None:
        return None
    return {"type": recording.type, "data": readable(recording.data, recording.content_type)}


def readable(data: bytes, content_type: str) -> Any:
    """The data of a message as plain data; what cannot be decoded as text with escapes."""
    if not data:
        return None
    try:
        return codec_for(content_type).decode(data, object)
    except TerminalError:
        return data.decode(errors="backslashreplace")


def _failure(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"error": failure.error, "message": failure.message}


def _waived(waived: tuple[Waived, ...]) -> list[dict[str, str]]:
    return [{"step": one.step, "reason": one.reason, "by": one.by} for one in waived]


def journal_record(record: JournalRecord) -> dict[str, Any]:
    """What one commit did."""
    return {
        "version": record.version,
        "at": record.at,
        "cause": record.cause,
        "entries": [{"what": e.what, "step": e.step or None, "detail": e.detail} for e in record.entries],
        "state": None if record.state is None else state_of(record.state),
    }


def letter_record(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    """One dead letter; `whole` with its envelope and data."""
    envelope = letter.envelope
    record = {
        "id": letter.id,
        "queue": letter.queue,
        "reason": letter.reason,
        "detail": letter.detail,
        "at": letter.at,
        "deliveries": letter.deliveries,
        "saga_id": None if envelope is None else envelope.subject,
        "type": None if envelope is None else envelope.type,
        "kind": None if envelope is None else envelope.kind,
    }
    if whole and envelope is not None:
        record["attributes"] = envelope.attributes()
        record["data"] = readable(envelope.data, envelope.content_type)
    elif whole:
        record["body"] = letter.body.decode(errors="backslashreplace")
    return record
