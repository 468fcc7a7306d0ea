"""Turning structs into bytes and back: JSON by default, msgpack by choice."""

from functools import cache
from typing import Any, Final, Protocol, TypeVar

import msgspec

from amends.contracts.errors import DecodeError, TerminalError, text_of

T = TypeVar("T")


class Codec(Protocol):
    """One way of writing data. Encoders and decoders are made once per type and kept.

    `content_type` is what stands in the envelope. `encode` gives bytes; `decode` reads them as `type` and raises
    `DecodeError`, which names the field, when they are something else.
    """

    content_type: str

    def encode(self, value: Any) -> bytes: ...

    def decode(self, data: bytes | msgspec.Raw, type: type[T]) -> T: ...


class _MsgspecCodec:
    """A format that msgspec writes."""

    def __init__(self, content_type: str, format: Any) -> None:
        self.content_type = content_type
        self.encode = format.Encoder().encode
        self._decoder: Any = cache(format.Decoder)

    def decode(self, data: bytes | msgspec.Raw, type: type[T]) -> T:
        try:
            value: T = self._decoder(type).decode(data)
        except MemoryError:
            raise
        except Exception as error:
            raise DecodeError(_name(type), _problem(error)) from None
        return value


def _problem(error: Exception) -> str:
    """What is wrong with the data: as msgspec says it; else it is nested too deep, or a check of its class raised."""
    said = text_of(error)
    return said if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {said}"


def _name(type: Any) -> str:
    return str(getattr(type, "__tag__", None) or getattr(type, "__name__", type))


JSON: Final[Codec] = _MsgspecCodec("application/json", msgspec.json)
"""JSON as msgspec writes it: times are RFC 3339, decimals and UUIDs strings."""

MSGPACK: Final[Codec] = _MsgspecCodec("application/msgpack", msgspec.msgpack)
"""MessagePack: smaller and faster than JSON, not readable by eye."""

_CODECS: dict[str, Codec] = {codec.content_type: codec for codec in (JSON, MSGPACK)}


def codec_for(content_type: str) -> Codec:
    """The codec of a content type; parameters such as a charset are ignored. Raises `TerminalError`."""
    try:
        return _CODECS[content_type]
    except KeyError:
        bare = content_type.partition(";")[0].strip().lower()
        if bare in _CODECS:
            return _CODECS[bare]
        raise TerminalError(f"no codec for content type {content_type!r}; known: {', '.join(_CODECS)}") from None
