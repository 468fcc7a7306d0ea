"""Envelopes on AMQP: the CloudEvents binding, read and written, and the frames that carry it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amends.brokers.rabbitmq.frames import publish_frames
from amends.brokers.rabbitmq.wire import Parcel, unwrap, wrap
from amends.contracts import Envelope, Kind

T0 = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def envelope(**more: Any) -> Envelope:
    told: dict[str, Any] = {
        "id": "m1",
        "kind": Kind.COMMAND,
        "type": "inventory.reserve-stock.v1",
        "source": "größe",
        "subject": "order-1",
        "time": T0,
        "data": b"\x00\xff",
    }
    return Envelope(**{**told, **more})


def read_frames(raw: bytes) -> list[Any]:
    """What the client library makes of our bytes."""
    found = []
    while raw:
        size, channel, read = frame.unmarshal(raw)
        assert channel == 7
        found.append(read)
        raw = raw[size:]
    return found


def test_attributes_are_headers_with_the_prefix_of_the_binding_and_the_content_type_is_a_property() -> None:
    parcel = wrap(envelope(revision=2), "", "q", mandatory=True)
    assert parcel.content_type == "application/json"
    assert parcel.headers["cloudEvents:specversion"] == "1.0"
    assert parcel.headers["cloudEvents:id"] == "m1"
    assert parcel.headers["cloudEvents:time"] == "2026-01-01T12:00:00.250000Z"
    assert parcel.headers["cloudEvents:revision"] == "2"
    assert not [name for name in parcel.headers if "datacontenttype" in name]
    assert parcel.body == b"\x00\xff"


@pytest.mark.parametrize("told", [1_767_268_800_250, T0, "2026-01-01T12:00:00.25Z"])
def test_times_may_be_milliseconds_timestamps_or_texts(told: object) -> None:
    headers = wrap(envelope(), "", "q", mandatory=True).headers
    found, problem = unwrap({**headers, "cloudEvents:time": told, "cloudEvents:notafter": told}, None, b"")
    assert found is not None, problem
    assert (found.time, found.not_after) == (T0, T0)


def test_a_time_beyond_all_times_is_a_problem_of_its_message_alone() -> None:
    headers = wrap(envelope(), "", "q", mandatory=True).headers
    found, problem = unwrap({**headers, "cloudEvents:time": 2**62}, None, b"")
    assert found is None
    assert problem


def test_an_envelope_is_read_back_as_it_was() -> None:
    sent = envelope(reply_to="slot:0413", effect_key="order-1~a/charge#0", issued_at=T0, content_type="application/x")
    parcel = wrap(sent, "", "q", mandatory=True)
    assert unwrap(parcel.headers, parcel.content_type, parcel.body) == (sent, "")


def test_values_of_other_types_and_the_other_prefix_are_understood() -> None:
    headers = {
        "cloudEvents_id": "m1",
        "cloudEvents:amendskind": "command",
        "cloudEvents:type": b"inventory.reserve-stock.v1",
        "cloudEvents:source": "s",
        "cloudEvents:subject": 42,
        "cloudEvents:time": T0,
        "cloudEvents:revision": 3,
        "cloudEvents:something": True,
        "other": "x",
    }
    got, problem = unwrap(headers, "application/json", b"")
    assert problem == ""
    assert got is not None
    assert (got.id, got.type, got.subject, got.time, got.revision) == ("m1", "inventory.reserve-stock.v1", "42", T0, 3)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, "envelope attribute 'id' is missing"),
        ({"cloudEvents:time": "x"}, "attribute 'time' is malformed"),
        ({"cloudEvents:time": "0001-01-01T00:00:00+23:00"}, "out of range"),
    ],
)
def test_what_is_no_envelope_is_told(headers: dict[str, Any], problem: str) -> None:
    got, told = unwrap(headers, None, b"x")
    assert got is None
    assert problem in told


values = st.one_of(
    st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.lists(st.text(max_size=5), max_size=3), st.none()
)


@given(
    headers=st.dictionaries(st.text("abc:ü", min_size=1, max_size=20), values, max_size=6),
    body=st.binary(max_size=300),
    mandatory=st.booleans(),
)
def test_our_frames_say_what_the_client_library_would(headers: dict[str, Any], body: bytes, mandatory: bool) -> None:
    parcel = Parcel("exchange", "ключ", body, headers, "text/plain", mandatory=mandatory)
    publish, header, *bodies = read_frames(b"".join(publish_frames(7, parcel, "id#1", 100)))
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("exchange", "ключ", mandatory)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    properties = header.properties
    assert (properties.content_type, properties.delivery_mode, properties.message_id) == ("text/plain", 2, "id#1")
    assert (properties.headers or {}) == headers
    assert all(isinstance(part, ContentBody) and len(part.value or b"") <= 100 for part in bodies)
    assert b"".join(part.value for part in bodies) == body
