"""Between the core and the wire: effects become envelopes, envelopes become inputs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, assert_never

import msgspec

from amends.brokers import Outgoing
from amends.contracts import JSON, Codec, Envelope, Kind, TerminalError, codec_for, slot_of
from amends.contracts.names import EffectKey, service_address, slot_address, topic_address
from amends.contracts.payloads import Control, Notice, Recorded, Settle, Start, TimersDue, Undo
from amends.coordinator.core.effects import Effect, End, Notify, PublishEvent, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import (
    Answered,
    AnyInput,
    Cancel,
    EventReceived,
    Pause,
    ResolveStep,
    Resume,
    RetryStep,
    SignalReceived,
    SkipStep,
    TimersFired,
    Watch,
)
from amends.coordinator.core.snapshot import Recording, Snapshot
from amends.coordinator.store import DueSaga

SOURCE = "/amends/coordinator"


def outgoing(snapshot: Snapshot, effects: Iterable[Effect], cause: str) -> tuple[Outgoing, ...]:
    """The messages of a transition that made `snapshot` because of the message `cause`."""
    return tuple(
        message
        for number, effect in enumerate(effects)
        if (message := _message(snapshot, effect, cause, number)) is not None
    )


def _message(snapshot: Snapshot, effect: Effect, cause: str, number: int) -> Outgoing | None:
    # not by incarnation and version: both come again, with other messages, when the store has lost commits
    id = f"{snapshot.commit_id}.{number}"
    match effect:
        case SendCommand():
            about = effect.command
            envelope = _step_envelope(
                snapshot, effect, Kind.COMMAND, id, cause, about.type, about.data, about.content_type, effect.not_after
            )
            return Outgoing(service_address(effect.service), envelope)
        case SendUndo():
            about = effect.undo
            data = _undo(effect)
            envelope = _step_envelope(snapshot, effect, Kind.UNDO, id, cause, about.type, data, about.content_type)
            return Outgoing(service_address(effect.service), envelope)
        case SendSettle():
            data = JSON.encode(Settle(effect.command_type))
            envelope = _step_envelope(snapshot, effect, Kind.SETTLE, id, cause, Settle.__tag__, data, JSON.content_type)
            return Outgoing(service_address(effect.service), envelope)
        case PublishEvent():
            return Outgoing(
                topic_address(effect.event.type),
                Envelope(
                    id=f"{snapshot.incarnation}.{effect.occasion}",
                    kind=Kind.EVENT,
                    type=effect.event.type,
                    source=SOURCE,
                    subject=snapshot.id,
                    time=snapshot.clock,
                    data=effect.event.data,
                    content_type=effect.event.content_type,
                    correlation_id=snapshot.correlation_id,
                    causation_id=cause,
                    incarnation=snapshot.incarnation,
                    version=snapshot.version,
                    commit_id=snapshot.commit_id,
                    sequence=effect.sequence,
                    partition_key=snapshot.id,
                    traceparent=snapshot.traceparent,
                ),
            )
        case Notify():
            # an answer may go without a commit, as a refusal does
            id = f"{effect.about}.answer" if effect.about else id
            return notice(effect.reply_to, snapshot.id, effect.notice, effect.about, id, snapshot.clock)
        case End():
            return None
        case _:
            assert_never(effect)


def _step_envelope(
    snapshot: Snapshot,
    effect: SendCommand | SendUndo | SendSettle,
    kind: Kind,
    id: str,
    cause: str,
    type: str,
    data: bytes,
    content_type: str,
    not_after: datetime | None = None,
) -> Envelope:
    return Envelope(
        id=id,
        kind=kind,
        type=type,
        source=SOURCE,
        subject=snapshot.id,
        time=snapshot.clock,
        data=data,
        content_type=content_type,
        correlation_id=snapshot.correlation_id,
        causation_id=cause,
        reply_to=slot_address(slot_of(snapshot.id)),
        effect_key=f"{snapshot.id}~{snapshot.incarnation}/{effect.run}",
        revision=effect.revision,
        attempt=effect.attempt,
        issued_at=effect.issued_at,
        not_after=not_after,
        incarnation=snapshot.incarnation,
        version=snapshot.version,
        commit_id=snapshot.commit_id,
        partition_key=snapshot.id,
        traceparent=snapshot.traceparent,
    )


def _undo(effect: SendUndo) -> bytes:
    codec = codec_for(effect.undo.content_type)
    return codec.encode(
        Undo(
            compensation=msgspec.Raw(effect.undo.data),
            command=_recorded(codec, effect.command),
            reply=None if effect.reply is None else _recorded_reply(codec, effect.reply),
        )
    )


def _recorded(codec: Codec, recording: Recording) -> Recorded:
    """A recording inside data of `codec`, which its own data may not have been written in."""
    data = recording.data
    if recording.content_type != codec.content_type:
        data = codec.encode(codec_for(recording.content_type).decode(data, Any))
    return Recorded(recording.type, msgspec.Raw(data))


def _recorded_reply(codec: Codec, reply: Recording) -> Recorded | None:
    """A reply inside data of `codec`; None when what the participant sent is no data at all, which must not spoil the
    undo: the participant knows best what it did."""
    try:
        codec_for(reply.content_type).decode(reply.data, Any)
    except TerminalError:
        return None
    return _recorded(codec, reply)


def notice(reply_to: str, saga_id: str, what: Notice, about: str, id: str, now: datetime) -> Outgoing:
    """An answer to a client about its message `about`."""
    return Outgoing(
        reply_to,
        Envelope(
            id=id,
            kind=Kind.NOTICE,
            type=Notice.__tag__,
            source=SOURCE,
            subject=saga_id,
            time=now,
            data=JSON.encode(what),
            causation_id=about,
        ),
    )


def timer(due: DueSaga, now: datetime) -> Outgoing:
    """Tells a saga, through its own queue, that something is due."""
    return Outgoing(
        slot_address(slot_of(due.saga_id)),
        Envelope(
            id=f"{due.incarnation}.due.{due.wake_at.timestamp():.6f}",
            kind=Kind.TIMER,
            type=TimersDue.__tag__,
            source=SOURCE,
            subject=due.saga_id,
            time=now,
            data=JSON.encode(TimersDue(due.wake_at)),
            incarnation=due.incarnation,
        ),
    )


def word(saga_id: str, kind: Kind, type: str, data: bytes, id: str, now: datetime, **fields: Any) -> Outgoing:
    """A message to a saga from a client or a router: start, control, signal, event."""
    return Outgoing(
        slot_address(slot_of(saga_id)),
        Envelope(id=id, kind=kind, type=type, subject=saga_id, time=now, data=data, **fields),
    )


def read_start(envelope: Envelope) -> Start:
    """The data of a start. Raises `TerminalError`."""
    return codec_for(envelope.content_type).decode(envelope.data, Start)


def read_input(envelope: Envelope) -> AnyInput:
    """The input in an envelope that came to a saga's slot. Raises `TerminalError` saying what is wrong with it."""
    match envelope.kind:
        case Kind.REPLY:
            return _answered(envelope)
        case Kind.TIMER:
            return TimersFired(message_id=envelope.id, incarnation=envelope.incarnation or "")
        case Kind.SIGNAL:
            return SignalReceived(message_id=envelope.id, reply_to=envelope.reply_to, recording=_recording(envelope))
        case Kind.EVENT:
            return EventReceived(message_id=envelope.id, recording=_recording(envelope))
        case Kind.CONTROL:
            return _control(envelope, codec_for(envelope.content_type).decode(envelope.data, Control))
        case _:
            raise TerminalError(f"a {envelope.kind} message is not for a saga")


