"""docs/protocol.md says what is so: its examples are what our code sends and reads, and what `cloudevents` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from inspect import signature
from typing import Any, NamedTuple
from zlib import crc32

import pytest

pytest.importorskip("aio_pika")
pytest.importorskip("aiokafka")

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, kafka
from cloudevents.core.formats.json import JSONFormat
from msgspec.structs import replace
from tests.docs.conversation import conversation
from tests.docs.pages import ROOT, blocks

from amends.brokers import Outgoing, ShardMap
from amends.brokers.kafka import wire as kafka_wire
from amends.brokers.kafka.assignor import KeepingAssignor
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.topics import Topics
from amends.brokers.rabbitmq.broker import DELIVERY_LIMIT, RabbitmqBroker
from amends.brokers.rabbitmq.names import NAMESPACE, Names
from amends.brokers.rabbitmq.topology import UNLIMITED, Topology
from amends.brokers.rabbitmq.wire import unwrap, wrap
from amends.contracts import Envelope, Kind, ReplyOutcome, slot_of
from amends.contracts.envelope import ATTRIBUTES
from amends.contracts.names import slot_address
from amends.coordinator import Policy
from amends.participants import Participant
from amends.participants.answers import reply_to
from amends.participants.rows import Answered, Recording

PAGE = ROOT / "docs/protocol.md"
TEXT = PAGE.read_text("utf-8")


class Example(NamedTuple):
    """A message of the page: where it goes, its headers and its body."""

    to: str
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers["content-type"]

    @property
    def attributes(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name != "content-type"}

    def shown(self) -> str:
        lines = [self.to, *(f"{name}: {value}" for name, value in self.headers.items()), "", self.body.decode()]
        return "\n".join(lines) + "\n"


@cache
def examples() -> Mapping[str, Example]:
    """The examples of the page by name; those as on Kafka are `kafka …`."""
    found = {}
    for block in blocks(PAGE):
        if block.language.startswith("message "):
            head, _, body = block.text.partition("\n\n")
            to, *lines = head.splitlines()
            headers = dict(line.split(": ", 1) for line in lines)
            found[block.language.removeprefix("message ")] = Example(to, headers, body.removesuffix("\n").encode())
    return found


def on_rabbitmq(message: Outgoing) -> Example:
    """A message as our RabbitMQ adapter sends it."""
    nobody: Any = None
    broker = RabbitmqBroker(nobody, nobody, Names.of(NAMESPACE), ShardMap(), DELIVERY_LIMIT, bulk=True)
    route = broker._route(message.address)
    parcel = wrap(message.envelope, route.exchange, route.key, mandatory=route.mandatory)
    to = f'exchange "{parcel.exchange}", routing key "{parcel.key}"'
    return Example(to, {"content-type": parcel.content_type, **parcel.headers}, parcel.body)


def on_kafka(message: Outgoing) -> Example:
    """A message as our Kafka adapter sends it."""
    topics = Topics(KafkaOptions(servers=("nowhere:9092",)), ShardMap())
    kind, _, name = message.address.partition(":")
    topic = topics.of_service(name) if kind == "service" else topics.shards
    key = kafka_wire.key_of(message.envelope)
    partition = ShardMap().shard_of(slot_of(key))
    to = f'topic "{topic}", partition {partition} of 8, key "{key}"'
    headers = {name: value.decode() for name, value in kafka_wire.headers_of(message.envelope)}
    content_type = headers.pop("content-type")
    return Example(to, {"content-type": content_type, **headers}, message.envelope.data)


def sent() -> dict[str, Example]:
    """What our code sends."""
    talk = conversation()
    found = {name: on_rabbitmq(message) for name, message in talk.items()}
    return {**found, **{f"kafka {name}": on_kafka(talk[name]) for name in ("command", "done")}}


NAMES = sorted(conversation())
of_every_example = pytest.mark.parametrize("name", NAMES)


def test_the_page_shows_every_kind_and_only_what_is_compared() -> None:
    assert set(examples()) == set(sent())
    shown = {example.headers.get("cloudEvents:amendskind") for example in examples().values()}
    assert shown - {None} == {kind.value for kind in Kind} - {Kind.TIMER}


@pytest.mark.parametrize("name", sorted(sent()))
def test_an_example_is_what_our_code_sends(name: str) -> None:
    assert examples()[name].shown() == sent()[name].shown()


@of_every_example
def test_an_example_is_read_as_what_was_meant(name: str) -> None:
    example = examples()[name]
    envelope, problem = unwrap(example.attributes, example.content_type, example.body)
    assert problem == ""
    assert envelope == conversation()[name].envelope


@of_every_example
def test_the_cloudevents_package_reads_an_example(name: str) -> None:
    example = examples()[name]
    message = amqp.AMQPMessage({"content-type": example.content_type}, dict(example.attributes), example.body)
    agree(amqp.from_binary(message, JSONFormat()), conversation()[name].envelope)


@pytest.mark.parametrize("name", ["command", "done"])
def test_the_cloudevents_package_reads_an_example_as_on_kafka(name: str) -> None:
    example = examples()[f"kafka {name}"]
    headers = {name: value.encode() for name, value in example.headers.items()}
    found = kafka.from_binary(kafka.KafkaMessage(headers, b"order-7", example.body), JSONFormat())
    agree(found, conversation()[name].envelope)


def agree(event: BaseCloudEvent, envelope: Envelope) -> None:
    assert event.get_data() == json.loads(envelope.data)
    assert event.get_time() == envelope.time
    told = {name: value for name, value in event.get_attributes().items() if name != "time"}
    assert told == {name: value for name, value in envelope.attributes().items() if name != "time"}


@of_every_example
def test_what_the_cloudevents_package_writes_is_read_as_the_same(name: str) -> None:
    """Also when it writes times as numbers, and `cloudEvents_` before the names."""
    envelope = conversation()[name].envelope
    example = examples()[name]
    message = amqp.AMQPMessage({"content-type": example.content_type}, dict(example.attributes), example.body)
    written = amqp.to_binary(amqp.from_binary(message, JSONFormat()), JSONFormat())
    assert isinstance(written.application_properties["cloudEvents_time"], int)
    found, problem = unwrap(written.application_properties, written.properties["content-type"], envelope.data)
    assert (found, problem) == (envelope, "")
    assert json.loads(written.application_data) == json.loads(envelope.data)


# what stands in the tables


def cells(heading: str, column: int = 0) -> list[str]:
    """The words in code font of one column of the first table behind a heading."""
    table = TEXT.split(f"\n{heading}\n", 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0]
    rows = [row.split(" | ") for row in table.splitlines()[1:]]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row[column])]


def test_every_attribute_is_in_the_table() -> None:
    assert set(cells("## Messages")) == {"specversion", *ATTRIBUTES.values()}


def test_every_kind_and_every_outcome_is_in_its_table() -> None:
    assert cells("### Kinds") == [kind.value for kind in sorted(Kind, key=cells("### Kinds").index)]
    assert set(cells("### Kinds")) == {kind.value for kind in Kind}
    assert set(cells("### Outcomes")) == {outcome.value for outcome in ReplyOutcome}


def test_the_slots_are_these() -> None:
    rows = re.findall(r"^\| `(.+)` \| (\d+) \| `(slot:\d{4})` \| (\d) \|$", TEXT, re.M)
    assert len(rows) == 2
    for saga_id, checksum, address, partition in rows:
        assert crc32(saga_id.encode()) == int(checksum)
        assert slot_address(slot_of(saga_id)) == address
        assert ShardMap().shard_of(slot_of(saga_id)) == int(partition)


def test_queues_have_these_arguments() -> None:
    (told,) = [json.loads(block.text) for block in blocks(PAGE) if block.language == "json"]
    nobody: Any = None
    assert Topology(nobody, Names.of(NAMESPACE), DELIVERY_LIMIT)._work() == told


def test_a_reply_copies_what_the_page_says() -> None:
    asked = conversation()["undo"].envelope
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    full = replace(asked, traceparent=trace, tracestate="a=b")
    done = Answered(ReplyOutcome.DONE, Recording("t.v1", b"{}", "application/json"))
    answer = reply_to(full, "payments", done, full.time)
    assert answer is not None
    theirs, ours = full.attributes(), answer.envelope.attributes()
    copied = {name for name in ours.keys() & theirs.keys() if ours[name] == theirs[name]}
    copied -= {"specversion", "time", "datacontenttype"}
    listed = re.search(r"^- unchanged, where they are there: (.*?)\n\n", TEXT, re.M | re.S)
    assert listed is not None
    assert copied == set(re.findall(r"`(\w+)`", listed[1]))
    assert ours["causationid"] == theirs["id"]


def test_the_numbers_are_those_of_the_code() -> None:
    policy, kafka_options = Policy(), KafkaOptions(servers=("nowhere:9092",))
    waits = [replace(policy.resend, jitter=0).wait(attempt).total_seconds() for attempt in range(1, 6)]
    assert "after {:.0f} s, then {:.0f}, {:.0f}, {:.0f}, {:.0f}, …".format(*waits) in TEXT
    assert (policy.resend.jitter, policy.command_ttl) == (0.2, timedelta(minutes=5))
    assert (policy.retry.attempts, policy.retriable.attempts) == (3, None)
    assert (policy.undo_retry.attempts, policy.settle_retry.attempts) == (10, 10)
    assert signature(Participant).parameters["skew"].default == 5
    assert signature(RabbitmqBroker.consume_service).parameters["prefetch"].default == 256
    assert (kafka_options.partitions, kafka_options.retention_s) == (8, timedelta(days=7).total_seconds())
    topic = Topics(kafka_options, ShardMap())._new("t", 1)
    assert f"`max.message.bytes={topic.topic_configs['max.message.bytes']}`" in TEXT
    assert f"{kafka_options.max_message_bytes:,} bytes" in TEXT
    assert f"`{KeepingAssignor.name}`" in TEXT
    assert f"`x-delivery-limit` {UNLIMITED} " in TEXT


def test_topics_and_groups_are_named_so() -> None:
    topics = Topics(KafkaOptions(servers=("nowhere:9092",)), ShardMap())
    found = {
        "amends.shards.vN": topics.shards.replace("v1", "vN"),
        "amends.service.NAME": topics.of_service("NAME"),
        "amends.event.TYPE": topics.of_event("TYPE"),
        "amends.clients": topics.clients,
        "amends.dead-letters": topics.dead_letters,
    }
    assert [*found] == [*found.values()] == [name for name in cells("## On Kafka") if name.startswith("amends.")]
    assert topics.group_of("service:NAME") == "amends.service.NAME"
    assert topics.group_of("subscriber:NAME") == "amends.subscriber.NAME"


def test_queues_and_exchanges_are_named_so() -> None:
    names = Names.of(NAMESPACE)
    told = set(cells("## On RabbitMQ", 1))
    ours = {names.slots, names.events, names.dead_letters, names.returned}
    ours |= {names.service("NAME"), names.subscriber("NAME")}
    assert {*ours, names.client("NAME")} <= told
    assert names.shard(3) == "amends.v1.shard.03"
    assert names.record("map") == "amends.v1.record.map"
