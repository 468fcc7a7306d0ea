"""Reading deliveries: what a participant is asked, checked before anything is begun."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec import Struct

from amends.brokers import Delivery
from amends.contracts import Command, Compensation, Envelope, Kind, Reply, TerminalError, UnknownTypeError, codec_for
from amends.contracts import payloads as wire
from amends.contracts.names import is_reply_address
from amends.participants.context import Context, Undoes
from amends.participants.handlers import Handler
from amends.participants.intake import Intake
from amends.participants.rows import Begin, BeginUndo, Claimed, Recording, Settle


class Incoming(Struct, frozen=True, eq=False):
    """One message in hand. A settle has neither handler nor message."""

    delivery: Delivery
    intake: Intake
    envelope: Envelope
    request: Begin | BeginUndo | Settle
    handler: Handler | None = None
    message: Command[Any, Any] | Compensation[Any] | None = None


class Unreadable(Struct, frozen=True, eq=False):
    """A delivery that nobody can process, with the reason for the dead letters."""

    delivery: Delivery
    reason: str
    detail: str


class Reader:
    """Turns deliveries into requests, with the settings of one participant."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, Handler],
        *,
        owner: str,
        lease: timedelta,
        skew: timedelta,
        claims: bool,
    ) -> None:
        self._service, self._handlers = service, handlers
        self._owner, self._lease, self._skew = owner, lease, skew
        self._claims = claims
        self._commands: dict[str, type[Command[Any, Any]]] = {}
        for handler in handlers.values():
            command = handler.message.__command__ if issubclass(handler.message, Compensation) else handler.message
            self._commands[command.__tag__] = command

    def read(self, delivery: Delivery, intake: Intake) -> Incoming | Unreadable:
        envelope = delivery.envelope
        if envelope is None:
            return Unreadable(delivery, "undecodable", delivery.problem)
        if envelope.reply_to is not None and not is_reply_address(envelope.reply_to):
            return Unreadable(delivery, "undecodable", f"{envelope.reply_to[:80]!r} is no address to reply to")
        try:
            match envelope.kind:
                case Kind.COMMAND:
                    return self._command(delivery, intake, envelope)
                case Kind.UNDO:
                    return self._undo(delivery, intake, envelope)
                case Kind.SETTLE:
                    return self._settle(delivery, intake, envelope)
                case kind:
                    return Unreadable(
                        delivery, "unknown-type", f"a participant takes commands, undos and settles, no {kind.value}"
                    )
        except UnknownTypeError as error:
            return Unreadable(delivery, "unknown-type", f"nobody in service {self._service!r} handles it: {error}")
        except TerminalError as error:
            return Unreadable(delivery, "undecodable", str(error))

    def _command(self, delivery: Delivery, intake: Intake, envelope: Envelope) -> Incoming:
        handler = self._handler(envelope.type, Command)
        message = codec_for(envelope.content_type).decode(envelope.data, handler.message)
        request = Begin(
            effect_key=_effect_key(envelope),
            revision=envelope.revision,
            attempt=envelope.attempt,
            issued_at=envelope.issued_at,
            start_before=None if envelope.not_after is None else envelope.not_after + self._skew,
            # with claims, a handler that was broken off may have left something behind
            transactional=handler.transactional and not self._claims,
            owner=self._owner,
            lease=self._lease,
            command=Recording(envelope.type, envelope.data, envelope.content_type),
        )
        return Incoming(delivery, intake, envelope, request, handler, message)

    def _undo(self, delivery: Delivery, intake: Intake, envelope: Envelope) -> Incoming:
        handler = self._handler(envelope.type, Compensation)
        codec = codec_for(envelope.content_type)
        undo = codec.decode(envelope.data, wire.Undo)
        message = codec.decode(undo.compensation, handler.message)
        command = _recording(undo.command, envelope)
        reply = None if undo.reply is None else _recording(undo.reply, envelope)
        self.read_record(command, reply)
        request = BeginUndo(
            effect_key=_effect_key(envelope),
            revision=envelope.revision,
            attempt=envelope.attempt,
            issued_at=envelope.issued_at,
            owner=self._owner,
            lease=self._lease,
            command=command,
            reply=reply,
        )
        return Incoming(delivery, intake, envelope, request, handler, message)

    def _settle(self, delivery: Delivery, intake: Intake, envelope: Envelope) -> Incoming:
        codec_for(envelope.content_type).decode(envelope.data, wire.Settle)
        request = Settle(effect_key=_effect_key(envelope), revision=envelope.revision, issued_at=envelope.issued_at)
        return Incoming(delivery, intake, envelope, request)

    def _handler(self, tag: str, kind: type) -> Handler:
        handler = self._handlers.get(tag)
        if handler is None or not issubclass(handler.message, kind):
            raise UnknownTypeError(tag, tuple(self._handlers))
        return handler

    def read_record(self, command: Recording, reply: Recording | None) -> Undoes[Any]:
        """What is known of an action, in its own types. Raises `UnknownTypeError` or `DecodeError`."""
        command_type = self._commands.get(command.type)
        if command_type is None:
            raise UnknownTypeError(command.type, tuple(self._commands))
        asked = codec_for(command.content_type).decode(command.data, command_type)
        if reply is None:
            return Undoes(asked, outcome="unknown")
        return Undoes(asked, _read_reply(command_type, reply))

    def context(self, incoming: Incoming, claimed: Claimed, session: Any = None) -> Context[Any]:
        """What the handler is told. For an undo, what was recorded of the action is decoded."""
        envelope = incoming.envelope
        undoes = self.read_record(claimed.command, claimed.reply) if envelope.kind is Kind.UNDO else None
        return Context(
            saga_id=envelope.subject,
            effect_key=incoming.request.effect_key,
            revision=envelope.revision,
            attempt=envelope.attempt,
            deadline=None if undoes else envelope.not_after,
            correlation_id=envelope.correlation_id,
            undoes=undoes,
            session=session,
        )


def _effect_key(envelope: Envelope) -> str:
    if not envelope.effect_key:
        raise TerminalError(f"a {envelope.kind.value} without effect key")
    return envelope.effect_key


def _recording(recorded: wire.Recorded, envelope: Envelope) -> Recording:
    return Recording(recorded.type, bytes(recorded.data), envelope.content_type)


def _read_reply(command: type[Command[Any, Any]], reply: Recording) -> Reply | None:
    if reply.type == wire.Done.__tag__:
        return None
    for type in command.__replies__:
        if type.__tag__ == reply.type:
            return codec_for(reply.content_type).decode(reply.data, type)
    raise UnknownTypeError(reply.type, tuple(type.__tag__ for type in command.__replies__))
