"""The first members of many sorted sets, as if they were one.

Ids spread evenly over the slots, so that few members of each set are enough to begin with; sets that may hold more of
what is wanted are asked again. One script call looks at many sets: 1,024 slots are a few calls in one round trip. In a
cluster it is a call for each slot, and still one round trip for each server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from amends.brokers.redis_link import RedisLink
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.keys import Place

T = TypeVar("T")

SETS: Final = 128
"""How many sets one script call looks at: about a tenth of a millisecond of Redis' time when they are small."""


async def merged(
    sets: int,
    fetch: Callable[[Sequence[int], int], Awaitable[Mapping[int, Sequence[T]]]],
    order: Callable[[T], Any],
    limit: int,
    *,
    newest: bool = False,
) -> list[T]:
    """The first `limit` members of all sets. `fetch` is given numbers of sets, and how many of each it is to fetch."""
    found: dict[int, Sequence[T]] = {}
    left: Sequence[int] = range(sets) if limit > 0 else ()
    count = max(1, -(-limit * 2 // max(sets, 1)))
    result: list[T] = []
    while left:
        count = min(count, limit)
        found.update(await fetch(left, count))
        result = sorted((member for members in found.values() for member in members), key=order, reverse=newest)
        del result[limit:]
        last = order(result[-1]) if len(result) == limit else None
        left = [number for number in left if _goes_on(found.get(number, ()), count, order, last, newest)]
        if count == limit:
            break
        count *= 4
    return result


def _goes_on(members: Sequence[T], count: int, order: Callable[[T], Any], last: Any, newest: bool) -> bool:
    """Whether a set of which `count` were fetched may have more that come before `last`, the last one wanted so far."""
    if len(members) < count:
        return False
    if last is None:
        return True
    return bool(order(members[-1]) > last if newest else order(members[-1]) < last)


class Member(Struct, frozen=True, gc=False):
    """A member of a set that is sorted by time. `score` is the text that Redis has sent, `place` where it is."""

    at: int
    name: str
    score: bytes
    place: Place


class Bounds(Struct, frozen=True):
    """What to look for.

    `stop` is the score to stop at, as Redis takes it (`(` before it excludes it). None stands for store time, less
    `age` microseconds. `now` is what scripts are told of the time. With `leases`, members under a lease are left out.
    """

    now: str = ""
    stop: str | None = "+inf"
    age: int = 0
    exclusive: bool = False
    leases: bool = False


async def first_of(
    link: RedisLink, places: Sequence[Place], sets: Callable[[Place], tuple[str, str]], bounds: Bounds, limit: int
) -> list[Member]:
    """Up to `limit` members, the lowest scores first. `sets` names the set of a place and that of the leases on it."""

    async def fetch(numbers: Sequence[int], count: int) -> dict[int, list[Member]]:
        words = (
            bounds.now,
            "leases" if bounds.leases else "",
            "" if bounds.stop is None else bounds.stop,
            bounds.age,
            "(" if bounds.exclusive else "",
            count,
        )
        groups = list(link.together(numbers, lambda number: places[number].prefix, SETS))
        calls = [
            scripts.PEEK.call([key for number in group for key in sets(places[number])], words) for group in groups
        ]
        return {
            group[position - 1]: [
                Member(int(float(score)), name.decode(), score, places[group[position - 1]])
                for name, score in zip(flat[::2], flat[1::2], strict=True)
            ]
            for group, answer in zip(groups, await link.run(calls), strict=True)
            for position, *flat in answer
        }

    return await merged(len(places), fetch, lambda member: (member.at, member.name), limit)
