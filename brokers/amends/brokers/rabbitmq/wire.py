"""Envelopes as AMQP 0-9-1 messages: the CloudEvents AMQP binding in binary content mode.

Each attribute is a header `cloudEvents:<name>` with its text as value, but for `datacontenttype`, which is the property
`content-type`. Read are also `cloudEvents_<name>`, and values of other types than text; a time may be a number, of
milliseconds since 1970, as other implementations of the binding write it. Several envelopes in one message are in
batched content mode: the property says so, and all else is in the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from msgspec import Struct

from amends.brokers.packing import SPLIT, UNREADABLE_TYPE
from amends.contracts import Envelope
from amends.contracts.packs import PACK_TYPE, Unpacked, write_pack

Headers = dict[str, Any]

_PREFIXES: Final = ("cloudEvents:", "cloudEvents_")
_PREFIX_LENGTH: Final = len(_PREFIXES[0])
_TIMES: Final = ("time", "issuedat", "notafter")


class Parcel(Struct, eq=False):
    """A message on its way: where to, and what is in it.

    A `mandatory` one that reaches no queue is reported; another one is dropped then.
    """

    exchange: str
    key: str
    body: bytes
    headers: Headers
    content_type: str
    id: str = ""
    mandatory: bool = True


def wrap(envelope: Envelope, exchange: str, key: str, *, mandatory: bool) -> Parcel:
    """A message of one envelope."""
    attributes = envelope.attributes()
    content_type = attributes.pop("datacontenttype", "")
    headers: Headers = {_header(name): value for name, value in attributes.items()}
    return Parcel(exchange, key, envelope.data, headers, content_type, envelope.id, mandatory)


def wrap_pack(envelopes: Sequence[Envelope], exchange: str, key: str, *, mandatory: bool) -> Parcel:
    """One message of several envelopes."""
    return Parcel(exchange, key, write_pack(envelopes), {}, PACK_TYPE, envelopes[0].id, mandatory)


def wrap_again(message: Unpacked, queue: str) -> Parcel:
    """One that was received, on its own or in a pack, as a message straight to a queue."""
    if message.envelope is not None:
        return wrap(message.envelope, "", queue, mandatory=True)
    return Parcel("", queue, message.body, {}, UNREADABLE_TYPE)


def unwrap(headers: Mapping[str, Any], content_type: str | None, body: bytes) -> tuple[Envelope | None, str]:
    """The envelope of a message that is no pack, or None and why it is none."""
    try:
        attributes = {
            name[_PREFIX_LENGTH:]: value if type(value) is str else _text(name[_PREFIX_LENGTH:], value)
            for name, value in headers.items()
            if name.startswith(_PREFIXES)
        }
        if content_type:
            attributes["datacontenttype"] = content_type
        return Envelope.from_attributes(attributes, body), ""
    except Exception as error:
        # whatever it is, it must not keep what comes after it
        return None, str(error) or type(error).__name__


@cache
def _header(attribute: str) -> str:
    return _PREFIXES[0] + attribute


def _text(attribute: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if attribute in _TIMES:
            return datetime.fromtimestamp(value / 1000, UTC).isoformat()
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case bytes():
            return value.decode(errors="replace")
    return str(value)


def times_before(headers: Mapping[str, Any], *, redelivered: bool) -> int:
    """How often a message was handed out before this time, as far as the broker and its own headers tell."""
    counted = headers.get("x-delivery-count")
    # queues of clients do not count
    times = counted if type(counted) is int else int(redelivered)
    split = headers.get(SPLIT)
    return times + (int(split) if type(split) is str and split.isdecimal() else 0)
