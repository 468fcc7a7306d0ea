"""The tap takes deliveries out of a stream, however it is cut up, and leaves the rest as it was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from amends.brokers.rabbitmq.tap import Arrival, Tap

HEADERS = {
    "cloudEvents:id": "größe",
    "x-delivery-count": 3,
    "empty": "",
}
OTHER_HEADERS = {"x-death": [{"count": 1, "time": datetime(2026, 1, 1, tzinfo=UTC)}], "flag": True, "text": "t"}


def delivery(channel: int, tag: int, headers: dict[str, Any] | None, body: bytes, *, part: int = 100) -> bytes:
    properties = Basic.Properties(content_type="text/plain", headers=headers, delivery_mode=2, message_id="m")
    frames: list[Any] = [
        Basic.Deliver(consumer_tag="ctag", delivery_tag=tag, redelivered=tag % 2 == 0, exchange="e", routing_key="k"),
        ContentHeader(body_size=len(body), properties=properties),
    ]
    frames += [ContentBody(body[at : at + part]) for at in range(0, len(body), part)]
    return b"".join(frame.marshal(each, channel) for each in frames)


def ours(tag: int, headers: dict[str, Any], body: bytes) -> Arrival:
    return Arrival(tag, tag % 2 == 0, "text/plain", headers, body)


async def tapped(chunks: list[bytes], *channels: int) -> tuple[dict[int, list[Arrival]], bytes]:
    """What the takers of these channels get, and what the library reads, but for heartbeats."""
    reader = asyncio.StreamReader()
    tap = Tap(reader)
    got: dict[int, list[Arrival]] = {channel: [] for channel in channels}
    for channel in channels:
        tap.take(channel, got[channel].append)
    for chunk in chunks:
        tap.feed(chunk)
    reader.feed_eof()
    onward = await tap.read()
    return got, onward.replace(frame.marshal(Heartbeat(), 0), b"")


@given(cuts=st.lists(st.integers(1, 60), max_size=60))
def test_deliveries_are_taken_and_the_rest_goes_on_however_the_stream_is_cut(cuts: list[int]) -> None:
    not_ours = delivery(2, 1, HEADERS, b"theirs")
    answer = frame.marshal(Basic.ConsumeOk("ctag"), 1)
    closed = frame.marshal(Channel.CloseOk(), 1)
    stream = b"".join(
        (
            answer,
            delivery(1, 1, HEADERS, b"one"),
            not_ours,
            delivery(1, 2, OTHER_HEADERS, b"x" * 250),
            delivery(3, 9, {}, b""),
            closed,
            delivery(1, 3, None, b"three"),
        )
    )
    chunks = []
    for cut in cuts:
        chunks.append(stream[:cut])
        stream = stream[cut:]
    got, onward = asyncio.run(tapped([*chunks, stream], 1, 3))
    assert got == {
        1: [ours(1, HEADERS, b"one"), ours(2, OTHER_HEADERS, b"x" * 250), ours(3, {}, b"three")],
        3: [ours(9, {}, b"")],
    }
    assert onward == answer + not_ours + closed


async def test_frames_of_channels_may_alternate() -> None:
    first, second = delivery(1, 1, HEADERS, b"a" * 250), delivery(3, 2, HEADERS, b"b" * 250)
    method = first.index(b"\xce") + 1
    got, onward = await tapped([first[:method] + second[:method] + first[method:] + second[method:]], 1, 3)
    assert (got[1], got[3]) == ([ours(1, HEADERS, b"a" * 250)], [ours(2, HEADERS, b"b" * 250)])
    assert onward == b""


async def test_the_library_hears_a_heartbeat_when_nothing_but_deliveries_come() -> None:
    reader = asyncio.StreamReader()
    tap = Tap(reader)
    tap.take(1, lambda _: None)
    tap.feed(delivery(1, 1, HEADERS, b"x") * 100)
    assert await tap.readexactly(8) == frame.marshal(Heartbeat(), 0)


async def test_a_stream_that_ends_inside_of_a_frame_ends_for_the_library_too() -> None:
    reader = asyncio.StreamReader()
    tap = Tap(reader)
    reader.feed_data(frame.marshal(Channel.CloseOk(), 1)[:-1])
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await tap.readexactly(1)
    assert tap.at_eof()


async def test_a_server_of_another_protocol_version_is_heard() -> None:
    reader = asyncio.StreamReader()
    tap = Tap(reader)
    reader.feed_data(b"AMQP\x00\x01\x00\x00")
    assert await tap.readexactly(8) == b"AMQP\x00\x01\x00\x00"


async def test_a_header_of_an_unknown_type_makes_a_message_without_headers_and_does_not_stop_the_stream() -> None:
    good = delivery(1, 2, HEADERS, b"good")
    strange = delivery(1, 1, {"a": "x"}, b"bad").replace(b"\x01aS\x00\x00\x00\x01x", b"\x01a?\x00\x00\x00\x01x")
    got, _ = await tapped([strange + good], 1)
    assert [(arrival.headers, arrival.body) for arrival in got[1]] == [({}, b"bad"), (HEADERS, b"good")]
