"""The envelope: what travels around every message, as CloudEvents 1.0 in binary content mode."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from amends.contracts.errors import TerminalError
from amends.contracts.names import command_key


class Kind(StrEnum):
    """What a message is for."""

    COMMAND = "command"
    """Asks a participant for an action."""
    UNDO = "undo"
    """Asks a participant to undo an action. Never expires."""
    SETTLE = "settle"
    """Asks a participant to say for good what became of an action."""
    REPLY = "reply"
    """A participant's answer to any of these; `outcome` says which."""
    EVENT = "event"
    """A domain event."""
    SIGNAL = "signal"
    """A word from outside to one saga."""
    START = "start"
    """Starts a saga."""
    CONTROL = "control"
    """An operator's or a caller's word about a saga: cancel, pause, resume, retry, skip, resolve, watch."""
    TIMER = "timer"
    """Timers of a saga are due."""
    NOTICE = "notice"
    """The coordinator's answer to a client."""


class ReplyOutcome(StrEnum):
    """What a participant says of an effect. The first three and the undone ones are final."""

    DONE = "done"
    """The action happened; the data is its reply."""
    REJECTED = "rejected"
    """The action did nothing; the data is the rejection."""
    CLOSED = "closed"
    """The action never happened and never will: a tombstone is written."""
    FAILED = "failed"
    """The action failed unexpectedly, after the participant's own retries: it may have happened."""
    IN_DOUBT = "in-doubt"
    """The participant cannot say. Asking again later may help."""
    UNDONE = "undone"
    """The action has been undone."""
    UNDO_FAILED = "undo-failed"
    """The compensation failed, after the participant's own retries."""


class Envelope(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One message with its attributes. Between our own parts it is stored as an msgpack array, in this order.

    `subject` is the saga id; `effect_key` and `revision` name what a command is to do (see `EffectKey`);
    `incarnation`, `version` and `commit_id` name the commit that sent it, and a reply echoes them. Times are
    aware and UTC. `not_after` is the moment after which an action must not be started any more.
    """

    id: str
    kind: Kind
    type: str
    source: str
    subject: str
    time: datetime
    data: bytes = b""
    content_type: str = "application/json"
    correlation_id: str = ""
    causation_id: str = ""
    reply_to: str | None = None
    effect_key: str | None = None
    revision: int = 0
    attempt: int = 0
    issued_at: datetime | None = None
    not_after: datetime | None = None
    outcome: ReplyOutcome | None = None
    incarnation: str | None = None
    version: int = 0
    commit_id: str | None = None
    sequence: int | None = None
    partition_key: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def command_key(self) -> str | None:
        """The effect key with its revision, or None for a message about no effect."""
        return None if self.effect_key is None else command_key(self.effect_key, self.revision)

    def attributes(self) -> dict[str, str]:
        """The CloudEvents attributes as text, without the data; an adapter adds its binding's prefix."""
        out = {"specversion": "1.0"}
        for field, attribute in ATTRIBUTES.items():
            value = getattr(self, field)
            if value is None or value == "":
                continue
            out[attribute] = _rfc3339(value) if isinstance(value, datetime) else str(value)
        return out

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str], data: bytes) -> Envelope:
        """Read an envelope from CloudEvents attributes. Unknown attributes are ignored.

        Without `amendskind` it is an event, and an event needs no subject: who publishes events need not know amends.
        Raises `TerminalError` naming the attribute that is missing or malformed.
        """
        found: dict[str, Any] = {}
        for field, attribute in ATTRIBUTES.items():
            text = attributes.get(attribute)
            if text is None:
                continue
            try:
                found[field] = _READERS.get(field, str)(text)
            except ValueError:
                raise TerminalError(f"envelope attribute {attribute!r} is malformed: {text[:80]!r}") from None
        if found.setdefault("kind", Kind.EVENT) is Kind.EVENT:
            found.setdefault("subject", "")
        for field in ("id", "type", "source", "subject"):
            if field not in found:
                raise TerminalError(f"envelope attribute {ATTRIBUTES[field]!r} is missing")
        found.setdefault("time", EPOCH)
        return cls(data=data, **found)


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of a message whose sender told none."""

ATTRIBUTES: Final = {
    "id": "id",
    "kind": "amendskind",
    "type": "type",
    "source": "source",
    "subject": "subject",
    "time": "time",
    "content_type": "datacontenttype",
    "correlation_id": "correlationid",
    "causation_id": "causationid",
    "reply_to": "replyto",
    "effect_key": "effectkey",
    "revision": "revision",
    "attempt": "attempt",
    "issued_at": "issuedat",
    "not_after": "notafter",
    "outcome": "outcome",
    "incarnation": "incarnation",
    "version": "sagaversion",
    "commit_id": "commitid",
    "sequence": "sequence",
    "partition_key": "partitionkey",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
}
"""Field of `Envelope` -> CloudEvents attribute. Names are lower-case letters and digits, as the standard asks."""


@lru_cache(1024)
def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


@lru_cache(1024)
def _read_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without zone")
    return time.astimezone(UTC)


_READERS: Final[dict[str, Any]] = {
    "kind": Kind,
    "outcome": ReplyOutcome,
    "time": _read_time,
    "issued_at": _read_time,
    "not_after": _read_time,
    "revision": int,
    "attempt": int,
    "version": int,
    "sequence": int,
}
