"""Taking deliveries from a connection's stream by the bulk.

The client library reads frame by frame, and starts a task for each delivery: that bounds a consumer. Its public hook
for transports lets us stand between the socket and it. Deliveries for channels that have a `Taker` are taken out of the
stream here, as many as a read from the socket brings; all else goes on to the library untouched. See the AMQP 0-9-1
specification, 2.3.5 and 4.2.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiormq import connection as aiormq_connection
from pamqp import decode

if TYPE_CHECKING:
    from yarl import URL

_READ: Final = 1 << 18
_METHOD, _HEADER, _BODY = 1, 2, 3
_frame_start = struct.Struct(">BHI").unpack_from
_long = struct.Struct(">I").unpack_from
_long_long = struct.Struct(">Q").unpack_from
_signed_long_long = struct.Struct(">q").unpack_from
_size_and_flags = struct.Struct(">QH").unpack_from
_DELIVER: Final = struct.pack(">HH", 60, 60)
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_HAS_CONTENT_TYPE, _HAS_ENCODING, _HAS_HEADERS = 1 << 15, 1 << 14, 1 << 13
_STRING, _INTEGER = ord("S"), ord("l")
_MOST_NAMES: Final = 1_000


class Arrival(NamedTuple):
    """A message as it came."""

    tag: int
    redelivered: bool
    content_type: str | None
    headers: dict[str, Any]
    body: bytes


class Tap:
    """What the library takes for the stream of a connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._rest = b""
        self._onward = bytearray()
        self._takers: dict[int, Taker] = {}
        self._begun = False
        self._told_at = 0.0

    def take(self, channel: int, arrived: Callable[[Arrival], None]) -> None:
        """From now on, give the deliveries of a channel to `arrived`."""
        self._takers[channel] = Taker(arrived)

    def leave(self, channel: int) -> None:
        self._takers.pop(channel, None)

    def at_eof(self) -> bool:
        return not self._onward and self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        while len(self._onward) < count:
            data = await self._reader.read(_READ)
            if not data:
                raise asyncio.IncompleteReadError(bytes(self._onward), count)
            self.feed(data)
        part = bytes(self._onward[:count])
        del self._onward[:count]
        return part

    async def read(self) -> bytes:
        """Whatever is left."""
        left = bytes(self._onward) + self._rest + await self._reader.read()
        self._onward.clear()
        self._rest = b""
        return left

    def feed(self, data: bytes) -> None:
        """Sort what came: deliveries to their takers, the rest to the library."""
        stream = self._rest + data if self._rest else data
        if not self._begun:
            if stream.startswith(b"AMQP"):
                # the server speaks another version, and says so without a frame
                self._onward += stream
                return
            self._begun = True
        takers, onward = self._takers, self._onward
        start, end = 0, len(stream)
        taken = False
        while end - start >= 7:
            kind, channel, size = _frame_start(stream, start)
            stop = start + size + 8
            if stop > end:
                break
            taker = takers.get(channel)
            if taker is not None and taker.take(kind, stream, start + 7, stop - 1):
                taken = True
            else:
                onward += stream[start:stop]
            start = stop
        self._rest = stream[start:]
        if taken:
            self._tell()

    def _tell(self) -> None:
        """The library must hear something now and then, else it takes the connection for dead."""
        now = asyncio.get_running_loop().time()
        if now - self._told_at > 1:
            self._told_at = now
            self._onward += _HEARTBEAT


class Taker:
    """Puts the deliveries of one channel together from their frames."""

    def __init__(self, arrived: Callable[[Arrival], None]) -> None:
        self._arrived = arrived
        self._tag = 0
        self._redelivered = False
        self._content_type: str | None = None
        self._headers: dict[str, Any] = {}
        self._size = 0
        self._parts: list[bytes] | None = None

    def take(self, kind: int, stream: bytes, start: int, stop: int) -> bool:
        """Take a frame's payload, if it belongs to a delivery."""
        if kind == _METHOD:
            if stream[start : start + 4] != _DELIVER:
                return False
            # behind the consumer tag
            at = start + 5 + stream[start + 4]
            (self._tag,) = _long_long(stream, at)
            self._redelivered = bool(stream[at + 8])
            self._parts = []
            return True
        if self._parts is None:
            return False
        if kind == _HEADER:
            self._size, flags = _size_and_flags(stream, start + 4)
            self._content_type, self._headers = _properties(stream, start + 14, flags)
        else:
            self._parts.append(stream[start:stop])
            self._size -= stop - start
        if self._size <= 0:
            body = b"".join(self._parts)
            self._parts = None
            self._arrived(Arrival(self._tag, self._redelivered, self._content_type, self._headers, body))
        return True


class TapFactory(aiormq_connection.TransportFactory):
    """Opens the library's own transport with a tap on it, which is then in `tap`."""

    def __init__(self) -> None:
        self.tap: Tap | None = None

    async def create(self, url: URL, **kwargs: Any) -> Any:
        secure = url.scheme == "amqps"
        inner = aiormq_connection.TLSTransportFactory() if secure else aiormq_connection.TCPTransportFactory()
        reader, writer = await inner.create(url, limit=_READ, **kwargs)
        self.tap = Tap(reader)
        return self.tap, writer


def _properties(stream: bytes, at: int, flags: int) -> tuple[str | None, dict[str, Any]]:
    """Content type and headers; they are the first and the third of the properties."""
    content_type = None
    if flags & _HAS_CONTENT_TYPE:
        length = stream[at]
        content_type = stream[at + 1 : at + 1 + length].decode(errors="replace")
        at += 1 + length
    if flags & _HAS_ENCODING:
        at += 1 + stream[at]
    return content_type, _table(stream, at) if flags & _HAS_HEADERS else {}


def _table(stream: bytes, start: int) -> dict[str, Any]:
    """A table of headers. Strings and integers are read here, one with other values by the library."""
    end = start + 4 + _long(stream, start)[0]
    at = start + 4
    found: dict[str, Any] = {}
    while at < end:
        length = stream[at]
        name = _name(stream[at + 1 : at + 1 + length])
        at += 1 + length
        kind = stream[at]
        if kind == _STRING:
            (size,) = _long(stream, at + 1)
            raw = stream[at + 5 : at + 5 + size]
            try:
                found[name] = raw.decode()
            except UnicodeDecodeError:
                found[name] = raw
            at += 5 + size
        elif kind == _INTEGER:
            (found[name],) = _signed_long_long(stream, at + 1)
            at += 9
        else:
            return _any_table(stream[start:end])
    return found


def _any_table(raw: bytes) -> dict[str, Any]:
    try:
        return dict(decode.field_table(raw)[1])
    except ValueError:
        # an unknown type of value: the message is then one without attributes
        return {}


_names: dict[bytes, str] = {}


def _name(raw: bytes) -> str:
    name = _names.get(raw)
    if name is None:
        name = raw.decode(errors="replace")
        if len(_names) < _MOST_NAMES:
            _names[raw] = name
    return name
