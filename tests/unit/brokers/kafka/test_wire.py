"""Records are CloudEvents in the Kafka binding's binary mode: an independent library reads and writes the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

pytest.importorskip("aiokafka")

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from amends.brokers.kafka.wire import buried, headers_of, key_of, read, unearthed
from amends.contracts import Envelope, Kind, ReplyOutcome

T0 = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
FULL = Envelope(
    id="m1",
    kind=Kind.REPLY,
    type="inventory.stock-reserved.v1",
    source="größe",
    subject="order/1",
    time=T0,
    data=b'{"a": 1}',
    correlation_id="c",
    effect_key="order-1~abc/reserve#0",
    revision=2,
    outcome=ReplyOutcome.DONE,
    issued_at=T0,
    version=4,
)


class Record(NamedTuple):
    headers: Any
    value: bytes | None = b""
    key: bytes | None = None
    topic: str = "t"
    partition: int = 0
    offset: int = 7
    timestamp: int = 0


def test_cloudevents_reads_what_we_write() -> None:
    headers = headers_of(FULL)
    event = from_binary(KafkaMessage(dict(headers), key_of(FULL), FULL.data), JSONFormat())
    assert event.get_data() == {"a": 1}
    got = event.get_attributes()
    assert (got["id"], got["source"], got["subject"], got["time"]) == ("m1", "größe", "order/1", T0)
    assert (got["amendskind"], got["effectkey"], got["outcome"]) == ("reply", "order-1~abc/reserve#0", "done")
    assert got["datacontenttype"] == "application/json"


def test_we_read_what_cloudevents_writes() -> None:
    attributes: dict[str, Any] = {
        "id": "m2",
        "source": "elsewhere",
        "type": "inventory.reserve-stock.v1",
        "specversion": "1.0",
        "subject": "order-1",
        "time": T0,
        "datacontenttype": "application/json",
        "amendskind": "command",
        "partitionkey": "order-1",
    }
    sent = to_binary(CloudEvent(attributes, data={"sku": "a"}), JSONFormat())
    envelope, problem = read(Record(list(sent.headers.items()), sent.value))
    assert problem == ""
    assert envelope == Envelope(
        id="m2",
        kind=Kind.COMMAND,
        type="inventory.reserve-stock.v1",
        source="elsewhere",
        subject="order-1",
        time=T0,
        data=sent.value,
        partition_key="order-1",
    )
    assert sent.key == key_of(envelope)


def test_events_about_nothing_in_particular_are_spread_by_their_ids() -> None:
    event = Envelope(id="e1", kind=Kind.EVENT, type="t.v1", source="s", subject="", time=T0)
    assert key_of(event) == "e1"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([], "envelope attribute 'id' is missing"),
        ([("ce_id", b"\xff")], "utf-8"),
        ([("ce_id", None)], "NoneType"),
        ([(name, value) for name, value in headers_of(FULL) if name != "ce_type"], "'type' is missing"),
        ([*headers_of(FULL), ("ce_revision", b"two")], "'revision' is malformed"),
    ],
)
def test_what_cannot_be_read_is_told(headers: Any, says: str) -> None:
    envelope, problem = read(Record(headers))
    assert envelope is None
    assert says in problem


def test_unknown_headers_are_ignored() -> None:
    assert read(Record([*headers_of(FULL), ("ce_new", b"x"), ("other", b"\xff")], FULL.data))[0] == FULL


def test_a_dead_letter_keeps_the_record_and_is_there_once_when_it_was_written_twice() -> None:
    record = Record([*headers_of(FULL), ("trace", b"t")], FULL.data, b"k")
    grave = buried("dead", record, "service:a", "refused", "not now", 3)
    assert (grave.topic, grave.key, grave.value) == ("dead", b"k", FULL.data)
    assert set(record.headers) <= set(grave.headers)
    twice = [Record(grave.headers, grave.value, offset=offset) for offset in (11, 12)]
    other = buried("dead", Record([], b"\xff", offset=8), "shard:01", "undecodable", "x" * 20_000, 1)
    newer, older = unearthed([*twice, Record(other.headers, other.value, offset=13)])
    assert (older.id, older.queue, older.reason, older.detail) == (11, "service:a", "refused", "not now")
    assert (older.deliveries, older.envelope, older.body) == (3, FULL, b"")
    assert (newer.envelope, newer.body, newer.queue) == (None, b"\xff", "shard:01")
    assert len(newer.detail) == 8_000
