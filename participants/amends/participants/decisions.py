"""What an inbox answers: a pure function of the row, the request and the time.

Adapters load the row, call `opening` or `closing`, and store the row that comes back, all in one transaction. The rules
are those of docs/guarantees.md, 2 and 4 to 7.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, assert_never

from msgspec.structs import replace

from amends.contracts import ReplyOutcome
from amends.participants.rows import (
    Answered,
    Begin,
    BeginUndo,
    Busy,
    Claimed,
    Closing,
    ClosingAnswer,
    Fenced,
    Finish,
    Ignored,
    Kept,
    Opening,
    OpeningAnswer,
    Release,
    Renew,
    Row,
    Settle,
    State,
)

_IN_DOUBT = Answered(ReplyOutcome.IN_DOUBT)
_CLOSED = Answered(ReplyOutcome.CLOSED)
_UNDONE = Answered(ReplyOutcome.UNDONE)


def opening(
    row: Row | None, request: Opening, now: datetime, mark: datetime | None
) -> tuple[Row | None, OpeningAnswer]:
    """The row to store (None: leave it as it is) and the answer.

    `mark` is the low-water mark: of effects issued before it, rows may have been purged.
    """
    match request:
        case Begin():
            return _begin(row, request, now, mark)
        case BeginUndo():
            return _begin_undo(row, request, now, mark)
        case Settle():
            return _settle(row, request, now, mark)
        case _:
            assert_never(request)


def closing(row: Row | None, request: Closing, now: datetime) -> tuple[Row | None, ClosingAnswer]:
    """The row to store (None: leave it as it is) and the answer."""
    if row is None or row.fence != request.fence:
        return None, Fenced()
    match request:
        case Finish():
            return _finish(row, request, now)
        case Renew():
            if not _claim_of(row):
                return None, Fenced()
            return replace(row, updated_at=now, lease_until=now + request.lease), Kept()
        case Release():
            if not _claim_of(row):
                return None, Fenced()
            return replace(row, updated_at=now, lease_until=min(now, row.lease_until or now)), Kept()
        case _:
            assert_never(request)


def _begin(row: Row | None, request: Begin, now: datetime, mark: datetime | None) -> tuple[Row | None, OpeningAnswer]:
    if row is None:
        return (None, _IN_DOUBT) if _purged(request.issued_at, mark) else _claim(None, request, now)
    match row.state:
        case State.DONE:
            return None, Answered(ReplyOutcome.DONE, row.reply)
        case State.REJECTED:
            if request.revision <= row.revision:
                return None, Answered(ReplyOutcome.REJECTED, row.problem)
            return _claim(row, request, now)
        case State.FAILED:
            # a new wording, or the coordinator's next attempt, may try; a redelivery gets what was answered
            if (request.revision, request.attempt) <= (row.revision, row.attempt):
                return None, Answered(ReplyOutcome.FAILED, row.problem)
            return _claim(row, request, now)
        case State.CLAIMED:
            if request.revision < row.revision:
                return None, Ignored("stale")
            return _busy(row, now) or _claim(row, request, now)
        case State.CLOSED:
            return None, _CLOSED
        case State.UNDOING | State.UNDO_FAILED:
            return None, _IN_DOUBT
        case State.UNDONE:
            return None, _UNDONE
        case _:
            assert_never(row.state)


def _claim(row: Row | None, request: Begin, now: datetime) -> tuple[Row | None, OpeningAnswer]:
    if request.start_before is not None and now > request.start_before:
        return None, Ignored("expired")
    left_nothing = row is None or row.state is State.REJECTED or row.transactional
    fence = 1 if row is None else row.fence + 1
    claimed = Row(
        state=State.CLAIMED,
        fence=fence,
        updated_at=now,
        revision=request.revision,
        attempt=request.attempt,
        transactional=request.transactional and left_nothing,
        issued_at=request.issued_at if row is None else row.issued_at,
        lease_until=now + request.lease,
        owner=request.owner,
        command=request.command,
    )
    return claimed, Claimed(fence, request.command)


def _begin_undo(
    row: Row | None, request: BeginUndo, now: datetime, mark: datetime | None
) -> tuple[Row | None, OpeningAnswer]:
    if row is None:
        if _purged(request.issued_at, mark):
            return None, _IN_DOUBT  # done for certain, if there is a reply; but maybe undone as well
        if request.reply is not None:
            return _claim_undo(None, request, now)
        return _tombstone(request, now), _CLOSED
    match row.state:
        case State.DONE:
            return _claim_undo(row, request, now)
        case State.CLAIMED | State.FAILED:
            if busy := _busy(row, now):
                return busy
            if row.transactional and request.reply is None:
                return _closed(row, now), _CLOSED
            return _claim_undo(row, request, now)
        case State.REJECTED | State.CLOSED:
            # a reply is proof that the action was done, whatever this inbox lost
            if request.reply is not None:
                return _claim_undo(row, request, now)
            return _closed(row, now), _CLOSED
        case State.UNDOING:
            return _busy(row, now) or _claim_undo(row, request, now)
        case State.UNDO_FAILED:
            if (request.revision, request.attempt) <= (row.revision, row.attempt):
                return None, Answered(ReplyOutcome.UNDO_FAILED, row.problem)
            return _claim_undo(row, request, now)
        case State.UNDONE:
            return None, _UNDONE
        case _:
            assert_never(row.state)


def _claim_undo(row: Row | None, request: BeginUndo, now: datetime) -> tuple[Row | None, OpeningAnswer]:
    fence = 1 if row is None else row.fence + 1
    command = request.command if row is None else row.command or request.command
    reply = request.reply if row is None else row.reply or request.reply
    undoing = Row(
        state=State.UNDOING,
        fence=fence,
        updated_at=now,
        revision=request.revision,
        attempt=request.attempt,
        issued_at=request.issued_at if row is None else row.issued_at,
        lease_until=now + request.lease,
        owner=request.owner,
        command=command,
        reply=reply,
    )
    return undoing, Claimed(fence, command, reply)


def _settle(row: Row | None, request: Settle, now: datetime, mark: datetime | None) -> tuple[Row | None, OpeningAnswer]:
    if row is None:
        return (None, _IN_DOUBT) if _purged(request.issued_at, mark) else (_tombstone(request, now), _CLOSED)
    match row.state:
        case State.DONE:
            return None, Answered(ReplyOutcome.DONE, row.reply)
        case State.REJECTED | State.CLOSED:
            # "no" is said only with the door shut: a later wording must not start any more
            return _closed(row, now), _refusal(row, request)
        case State.CLAIMED | State.FAILED:
            if row.live(now) or not row.transactional:
                return None, _IN_DOUBT
            return _closed(row, now), _CLOSED
        case State.UNDOING | State.UNDO_FAILED:
            return None, _IN_DOUBT
        case State.UNDONE:
            return None, _UNDONE
        case _:
            assert_never(row.state)


def _refusal(row: Row, request: Settle) -> Answered:
    if row.problem is None or request.revision > row.revision:
        return _CLOSED
    return Answered(ReplyOutcome.REJECTED, row.problem)


def _closed(row: Row, now: datetime) -> Row | None:
    if row.state is State.CLOSED:
        return None
    rejection = row.problem if row.state is State.REJECTED else None
    return replace(row, state=State.CLOSED, updated_at=now, lease_until=None, command=None, problem=rejection)


def _tombstone(request: BeginUndo | Settle, now: datetime) -> Row:
    return Row(state=State.CLOSED, fence=0, updated_at=now, revision=request.revision, issued_at=request.issued_at)


_FINISHED: dict[ReplyOutcome, State] = {
    ReplyOutcome.DONE: State.DONE,
    ReplyOutcome.REJECTED: State.REJECTED,
    ReplyOutcome.FAILED: State.FAILED,
    ReplyOutcome.UNDONE: State.UNDONE,
    ReplyOutcome.UNDO_FAILED: State.UNDO_FAILED,
}

_ACTION_ENDS = frozenset({State.DONE, State.REJECTED, State.FAILED})
_UNDO_ENDS = frozenset({State.UNDONE, State.UNDO_FAILED})


def _finish(row: Row, request: Finish, now: datetime) -> tuple[Row | None, ClosingAnswer]:
    state = _FINISHED[request.outcome]
    direction = _claim_of(row)
    if direction is None:
        # the same claim again, after the outcome of its commit was unknown: what was stored first counts
        ends = _ACTION_ENDS if state in _ACTION_ENDS else _UNDO_ENDS
        return None, _answer_of(row) if row.state in ends else Fenced()
    if (direction == "action") != (state in _ACTION_ENDS):
        return None, Fenced()
    # no clean-up of the command before the end: an undo needs the wording that was run
    over = state in (State.REJECTED, State.UNDONE)
    finished = replace(
        row,
        state=state,
        updated_at=now,
        lease_until=None,
        command=None if over else row.command,
        reply=request.recording if state is State.DONE else None if over else row.reply,
        problem=None if state in (State.DONE, State.UNDONE) else request.recording,
    )
    return finished, _answer_of(finished)


def _answer_of(row: Row) -> Answered:
    recording = row.reply if row.state is State.DONE else row.problem
    return Answered(ReplyOutcome(row.state.value), recording)


def _claim_of(row: Row) -> Literal["action", "undo"] | None:
    if row.state is State.CLAIMED:
        return "action"
    return "undo" if row.state is State.UNDOING else None


def _busy(row: Row, now: datetime) -> tuple[None, Busy] | None:
    if row.lease_until is not None and row.live(now):
        return None, Busy(row.lease_until, row.owner)
    return None


def _purged(issued_at: datetime | None, mark: datetime | None) -> bool:
    """Whether a row of this effect may have been there once."""
    return mark is not None and (issued_at is None or issued_at < mark)
