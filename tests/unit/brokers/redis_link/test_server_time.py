"""How the time of a server is reckoned from what it told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from amends.brokers.redis_link import ServerTime
from amends.brokers.redis_link import time as module

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Pair:
    """A process and a server with clocks of their own, in microseconds, and a way between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self.there = 1_000_000_000, 5_000_000_000_000
        self.way_there = self.way_back = 100
        self.asked = 0
        monkeypatch.setattr(module, "_monotonic", lambda: self.here)
        self.time = ServerTime(self.ask)

    def passes(self, micros: int, *, drift: float = 0.0) -> None:
        self.here += micros
        self.there += micros + round(micros * drift)

    async def ask(self) -> int:
        self.asked += 1
        self.passes(self.way_there)
        told = self.there
        self.passes(self.way_back)
        return told

    async def ahead(self) -> int:
        """By how much the reckoned time is ahead of the server, in microseconds."""
        return (await self.time.now() - EPOCH) // timedelta(microseconds=1) - self.there


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    return Pair(monkeypatch)


async def test_it_is_ahead_by_the_way_there_and_the_server_is_asked_once(pair: Pair) -> None:
    assert await pair.ahead() == 100
    pair.passes(1_000)
    assert 100 <= await pair.ahead() <= 101
    assert pair.asked == 1


@pytest.mark.parametrize("drift", [-0.0005, 0.0, 0.0005])
async def test_it_is_never_behind_a_server_whose_clock_is_being_corrected(pair: Pair, drift: float) -> None:
    for _ in range(100):
        assert 0 <= await pair.ahead() < 30_000
        pair.passes(700_000, drift=drift)
    assert pair.asked == pytest.approx(100 * 0.7 / 5.6, abs=2)


async def test_a_slow_answer_does_not_spoil_what_is_known(pair: Pair) -> None:
    await pair.ahead()
    pair.passes(6_000_000)
    pair.way_there = pair.way_back = 400_000
    assert 0 <= await pair.ahead() < 5_000
    assert pair.asked == 2


async def test_a_server_whose_clock_was_set_forward_is_followed(pair: Pair) -> None:
    await pair.ahead()
    pair.there += 3_600_000_000
    pair.passes(6_000_000)
    assert 0 <= await pair.ahead() <= 5_000


async def test_a_server_whose_clock_was_set_back_is_followed_but_small_steps_are_waited_out(pair: Pair) -> None:
    before = await pair.time.now()
    pair.there -= 6_500_000
    pair.passes(6_000_000)
    assert await pair.time.now() >= before
    pair.there -= 3_600_000_000
    pair.passes(6_000_000)
    assert 0 <= await pair.ahead() <= 5_000
