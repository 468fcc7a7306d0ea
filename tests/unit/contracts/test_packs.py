"""Packs: nothing is lost in them, others can read them, and one bad message spoils no other."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.contracts.test_envelope import FULL, envelopes

from amends.contracts import Envelope, Kind
from amends.contracts.envelope import EPOCH
from amends.contracts.packs import PACK_TYPE, is_pack, read_pack, write_pack


def plain(id: str, data: bytes = b"{}", content_type: str = "application/json") -> Envelope:
    return Envelope(
        id=id, kind=Kind.EVENT, type="t.v1", source="s", subject="1", time=EPOCH, data=data, content_type=content_type
    )


@given(st.lists(envelopes, max_size=5))
def test_a_pack_loses_nothing_and_keeps_the_order(packed: list[Envelope]) -> None:
    assert [unpacked.envelope for unpacked in read_pack(write_pack(packed))] == packed


@given(envelopes)
def test_another_implementation_of_cloudevents_reads_each_event_of_a_pack(envelope: Envelope) -> None:
    (event,) = json.loads(write_pack([envelope]))
    read = JSONFormat().read(CloudEvent, json.dumps(event))
    assert read.get_id() == envelope.id
    assert read.get_subject() == envelope.subject


def test_what_another_implementation_wrote_can_be_read() -> None:
    event = CloudEvent(
        {"specversion": "1.0", "id": "1", "type": "t.v1", "source": "s", "subject": "o", "amendskind": "event"},
        {"text": "é"},
    )
    (read,) = read_pack(b"[" + JSONFormat().write(event) + b"]")
    assert read.envelope is not None
    assert json.loads(read.envelope.data) == {"text": "é"}


def test_numbers_may_be_written_as_strings_and_times_in_any_zone() -> None:
    event = json.loads(write_pack([FULL]))[0] | {"attempt": "3", "time": "2026-05-01T14:30:15.25+02:00"}
    (read,) = read_pack(json.dumps([event]).encode())
    assert read.envelope == FULL
    assert read.envelope.time.tzinfo is UTC


def test_json_data_stands_in_the_pack_as_json() -> None:
    (event,) = json.loads(write_pack([plain("1", b'{"a": [1]}')]))
    assert event["data"] == {"a": [1]}


@pytest.mark.parametrize("data", [b"{oops", b'"\xff"', b"\x00", b"{} {}"])
def test_data_that_only_says_it_is_json_does_not_spoil_the_pack(data: bytes) -> None:
    packed = [plain("1"), plain("2", data), plain("3")]
    assert [unpacked.envelope for unpacked in read_pack(write_pack(packed))] == packed


def test_text_of_another_type_is_read_as_text() -> None:
    event = json.loads(write_pack([plain("1")]))[0] | {"datacontenttype": "text/plain", "data": "hällo"}
    (read,) = read_pack(json.dumps([event]).encode())
    assert read.envelope == plain("1", "hällo".encode(), "text/plain")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ({"amendskind": "nonsense"}, "amendskind"),
        ({"subject": None}, "subject"),
        ({"time": "2026-05-01T12:30:15"}, "time"),
        ({"data_base64": "%%%"}, "base64"),
    ],
)
def test_a_message_that_cannot_be_read_does_not_spoil_the_others(spoil: dict[str, object], named: str) -> None:
    events = json.loads(write_pack([plain("1"), plain("2"), plain("3")]))
    events[1] |= spoil
    first, second, third = read_pack(json.dumps(events).encode())
    assert (first.envelope, third.envelope) == (plain("1"), plain("3"))
    assert second.envelope is None
    assert named in second.problem
    assert json.loads(second.body) == events[1]


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\x00"])
def test_a_body_that_is_no_pack_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_pack(body)


@pytest.mark.parametrize(
    ("content_type", "so"),
    [
        (PACK_TYPE, True),
        ("Application/CloudEvents-Batch+JSON; charset=UTF-8", True),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_a_pack_is_known_by_its_content_type(content_type: str | None, so: bool) -> None:
    assert is_pack(content_type) is so


def test_a_time_that_nobody_told_is_the_beginning_of_time() -> None:
    (event,) = json.loads(write_pack([FULL]))
    del event["time"]
    (read,) = read_pack(json.dumps([event]).encode())
    assert read.envelope is not None
    assert read.envelope.time == datetime(1970, 1, 1, tzinfo=UTC)
