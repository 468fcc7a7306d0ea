"""Codecs: what is written can be read, and what cannot be read says where it is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from amends.contracts import JSON, MSGPACK, Codec, DecodeError, Event, Failure, TerminalError, codec_for


class Line(Struct):
    sku: str
    count: int = 1


class Placed(Event, service="orders"):
    order_id: str
    lines: list[Line]
    price: Decimal
    at: datetime
    token: UUID


placed = st.builds(
    Placed,
    order_id=st.text(),
    lines=st.lists(st.builds(Line, sku=st.text(), count=st.integers(-(2**53), 2**53)), max_size=3),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    at=st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    token=st.uuids(),
)
BOTH = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])


@BOTH
@given(event=placed)
def test_what_is_written_can_be_read(codec: Codec, event: Placed) -> None:
    data = codec.encode(event)
    assert codec.decode(data, Placed) == event
    assert codec.decode(msgspec.Raw(data), Placed) == event


@BOTH
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"order_id": "1", "lines": [{"sku": "a"}, {"sku": 2}]}, "Expected `str`, got `int` - at `$.lines[1].sku`"),
        ({"order_id": "1", "lines": [{}]}, "Object missing required field `sku` - at `$.lines[0]`"),
        ({"lines": []}, "Object missing required field `order_id`"),
        ([1], "Expected `object`, got `array`"),
    ],
)
def test_the_field_that_cannot_be_read_is_named(codec: Codec, value: object, problem: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(codec.encode(value), Placed)
    assert caught.value.type == "orders.placed.v1"
    assert caught.value.problem == problem
    assert str(caught.value) == f"orders.placed.v1: {problem}"
    assert isinstance(caught.value, TerminalError)


@BOTH
@given(data=st.binary(max_size=30))
def test_rubbish_is_a_decode_error_and_nothing_else(codec: Codec, data: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(data, Placed)


@pytest.mark.parametrize(("codec", "data"), [(JSON, b"[" * 5000 + b"]" * 5000), (MSGPACK, b"\x91" * 5000 + b"\xc0")])
def test_data_nested_too_deep_is_a_decode_error_like_any_other(codec: Codec, data: bytes) -> None:
    with pytest.raises(DecodeError, match="RecursionError"):
        codec.decode(data, dict[str, str] | list[object])


@BOTH
def test_what_a_class_does_not_accept_is_a_decode_error_whatever_it_raises(codec: Codec) -> None:
    class Counted(Event):
        count: int

        def __post_init__(self) -> None:
            assert self.count > 0, "count what is there"

    data = codec.encode({"$type": Counted.__tag__, "count": 0})
    with pytest.raises(DecodeError, match="AssertionError: count what is there"):
        codec.decode(data, Counted)


def test_types_without_a_tag_are_called_by_their_names() -> None:
    with pytest.raises(DecodeError, match=r"^Line: "):
        JSON.decode(b"[]", Line)
    with pytest.raises(DecodeError, match=r"^amends\.failure\.v1: "):
        JSON.decode(b"[]", Failure)
    with pytest.raises(DecodeError, match=r"^list\[int\]: |^list: "):
        JSON.decode(b"{}", list[int])


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("Application/JSON ;charset=utf-8", JSON),
        ("application/msgpack", MSGPACK),
    ],
)
def test_a_content_type_names_its_codec(content_type: str, codec: Codec) -> None:
    assert codec_for(content_type) is codec
    assert codec.content_type in ("application/json", "application/msgpack")


def test_an_unknown_content_type_is_refused() -> None:
    with pytest.raises(TerminalError, match="no codec for content type 'text/xml'; known: application/json"):
        codec_for("text/xml")
