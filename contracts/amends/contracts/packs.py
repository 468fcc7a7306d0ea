"""Packs: several messages in one, as the CloudEvents JSON batch format has it.

A pack costs a broker as much as one message. See the CloudEvents JSON format, sections 2 to 4.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, Raw, Struct, UnsetType, defstruct
from msgspec.structs import FieldInfo, astuple, fields

from amends.contracts.envelope import ATTRIBUTES, EPOCH, Envelope
from amends.contracts.errors import text_of

PACK_TYPE: Final = "application/cloudevents-batch+json"
"""The content type of a pack."""


class Unpacked(Struct, frozen=True, eq=False):
    """One message out of a pack. `envelope` is None when it could not be read: `problem` says why, `body` is it."""

    envelope: Envelope | None
    body: bytes = b""
    problem: str = ""


_Time = Annotated[datetime, Meta(tz=True)]


_TIMES: Final = ("time", "issued_at", "not_after")


def _field(field: FieldInfo) -> tuple[str, Any] | tuple[str, Any, Any]:
    """A field of `Envelope` as it stands in JSON: the data as what they are, times with their zone."""
    match field.name:
        case "data":
            return (field.name, Raw | UnsetType, UNSET)
        case "time":
            return (field.name, _Time, EPOCH)
        case name if name in _TIMES:
            return (name, _Time | None, None)
        case name if field.default is NODEFAULT:
            return (name, field.type)
        case name:
            return (name, field.type, field.default)


_Event: Any = defstruct(
    "_Event",
    [*map(_field, fields(Envelope)), ("specversion", str, ""), ("data_base64", str | UnsetType, UNSET)],
    frozen=True,
    omit_defaults=True,
    rename=ATTRIBUTES,
    gc=False,
)
"""A message as a JSON object; the fields are those of `Envelope`, in its order, and then what only JSON has."""

_FIELDS: Final = Envelope.__struct_fields__
_DATA: Final = _FIELDS.index("data")
_encode = msgspec.json.Encoder().encode
_decode_all = msgspec.json.Decoder(list[_Event], strict=False).decode
_decode_each = msgspec.json.Decoder(list[Raw]).decode
_decode_one = msgspec.json.Decoder(_Event, strict=False).decode
_check_json = msgspec.json.Decoder(Raw).decode


def is_pack(content_type: str | None) -> bool:
    """Whether a message of this content type holds several; parameters such as a charset are ignored."""
    if content_type is None or content_type == PACK_TYPE:
        return content_type is not None
    return content_type.partition(";")[0].strip().lower() == PACK_TYPE


def write_pack(envelopes: Sequence[Envelope]) -> bytes:
    """These as the body of one message, of content type `PACK_TYPE`. Each can be read without the others."""
    return _encode([_event_of(envelope) for envelope in envelopes])


def read_pack(body: bytes) -> list[Unpacked]:
    """What is in a pack, in its order. What cannot be read does not spoil the rest.

    Raises `ValueError` when the body as a whole is no pack.
    """
    try:
        return [Unpacked(_envelope_of(event)) for event in _decode_all(body)]
    except ValueError:
        return [_read_one(bytes(raw)) for raw in _decode_each(body)]


def _read_one(body: bytes) -> Unpacked:
    try:
        return Unpacked(_envelope_of(_decode_one(body)), body)
    except ValueError as error:
        return Unpacked(None, body, f"a message of a pack cannot be read: {text_of(error)}")


def _event_of(envelope: Envelope) -> Any:
    data: Raw | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET
    if envelope.data:
        if _is_json(envelope):
            data = Raw(envelope.data)
        else:
            data_base64 = b64encode(envelope.data).decode()
    values: list[Any] = list(astuple(envelope))
    values[_DATA] = data
    values += ("1.0", data_base64)
    return _Event(*values)


def _is_json(envelope: Envelope) -> bool:
    """Whether the data can stand in a JSON text as it is. That of a foreign sender may be anything."""
    if envelope.content_type != "application/json":
        return False
    try:
        envelope.data.decode()
        _check_json(envelope.data)
    except ValueError:
        return False
    return True


def _envelope_of(event: Any) -> Envelope:
    values = dict(zip(_FIELDS, astuple(event), strict=False))
    if event.data_base64 is not UNSET:
        values["data"] = b64decode(event.data_base64, validate=True)
    else:
        values["data"] = b"" if event.data is UNSET else _data_of(event.data, event.content_type)
    for field in _TIMES:
        time = values[field]
        if time is not None and time.tzinfo is not UTC:
            values[field] = time.astimezone(UTC)
    return Envelope(**values)


def _data_of(data: Raw, content_type: str) -> bytes:
    """A text stands in JSON as a string (3.1.1 of the format); what is JSON itself stands there as it is."""
    raw = bytes(data)
    if raw.startswith(b'"') and "json" not in content_type:
        return msgspec.json.decode(raw, type=str).encode()
    return raw
