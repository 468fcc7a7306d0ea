"""The journal of one saga: a record for every commit, saying what happened and why."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct


class What(StrEnum):
    """What a journal entry tells."""

    STARTED = "started"
    STEP_ISSUED = "step-issued"
    STEP_RESENT = "step-resent"
    STEP_DONE = "step-done"
    STEP_SKIPPED = "step-skipped"
    STEP_REJECTED = "step-rejected"
    STEP_FAILED = "step-failed"
    STEP_TIMED_OUT = "step-timed-out"
    STEP_AWAITING = "step-awaiting"
    STEP_SLEEPING = "step-sleeping"
    STEP_SETTLING = "step-settling"
    STEP_CLOSED = "step-closed"
    STEP_STUCK = "step-stuck"
    EVENT_PUBLISHED = "event-published"
    COMPENSATION_STARTED = "compensation-started"
    UNDO_ISSUED = "undo-issued"
    UNDO_RESENT = "undo-resent"
    STEP_UNDONE = "step-undone"
    NOTHING_TO_UNDO = "nothing-to-undo"
    UNDO_FAILED = "undo-failed"
    UNDO_STUCK = "undo-stuck"
    SIGNAL_RECEIVED = "signal-received"
    EVENT_RECEIVED = "event-received"
    BUFFERED = "buffered"
    LATE = "late"
    HELD = "held"
    CANCEL_REQUESTED = "cancel-requested"
    CANCEL_TOO_LATE = "cancel-too-late"
    DEADLINE_PASSED = "deadline-passed"
    PAUSED = "paused"
    RESUMED = "resumed"
    ROLLED_BACK = "rolled-back"
    """The store may have lost commits of the saga: what has been issued is asked about again."""
    RECONCILED = "reconciled"
    """All that was thought done is still done."""
    OPERATOR = "operator"
    WAIVED = "waived"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened. `step` is the key of a step run where it concerns one, `detail` a phrase for people."""

    what: What
    step: str = ""
    detail: str = ""


class JournalRecord(Struct, frozen=True, array_like=True, gc=False):
    """What one commit did: the version it made, when, because of which message, and the state it left.

    `cause` names the input (its kind and message id). `state` is the saga as msgpack, or None when it did not change.
    """

    version: int
    commit_id: str
    at: datetime
    cause: str
    entries: tuple[Entry, ...]
    state: bytes | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(JournalRecord)


def encode_record(record: JournalRecord) -> bytes:
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> JournalRecord:
    """Raises `msgspec.MsgspecError` when the bytes are no journal record."""
    return _DECODER.decode(data)
