"""The map from virtual slots to shards."""

from msgspec import Struct

from amends.contracts import UsageError
from amends.contracts.names import SLOTS


class ShardMap(Struct, frozen=True):
    """Which shard holds which virtual slot: shard `s` of `n` holds a contiguous range of the 1,024 slots.

    The map of an installation is stored with its messages and its sagas. A process that was started with another one
    refuses to run, since it would read the wrong queues. Growing the map moves slots between shards, never keys.
    """

    shards: int = 8
    version: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= SLOTS:
            raise UsageError(f"shards={self.shards} does not fit: there are {SLOTS} slots. Use 1 to {SLOTS}")

    def shard_of(self, slot: int) -> int:
        return slot * self.shards // SLOTS

    def slots_of(self, shard: int) -> range:
        """The slots of one shard."""
        return range(-(-shard * SLOTS // self.shards), -(-(shard + 1) * SLOTS // self.shards))

    def check(self, stored: "ShardMap", where: str) -> None:
        """Raise `UsageError` when the map found in `where` is another one."""
        if stored != self:
            raise UsageError(
                f"{where} was set up with {stored.shards} shards (map version {stored.version}), "
                f"this process wants {self.shards} (map version {self.version}). "
                f"Start it with shards={stored.shards}, or use another {where}"
            )
