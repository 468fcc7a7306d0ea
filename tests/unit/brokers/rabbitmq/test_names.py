"""Names at RabbitMQ: fixed for ever, and read back."""

from __future__ import annotations

import pytest

from amends.brokers.rabbitmq.names import Names
from amends.contracts import UsageError


def test_names_are_what_the_protocol_says() -> None:
    names = Names.of("amends")
    assert [names.slots, names.events, names.members, names.dead_letters] == [
        "amends.v1.slots",
        "amends.v1.events",
        "amends.v1.members",
        "amends.v1.dead-letters",
    ]
    assert names.service("inventory") == "amends.v1.service.inventory"
    assert [names.shard(3), names.shard(300)] == ["amends.v1.shard.03", "amends.v1.shard.300"]
    assert names.subscriber("watcher") == "amends.v1.subscriber.watcher"
    assert names.client("c1") == "amends.v1.client.c1"


def test_queues_are_called_by_their_addresses() -> None:
    names = Names.of("a.b-c")
    queues = (names.service("x.y"), names.shard(3), names.subscriber("w.v1"), names.client("c.1"), "other")
    assert [names.address_of(queue) for queue in queues] == [
        "service:x.y",
        "shard:03",
        "subscriber:w.v1",
        "client:c.1",
        "other",
    ]


@pytest.mark.parametrize("namespace", ["", "a b", "a/b", "ä", "-a", "x" * 61])
def test_what_cannot_be_in_a_queue_name_is_refused(namespace: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of queue names"):
        Names.of(namespace)


def test_names_that_are_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match="is too long for a queue"):
        Names.of("amends").service("x" * 240)
