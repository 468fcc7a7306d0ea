"""Between envelopes and Kafka's records: CloudEvents 1.0, Kafka binding, binary content mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import astuple

from amends.brokers.packing import SPLIT, UNREADABLE_TYPE, parts_of
from amends.brokers.port import DeadLetter
from amends.contracts import Envelope, Kind, ReplyOutcome, TerminalError
from amends.contracts.envelope import ATTRIBUTES
from amends.contracts.packs import PACK_TYPE, Unpacked, write_pack

_PREFIX: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
_REASON, _DETAIL, _QUEUE = "amends-reason", "amends-detail", "amends-queue"
_AT, _DELIVERIES, _ORIGIN = "amends-at", "amends-deliveries", "amends-origin"

BURIAL_BYTES: Final = 65_536
"""How much larger than other messages a dead letter may be, for what is told about it."""
SPLIT_BYTES: Final = 1024
"""How much larger a message may be that was split off a pack: as much as the topics have in reserve."""
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
        values = sum([len(value) for _, value in self.headers])
        return 64 + len(self.key) + len(self.value) + values + 32 * len(self.headers)


def key_of(envelope: Envelope) -> str:
    """What keeps messages in order: the same key, the same partition."""
    return envelope.partition_key or envelope.subject or envelope.id


def headers_of(envelope: Envelope) -> Headers:
    """The attributes of an envelope as headers; the data is the record's value."""
    headers = [_SPECVERSION]
    for value, (header, text) in zip(astuple(envelope), _WRITERS, strict=True):
        if value is not None and value != "" and text is not None:
            headers.append((header, text(value)))
    return headers


def pack_of(envelopes: Sequence[Envelope]) -> tuple[bytes, Headers]:
    """Several messages as the value and the headers of one record."""
    return write_pack(envelopes), [(_CONTENT_TYPE, PACK_TYPE.encode())]


def parts_in(record: Any) -> list[Unpacked] | None:
    """The messages in a record that is a pack; None for a single one."""
    headers = record.headers
    # a single message has attributes, and ours begin with one
    if headers and headers[0][0].startswith(_PREFIX):
        return None
    for name, value in headers:
        if name == _CONTENT_TYPE and value is not None:
            return parts_of(value.decode(errors="replace"), record.value or b"")
    return None


def split_off(record: Any, part: Unpacked, deliveries: int) -> Outbound:
    """A message of a pack as a record of its own, in the place of the pack, which was handed out so many times."""
    times = (SPLIT, str(deliveries).encode())
    if part.envelope is None:
        unreadable = [times, (_CONTENT_TYPE, UNREADABLE_TYPE.encode())]
        return Outbound(record.topic, record.partition, record.key or b"", part.body, unreadable)
    envelope = part.envelope
    headers = [times, *headers_of(envelope)]
    return Outbound(record.topic, record.partition, key_of(envelope).encode(), envelope.data, headers)


def handed_out_before(record: Any) -> int:
    """How often a message was handed out before it was split off a pack."""
    headers = record.headers
    if headers and headers[0][0] == SPLIT:
        digits = headers[0][1] or b""
        return int(digits) if digits.isdigit() and len(digits) < 6 else 0
    return 0


def read(record: Any) -> tuple[Envelope | None, str]:
    """The envelope in a record, or None and why it cannot be read."""
    try:
        found: dict[str, Any] = {}
        for name, value in record.headers:
            if (known := _READERS.get(name)) is not None:
                field, parse = known
                found[field] = parse(value)
        if found.keys() >= _NEEDED:
            return Envelope(data=record.value or b"", **found), ""
    except (ValueError, TypeError, KeyError):
        pass
    return _read_with_care(record)


def _read_with_care(record: Any) -> tuple[Envelope | None, str]:
    """The slow way, which knows what may be left out and tells what is wrong."""
    if any(name == _CONTENT_TYPE and value == UNREADABLE_TYPE.encode() for name, value in record.headers):
        # one event in JSON, as it stands in a pack
        part = (parts_of(PACK_TYPE, b"[%b]" % (record.value or b"")) or [])[0]
        return part.envelope, part.problem
    try:
        attributes = {_ATTRIBUTE_OF[name]: value.decode() for name, value in record.headers if name in _ATTRIBUTE_OF}
        return Envelope.from_attributes(attributes, record.value or b""), ""
    except (TerminalError, UnicodeDecodeError, AttributeError) as error:
        # a header may be null
        return None, str(error)


def _text(value: Any) -> bytes:
    return str(value).encode()


def _time_text(time: datetime) -> bytes:
    return f"{time.astimezone(UTC).isoformat()[:-6]}Z".encode()


def _read_time(text: bytes) -> datetime:
    time = datetime.fromisoformat(text.decode())
    if time.tzinfo is None:
        raise ValueError("a time without zone")
    return time if time.tzinfo is UTC else time.astimezone(UTC)


def _header(attribute: str) -> str:
    return _CONTENT_TYPE if attribute == "datacontenttype" else _PREFIX + attribute


_TIMES: Final = ("time", "issued_at", "not_after")
_NUMBERS: Final = ("revision", "attempt", "version", "sequence")
_NEEDED: Final = {"id", "kind", "type", "source", "subject", "time"}
_SPECVERSION: Final = (_header("specversion"), b"1.0")
_ATTRIBUTE_OF: Final = {_header(attribute): attribute for attribute in ATTRIBUTES.values()}


def _writer(field: str) -> tuple[str, Callable[[Any], bytes] | None]:
    """The header of a field, and what makes its text; nothing for the data."""
    if field not in ATTRIBUTES:
        return "", None
    return _header(ATTRIBUTES[field]), _time_text if field in _TIMES else _text if field in _NUMBERS else str.encode


def _reader(field: str) -> Callable[[bytes], Any]:
    """What reads the text of a field. Raises ValueError, TypeError or KeyError."""
    if field in _TIMES:
        return _read_time
    if field in _NUMBERS:
        return int
    if field in ("kind", "outcome"):
        return {word.encode(): word for word in (Kind if field == "kind" else ReplyOutcome)}.__getitem__
    return bytes.decode


_WRITERS: Final = [_writer(field) for field in Envelope.__struct_fields__]
_READERS: Final = {_header(attribute): (field, _reader(field)) for field, attribute in ATTRIBUTES.items()}


def buried(
    topic: str,
    record: Any,
    queue: str,
    reason: str,
    detail: str,
    deliveries: int,
    part: tuple[int, Unpacked] | None = None,
) -> Outbound:
    """A record as a dead letter: as it was, with where it lay and why it is dead in headers of ours.

    Of a pack only one part, with its place, as a record of its own.
    """
    origin = f"{record.topic}/{record.partition}/{record.offset}"
    if part is not None:
        place, message = part
        origin += f"/{place}"
        record = split_off(record, message, deliveries)
    about = {
        _QUEUE: queue,
        _REASON: reason,
        _DETAIL: detail[:_LONGEST_DETAIL],
        _AT: datetime.now(UTC).isoformat(),
        _DELIVERIES: str(deliveries),
        _ORIGIN: origin,
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