def _recording(envelope: Envelope) -> Recording:
    return Recording(envelope.type, envelope.data, envelope.content_type)


def _answered(envelope: Envelope) -> Answered:
    if envelope.effect_key is None or envelope.outcome is None:
        missing = "effectkey" if envelope.effect_key is None else "outcome"
        raise TerminalError(f"a reply without {missing}: nobody can tell what it answers")
    try:
        key = EffectKey.parse(envelope.effect_key)
    except ValueError as error:
        raise TerminalError(str(error)) from None
    if key.saga_id != envelope.subject:
        raise TerminalError(f"the reply's subject is {envelope.subject!r}, its effect belongs to {key.saga_id!r}")
    return Answered(
        message_id=envelope.id,
        run=key.run,
        incarnation=key.incarnation,
        outcome=envelope.outcome,
        recording=_recording(envelope),
        revision=envelope.revision,
        attempt=envelope.attempt,
        version=envelope.version,
        commit_id=envelope.commit_id or "",
    )


def _control(envelope: Envelope, control: Control) -> AnyInput:
    id, reply_to, by = envelope.id, envelope.reply_to, control.by
    match control.action:
        case "cancel":
            return Cancel(message_id=id, reply_to=reply_to, reason=control.reason, by=by)
        case "pause":
            return Pause(message_id=id, reply_to=reply_to, reason=control.reason, by=by)
        case "resume":
            return Resume(message_id=id, reply_to=reply_to, by=by)
        case "watch":
            if reply_to is None:
                raise TerminalError("a watch without replyto: nobody to tell")
            return Watch(message_id=id, reply_to=reply_to)
        case "retry":
            return RetryStep(
                message_id=id, reply_to=reply_to, step=control.step, by=by, expected_version=control.expected_version
            )
        case "skip":
            return SkipStep(
                message_id=id,
                reply_to=reply_to,
                step=_step(control),
                reason=control.reason,
                by=by,
                expected_version=control.expected_version,
            )
        case "resolve":
            if control.direction is None:
                raise TerminalError("resolve needs a direction: forward or back")
            reply = control.reply
            return ResolveStep(
                message_id=id,
                reply_to=reply_to,
                step=_step(control),
                direction=control.direction,
                reason=control.reason,
                reply=None if reply is None else Recording(reply.type, bytes(reply.data), envelope.content_type),
                by=by,
                expected_version=control.expected_version,
            )
        case _:
            assert_never(control.action)


def _step(control: Control) -> str:
    if control.step is None:
        raise TerminalError(f"{control.action} needs the name of a step")
    return control.step
