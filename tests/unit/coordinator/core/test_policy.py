"""Policies: how long the core waits, and how often it asks again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends.contracts import UsageError
from amends.coordinator.core import Policy
from amends.coordinator.retry import Retry


def test_waits_grow_by_the_backoff_up_to_the_longest() -> None:
    retry = Retry(delay=1, backoff=2, max_delay=10, jitter=0)
    assert [retry.wait(n).total_seconds() for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_waits_grow_with_a_small_backoff_as_well() -> None:
    retry = Retry(delay=1, backoff=1.01, max_delay=1000, jitter=0)
    assert retry.wait(500).total_seconds() == pytest.approx(1.01**499)


def test_a_backoff_of_one_always_waits_the_same() -> None:
    retry = Retry(delay=3, backoff=1, jitter=0)
    assert {retry.wait(n) for n in (1, 2, 10_000)} == {timedelta(seconds=3)}


@pytest.mark.parametrize(("delay", "wait_s"), [(1, 300), (0, 0)])
def test_no_number_of_failures_is_too_large(delay: float, wait_s: float) -> None:
    assert Retry(delay=delay, backoff=1e10, jitter=0).wait(1_000_000).total_seconds() == wait_s


@given(st.integers(1, 10_000), st.text(max_size=20))
def test_jitter_only_shortens_a_wait_and_is_the_same_when_asked_again(failures: int, key: str) -> None:
    plain, spread = Retry(jitter=0), Retry(jitter=0.2)
    wait = spread.wait(failures, key)
    assert 0.8 * plain.wait(failures) <= wait <= plain.wait(failures)
    assert wait == spread.wait(failures, key)


def test_jitter_spreads_effects() -> None:
    assert len({Retry().wait(1, f"effect-{number}") for number in range(100)}) > 90


@pytest.mark.parametrize(("attempts", "exhausted"), [(1, True), (2, False), (None, False)])
def test_attempts_count_the_first_one(attempts: int | None, exhausted: bool) -> None:
    assert Retry(attempts=attempts).exhausted(1) is exhausted


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"backoff": 0.5},
        {"backoff": float("nan")},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"delay": -1},
        {"max_delay": "long"},
    ],
    ids=str,
)
def test_a_retry_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Retry(**wrong)  # type: ignore[arg-type]


def test_the_longest_resend_counts_even_where_it_is_the_delay() -> None:
    with pytest.raises(UsageError, match="command_ttl longer"):
        Policy(command_ttl=timedelta(seconds=20), resend=Retry(attempts=None, delay=30, max_delay=10))
