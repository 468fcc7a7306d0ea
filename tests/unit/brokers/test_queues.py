"""From addresses to queues."""

import pytest

from amends.brokers import ShardMap
from amends.brokers.queues import queue_of
from amends.contracts import UsageError
from amends.contracts.names import SLOTS, client_address, service_address, slot_address, topic_address


@pytest.mark.parametrize("address", [service_address("inventory"), client_address("c1"), topic_address("placed.v1")])
def test_services_clients_and_topics_keep_their_names(address: str) -> None:
    assert queue_of(address, ShardMap()) == address


@pytest.mark.parametrize("shards", [1, 3, 8, 1024])
def test_slots_go_to_the_queue_of_their_shard(shards: int) -> None:
    shard_map = ShardMap(shards=shards)
    for slot in range(SLOTS):
        assert queue_of(slot_address(slot), shard_map) == f"shard:{shard_map.shard_of(slot):02d}"


@pytest.mark.parametrize("address", ["", "inventory", "slot:", "slot:-1", "shard:01", "shards", "subscriber:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        queue_of(address, ShardMap())
