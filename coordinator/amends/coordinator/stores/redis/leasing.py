"""What is due, for whoever asks first: timers and forgotten messages, under leases of store time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct

from amends.brokers.redis_link import Call, RedisLink, ServerTime
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.keys import Place
from amends.coordinator.stores.redis.merging import SETS, Bounds, Member, first_of
from amends.coordinator.stores.times import span

_MOST: Final = 64


class Leasable(Struct, frozen=True):
    """Sorted sets whose members are leased: the set of a place and that of its leases.

    `source` is what is told of a leased member: the first element of the saga, or the messages in the outbox.
    `exclusive` leaves out what has exactly the age asked for.
    """

    sets: Callable[[Place], tuple[str, str]]
    source: Literal["saga", "outbox"]
    exclusive: bool

    def keys(self, member: Member) -> tuple[str, str, str]:
        place = member.place
        return *self.sets(place), place.saga(member.name) if self.source == "saga" else place.outbox


TIMERS: Final = Leasable(lambda place: (place.timers, place.timer_leases), "saga", exclusive=False)
SENDING: Final = Leasable(lambda place: (place.sending, place.sending_leases), "outbox", exclusive=True)


class Leasing:
    """Looks, and leases what it has seen unless somebody was quicker."""

    def __init__(self, link: RedisLink, time: ServerTime) -> None:
        self._link, self._time = link, time

    async def lease(
        self, kind: Leasable, places: Sequence[Place], limit: int, lease_s: float, age_s: float = 0.0
    ) -> list[tuple[Member, bytes]]:
        """Lease up to `limit` members that have reached this age, the oldest first; give each with its source."""
        leased: list[tuple[Member, bytes]] = []
        while len(leased) < limit:
            now = self._time.word()
            bounds = Bounds(now, None, span(age_s), kind.exclusive, leases=True)
            seen = await first_of(self._link, places, kind.sets, bounds, limit - len(leased))
            groups = list(self._link.together(seen, lambda member: member.place.prefix, _MOST))
            answers = await self._link.run([self._call(kind, group, now, lease_s) for group in groups])
            won = [
                (member, told)
                for group, answer in zip(groups, answers, strict=True)
                for member, told in zip(group, answer, strict=True)
                if told is not None
            ]
            leased += won
            if len(won) == len(seen):
                break  # nobody was quicker, so there is no more
        return sorted(leased, key=lambda found: (found[0].at, found[0].name))

    def _call(self, kind: Leasable, members: Sequence[Member], now: str, lease_s: float) -> Call:
        words: list[str | bytes | int] = [now, span(lease_s), kind.source]
        for member in members:
            words += (member.name, member.score)
        return scripts.LEASE.call([key for member in members for key in kind.keys(member)], words)

    async def earliest(self, kind: Leasable, places: Sequence[Place]) -> int | None:
        """When the first member is free: by its own time, or when its lease ends."""
        words = (self._time.word(),)
        groups = self._link.together(places, lambda place: place.prefix, SETS)
        calls = [scripts.EARLIEST.call([key for place in group for key in kind.sets(place)], words) for group in groups]
        found = await self._link.run(calls)
        return min((int(float(score)) for score in found if score is not None), default=None)
