"""What goes back: the results of handlers, and the envelopes that carry them."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from amends.brokers import Outgoing
from amends.contracts import (
    JSON,
    MSGPACK,
    Codec,
    Command,
    DecodeError,
    Envelope,
    Failure,
    Kind,
    Rejection,
    ReplyOutcome,
    codec_for,
)
from amends.contracts.errors import text_of
from amends.contracts.payloads import Done
from amends.participants.errors import BrokenPromise, Reject
from amends.participants.handlers import Handler
from amends.participants.inbox import Performed
from amends.participants.rows import Answered, Recording

_MESSAGE_LIMIT: Final = 2000
_NONE: Final = type(None)


def performed(handler: Handler, result: object, content_type: str) -> Performed:
    """What a handler that returned `result` did. Raises `BrokenPromise` when its contract names no such reply."""
    codec = codec_for(content_type)
    if type(result) not in handler.returns:
        promised = " or ".join("None" if type is _NONE else type.__name__ for type in handler.returns)
        raise BrokenPromise(
            f"{handler.where} returned {_shown(result)}, but {handler.message.__name__} asks for {promised}"
        )
    if handler.compensates:
        return Performed(ReplyOutcome.UNDONE)
    return Performed(
        ReplyOutcome.DONE, _NOTHING[codec.content_type] if result is None else _record(handler, result, codec)
    )


def rejected(handler: Handler, reject: Reject, content_type: str) -> Performed:
    """What a handler that raised `Reject` did: nothing. Raises `BrokenPromise` when its contract names no such one."""
    rejection = reject.rejection
    if not issubclass(handler.message, Command):
        raise BrokenPromise(f"{handler.where} raised Reject, but a compensation cannot refuse. Raise another error")
    named = handler.message.__rejections__
    # a contract that names none leaves it open
    if not isinstance(rejection, Rejection) or (named and type(rejection) not in named):
        name = handler.message.__name__
        known = " or ".join(type.__name__ for type in named) or "no such Rejection"
        raise BrokenPromise(
            f"{handler.where} rejected with {_shown(rejection)}, but {name} names {known}. "
            f"Name it: class {name}(Command[TheReply, TheRejection])"
        )
    return Performed(ReplyOutcome.REJECTED, _record(handler, rejection, codec_for(content_type)))


def failed(handler: Handler, error: BaseException, content_type: str) -> Performed:
    """What a handler did that was given up: nobody knows."""
    return _failure(handler, Failure(type(error).__name__, text_of(error)[:_MESSAGE_LIMIT]), content_type)


def died(handler: Handler, why: str, content_type: str) -> Performed:
    """What a handler did that takes its process along: nobody knows, and trying again would do the same."""
    return _failure(handler, Failure("ProcessDied", why, final=True), content_type)


def _failure(handler: Handler, failure: Failure, content_type: str) -> Performed:
    outcome = ReplyOutcome.UNDO_FAILED if handler.compensates else ReplyOutcome.FAILED
    codec = codec_for(content_type)
    return Performed(outcome, Recording(Failure.__tag__, codec.encode(failure), codec.content_type))


def reply_to(asked: Envelope, service: str, answer: Answered, now: datetime) -> Outgoing | None:
    """The reply that carries an answer, or None when nobody wants one."""
    if asked.reply_to is None:
        return None
    recording = answer.recording or _NOTHING[codec_for(asked.content_type).content_type]
    envelope = Envelope(
        id=_answer_id(asked, answer.outcome),
        kind=Kind.REPLY,
        type=recording.type,
        source=f"/amends/{service}",
        subject=asked.subject,
        time=now,
        data=recording.data,
        content_type=recording.content_type,
        correlation_id=asked.correlation_id,
        causation_id=asked.id,
        effect_key=asked.effect_key,
        revision=asked.revision,
        attempt=asked.attempt,
        outcome=answer.outcome,
        incarnation=asked.incarnation,
        version=asked.version,
        commit_id=asked.commit_id,
        partition_key=asked.partition_key,
        traceparent=asked.traceparent,
        tracestate=asked.tracestate,
    )
    return Outgoing(asked.reply_to, envelope)


def _answer_id(asked: Envelope, outcome: ReplyOutcome) -> str:
    """The same for the same answer, so that a duplicate is recognised by it."""
    parts = (asked.effect_key, asked.revision, asked.attempt, asked.kind.value, outcome.value)
    return blake2b("\n".join(map(str, parts)).encode(), digest_size=16).hexdigest()


_NOTHING: Final = {
    codec.content_type: Recording(Done.__tag__, codec.encode(Done()), codec.content_type) for codec in (JSON, MSGPACK)
}
"""What an answer carries that says nothing but its outcome."""


def _record(handler: Handler, message: Any, codec: Codec) -> Recording:
    try:
        data = codec.encode(message)
        # constructors check nothing: what the other side cannot read must not leave here
        codec.decode(data, type(message))
    except DecodeError as error:
        raise BrokenPromise(
            f"{handler.where} made a {type(message).__name__} that cannot be read: {error.problem}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise BrokenPromise(
            f"{handler.where} made a {type(message).__name__} that cannot be written: {error}"
        ) from None
    return Recording(message.__tag__, data, codec.content_type)


def _shown(value: object) -> str:
    return "None" if value is None else type(value).__name__
