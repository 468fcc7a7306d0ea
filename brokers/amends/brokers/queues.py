"""Addresses and the queues behind them, for adapters that keep queues of their own."""

from functools import lru_cache
from typing import Final

from amends.brokers.shards import ShardMap
from amends.contracts import UsageError

EVENT: Final = "event:"
CLIENT: Final = "client:"
_SLOT: Final = "slot:"
_PLAIN: Final = ("service:", CLIENT, EVENT)


@lru_cache(4096)
def queue_of(address: str, shard_map: ShardMap) -> str:
    """The queue of an address: the one of the shard for a slot, else the address itself.

    An `event:` address is no queue: its messages go to the queue of each subscriber. Raises `UsageError` for what is no
    address.
    """
    if address.startswith(_SLOT) and address[len(_SLOT) :].isdecimal():
        return shard_queue(shard_map.shard_of(int(address[len(_SLOT) :])))
    if address.startswith(_PLAIN):
        return address
    raise UsageError(f"{address!r} is no address. Make addresses with amends.contracts.names")


def shard_queue(shard: int) -> str:
    """`shard:03`."""
    return f"shard:{shard:02d}"


def subscriber_queue(subscriber: str) -> str:
    """Where the events for one subscriber name wait."""
    return f"subscriber:{subscriber}"
