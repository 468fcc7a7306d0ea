"""What every adapter of `Handlings` must do, whatever else it keeps: the tests of stores and inboxes call these."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from amends.brokers.handlings import HANDLINGS_KEPT, Handlings


class Movable(Protocol):
    def advance(self, seconds: float, /) -> None: ...


async def count_for_each(one: Handlings, other: Handlings) -> None:
    """`other` is on the same counts."""
    await one.count_handlings(["m1", "größe/2 {x}"])
    await other.count_handlings(["m1"])
    await one.count_handlings([])
    assert list(await one.handlings(["größe/2 {x}", "unknown", "m1", "m1"])) == [1, 0, 2, 2]
    assert list(await other.handlings([])) == []


async def forget_and_count_again(counts: Handlings) -> None:
    await counts.count_handlings(["m1", "m2"])
    await counts.forget_handlings(["m1", "unknown"])
    await counts.forget_handlings([])
    assert list(await counts.handlings(["m1", "m2"])) == [0, 1]
    await counts.count_handlings(["m1", "m2"])
    assert list(await counts.handlings(["m1", "m2"])) == [1, 2]


async def count_many(counts: Handlings) -> None:
    names = [f"m{number}" for number in range(700)]
    await counts.count_handlings(names)
    await counts.count_handlings(names[:300])
    assert list(await counts.handlings(names)) == [2] * 300 + [1] * 400


async def forget_in_time(counts: Handlings, clock: Movable) -> None:
    """For those whose time is in our hands."""
    await counts.count_handlings(["old", "new"])
    clock.advance((HANDLINGS_KEPT - timedelta(seconds=1)).total_seconds())
    await counts.count_handlings(["new"])
    assert list(await counts.handlings(["old", "new"])) == [1, 2]
    clock.advance(2)
    assert list(await counts.handlings(["old", "new"])) == [0, 2]
    await counts.count_handlings(["old"])
    assert list(await counts.handlings(["old", "new"])) == [1, 2]
