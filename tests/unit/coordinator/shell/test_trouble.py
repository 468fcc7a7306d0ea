"""What a coordinator says of an outage: each problem once, however many of its parts suffer from it."""

from __future__ import annotations

from structlog.testing import capture_logs

from amends.coordinator.store import StoreUnavailable
from amends.coordinator.trouble import Trouble

AWAY = StoreUnavailable("Redis is away")


def told(*steps: object) -> list[str]:
    with capture_logs() as logs:
        for step in steps:
            assert callable(step)
            step()
    return [entry["event"] for entry in logs]


def test_a_problem_of_several_parts_is_told_by_the_first_and_is_over_with_it() -> None:
    known: set[str] = set()
    sweep, relay = Trouble("the sweep", known), Trouble("the relay", known)
    steps = [lambda: sweep.report(AWAY), lambda: relay.report(AWAY), relay.over, lambda: sweep.report(AWAY), sweep.over]
    assert told(*steps) == ["the sweep waits; it goes on by itself", "the sweep goes on"]


def test_the_next_outage_is_told_again() -> None:
    known: set[str] = set()
    sweep, relay = Trouble("the sweep", known), Trouble("the relay", known)
    sweep.report(AWAY)
    sweep.over()
    assert told(lambda: relay.report(AWAY), relay.over) == [
        "the relay waits; it goes on by itself",
        "the relay goes on",
    ]


def test_another_problem_is_told_as_well_and_none_twice_when_they_alternate() -> None:
    sweep = Trouble("the sweep")
    wrong = StoreUnavailable("wrong password")
    assert len(told(*[lambda: sweep.report(AWAY), lambda: sweep.report(wrong)] * 3)) == 2
    assert told(sweep.over, sweep.over) == ["the sweep goes on"]
