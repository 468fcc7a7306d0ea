"""Who shares the shards, as one of them sees it, and what follows for its own share. Pure."""

from __future__ import annotations

from msgspec import Struct

from amends.brokers.shares import share_out


class Greeting(Struct, frozen=True):
    """What members tell each other: who I am, which shards I hold; or that I leave. With id 0 it only asks for life."""

    id: int
    holds: frozenset[int] = frozenset()
    leaves: bool = False


class Roll:
    """The members that are known, and the shards they hold. All who know the same compute the same shares."""

    def __init__(self, me: int, shards: int) -> None:
        self.me = me
        self.mine: frozenset[int] = frozenset()
        self._shards = shards
        self._others: dict[int, frozenset[int]] = {}

    @property
    def others(self) -> list[int]:
        return sorted(self._others)

    def hear(self, greeting: Greeting) -> bool:
        """Take note. Says whether that was news."""
        if greeting.id in (0, self.me):
            return False
        if greeting.leaves:
            return self.strike(greeting.id)
        known = self._others.get(greeting.id)
        self._others[greeting.id] = greeting.holds
        return known != greeting.holds

    def strike(self, member: int) -> bool:
        """A member is gone. Says whether that was news."""
        return self._others.pop(member, None) is not None

    def clear(self) -> None:
        """Nobody is known any more."""
        self._others.clear()

    def share(self) -> frozenset[int]:
        """What this member should hold. Of several who say they hold a shard, the one with the lowest id counts."""
        members = {**self._others, self.me: self.mine}
        holders = {shard: member for member in sorted(members, reverse=True) for shard in members[member]}
        return share_out(self._shards, sorted(members), holders)[self.me]
