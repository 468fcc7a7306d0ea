"""Envelopes as CloudEvents attributes: nothing is lost, and others understand them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from amends.contracts import Envelope, Kind, ReplyOutcome, TerminalError

NOW = datetime(2026, 5, 1, 12, 30, 15, 250000, tzinfo=UTC)

FULL = Envelope(
    id="m1",
    kind=Kind.REPLY,
    type="inventory.reserve-stock.v1",
    source="inventory",
    subject="order-1",
    time=NOW,
    data=b"{}",
    content_type="application/msgpack",
    correlation_id="order-1",
    causation_id="m0",
    reply_to="slot:0413",
    effect_key="order-1~i1/reserve#0",
    revision=2,
    attempt=3,
    issued_at=NOW,
    not_after=NOW + timedelta(minutes=5),
    outcome=ReplyOutcome.IN_DOUBT,
    incarnation="i1",
    version=7,
    commit_id="c1",
    sequence=4,
    partition_key="413",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate="a=b",
)

times = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
numbers = st.integers(0, 2**53)
envelopes = st.builds(
    Envelope,
    id=words,
    kind=st.sampled_from(Kind),
    type=words,
    source=words,
    subject=words,
    time=times,
    data=st.binary(max_size=20),
    content_type=st.sampled_from(["application/json", "application/msgpack"]),
    correlation_id=st.just("") | words,
    causation_id=st.just("") | words,
    reply_to=st.none() | words,
    effect_key=st.none() | words,
    revision=numbers,
    attempt=numbers,
    issued_at=st.none() | times,
    not_after=st.none() | times,
    outcome=st.none() | st.sampled_from(ReplyOutcome),
    incarnation=st.none() | words,
    version=numbers,
    commit_id=st.none() | words,
    sequence=st.none() | numbers,
    partition_key=st.none() | words,
    traceparent=st.none() | words,
    tracestate=st.none() | words,
)


@given(envelopes)
def test_attributes_lose_nothing(envelope: Envelope) -> None:
    assert Envelope.from_attributes(envelope.attributes(), envelope.data) == envelope


@given(envelopes)
def test_the_stored_form_loses_nothing(envelope: Envelope) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(envelope), type=Envelope) == envelope


def test_the_attributes_are_those_of_the_protocol() -> None:
    assert FULL.attributes() == {
        "specversion": "1.0",
        "id": "m1",
        "amendskind": "reply",
        "type": "inventory.reserve-stock.v1",
        "source": "inventory",
        "subject": "order-1",
        "time": "2026-05-01T12:30:15.250000Z",
        "datacontenttype": "application/msgpack",
        "correlationid": "order-1",
        "causationid": "m0",
        "replyto": "slot:0413",
        "effectkey": "order-1~i1/reserve#0",
        "revision": "2",
        "attempt": "3",
        "issuedat": "2026-05-01T12:30:15.250000Z",
        "notafter": "2026-05-01T12:35:15.250000Z",
        "outcome": "in-doubt",
        "incarnation": "i1",
        "sagaversion": "7",
        "commitid": "c1",
        "sequence": "4",
        "partitionkey": "413",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
    }


def accepted(envelope: Envelope) -> CloudEvent:
    """The envelope as an independent implementation of CloudEvents takes it; raises if it does not."""
    attributes: dict[str, Any] = dict(envelope.attributes())
    attributes["time"] = datetime.fromisoformat(attributes["time"])
    return CloudEvent(attributes, envelope.data)


def test_another_implementation_of_cloudevents_accepts_a_full_envelope() -> None:
    event = accepted(FULL)
    assert (event.get_id(), event.get_type(), event.get_source()) == ("m1", "inventory.reserve-stock.v1", "inventory")
    assert (event.get_subject(), event.get_datacontenttype()) == ("order-1", "application/msgpack")
    assert event.get_time() == NOW
    assert event.get_extension("effectkey") == "order-1~i1/reserve#0"


@given(envelopes)
def test_another_implementation_of_cloudevents_accepts_every_envelope(envelope: Envelope) -> None:
    accepted(envelope)


def test_that_other_implementation_does_refuse_what_is_wrong() -> None:
    with pytest.raises(Exception, match="specversion"):
        CloudEvent({"specversion": "2.0", "id": "1", "type": "t", "source": "s"}, b"")
    with pytest.raises(Exception, match="Effect_Key"):
        CloudEvent({"specversion": "1.0", "id": "1", "type": "t", "source": "s", "Effect_Key": "x"}, b"")


def minimal(**changes: str) -> dict[str, str]:
    least = {"id": "1", "amendskind": "event", "type": "t.v1", "source": "s", "subject": "x"}
    return {**least, **changes}


def test_an_event_of_somebody_who_knows_nothing_of_amends_can_be_read() -> None:
    envelope = Envelope.from_attributes({"specversion": "1.0", "id": "1", "type": "t.v1", "source": "s"}, b"{}")
    assert (envelope.kind, envelope.subject) == (Kind.EVENT, "")


def test_an_event_about_nothing_in_particular_loses_nothing() -> None:
    about_nothing = msgspec.structs.replace(FULL, kind=Kind.EVENT, subject="")
    assert Envelope.from_attributes(about_nothing.attributes(), about_nothing.data) == about_nothing


def test_only_five_attributes_are_needed_and_unknown_ones_are_ignored() -> None:
    envelope = Envelope.from_attributes(minimal(colour="red", specversion="1.0"), b"{}")
    assert envelope == Envelope(
        id="1", kind=Kind.EVENT, type="t.v1", source="s", subject="x", data=b"{}", time=datetime(1970, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize("missing", ["id", "type", "source", "subject"])
def test_a_missing_attribute_is_named(missing: str) -> None:
    attributes = minimal(amendskind="reply")
    del attributes[missing]
    with pytest.raises(TerminalError, match=f"envelope attribute '{missing}' is missing"):
        Envelope.from_attributes(attributes, b"")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("amendskind", "wish"),
        ("outcome", "maybe"),
        ("time", "yesterday"),
        ("notafter", "2026-05-01T12:00:00"),
        ("attempt", "third"),
        ("revision", ""),
    ],
)
def test_a_malformed_attribute_is_named(attribute: str, value: str) -> None:
    with pytest.raises(TerminalError, match=f"envelope attribute '{attribute}' is malformed: '{value}'"):
        Envelope.from_attributes(minimal(**{attribute: value}), b"")


def test_times_of_other_zones_become_utc() -> None:
    envelope = Envelope.from_attributes(minimal(time="2026-05-01T14:30:15.25+02:00"), b"")
    assert envelope.time == NOW
    assert envelope.time.tzinfo is UTC
    local = msgspec.structs.replace(FULL, time=NOW.astimezone(timezone(timedelta(hours=5))))
    assert local.attributes()["time"] == "2026-05-01T12:30:15.250000Z"


def test_the_command_key_is_the_effect_key_with_its_revision() -> None:
    assert FULL.command_key == "order-1~i1/reserve#0@2"
    assert msgspec.structs.replace(FULL, effect_key=None).command_key is None
