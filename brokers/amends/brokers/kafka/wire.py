"""Between envelopes and Kafka's records: CloudEvents 1.0, Kafka binding, binary content mode."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from amends.brokers.port import DeadLetter
from amends.contracts import Envelope, TerminalError

_PREFIX: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
_REASON, _DETAIL, _QUEUE = "amends-reason", "amends-detail", "amends-queue"
_AT, _DELIVERIES, _ORIGIN = "amends-at", "amends-deliveries", "amends-origin"

BURIAL_BYTES: Final = 65_536
"""How much larger than other messages a dead letter may be, for what is told about it."""
_LONGEST_DETAIL: Final = 8_000

Headers = list[tuple[str, bytes]]


class Outbound(Struct, frozen=True, array_like=True, gc=False):
    """A record on its way to a partition."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers

    @property
    def size(self) -> int:
        """About how many bytes it takes in a batch: not less than it does, with names of headers as ours are."""
        values = b"".join([value for _, value in self.headers])
        return 64 + len(self.key) + len(self.value) + len(values) + 32 * len(self.headers)


def key_of(envelope: Envelope) -> str:
    """What keeps messages in order: the same key, the same partition."""
    return envelope.partition_key or envelope.subject or envelope.id


def headers_of(envelope: Envelope) -> Headers:
    """The attributes of an envelope as headers; the data is the record's value."""
    attributes = envelope.attributes()
    content_type = attributes.pop("datacontenttype", None)
    headers = [(_header(name), value.encode()) for name, value in attributes.items()]
    if content_type is not None:
        headers.append((_CONTENT_TYPE, content_type.encode()))
    return headers


def read(record: Any) -> tuple[Envelope | None, str]:
    """The envelope in a record, or None and why it cannot be read."""
    try:
        attributes = {}
        for name, value in record.headers:
            attribute = _attribute(name)
            if attribute is not None:
                attributes[attribute] = value.decode()
        return Envelope.from_attributes(attributes, record.value or b""), ""
    except (TerminalError, UnicodeDecodeError, AttributeError) as error:
        # a header may be null
        return None, str(error)


@lru_cache(256)
def _header(attribute: str) -> str:
    return _PREFIX + attribute


@lru_cache(256)
def _attribute(header: str) -> str | None:
    if header.startswith(_PREFIX):
        return header[len(_PREFIX) :]
    return "datacontenttype" if header == _CONTENT_TYPE else None


def buried(topic: str, record: Any, queue: str, reason: str, detail: str, deliveries: int) -> Outbound:
    """A record as a dead letter: as it was, with where it lay and why it is dead in headers of ours."""
    about = {
        _QUEUE: queue,
        _REASON: reason,
        _DETAIL: detail[:_LONGEST_DETAIL],
        _AT: datetime.now(UTC).isoformat(),
        _DELIVERIES: str(deliveries),
        _ORIGIN: f"{record.topic}/{record.partition}/{record.offset}",
    }
    kept = [(name, value or b"") for name, value in record.headers if name not in about]
    headers = kept + [(name, text.encode()) for name, text in about.items()]
    return Outbound(topic, 0, record.key or b"", record.value or b"", headers)


def unearthed(records: Sequence[Any]) -> list[DeadLetter]:
    """The dead letters in records of their topic, newest first.

    One that was written twice, because its consumer died before it could acknowledge, is there once.
    """
    letters: dict[str, DeadLetter] = {}
    for record in records:
        about = {name: value.decode(errors="replace") for name, value in record.headers if name.startswith("amends-")}
        envelope, _ = read(record)
        letter = DeadLetter(
            id=record.offset,
            queue=about.get(_QUEUE, ""),
            reason=about.get(_REASON, ""),
            detail=about.get(_DETAIL, ""),
            at=_time(about.get(_AT), record),
            deliveries=int(count) if (count := about.get(_DELIVERIES, "")).isdecimal() else 0,
            envelope=envelope,
            body=b"" if envelope is not None else record.value or b"",
        )
        letters.setdefault(about.get(_ORIGIN, str(record.offset)), letter)
    return sorted(letters.values(), key=lambda letter: -letter.id)


def _time(text: str | None, record: Any) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.fromtimestamp(record.timestamp / 1000, UTC)
