from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from amends.coordinator.stores.times import micros, moment, span


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_comes_back_as_it_was(at: datetime) -> None:
    assert moment(micros(at)) == at


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_integers_are_ordered_as_their_moments(a: datetime, b: datetime) -> None:
    assert (micros(a) < micros(b)) == (a < b)


def test_a_moment_of_another_zone_is_the_same_instant() -> None:
    at = datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert micros(at) == micros(datetime(2026, 7, 1, 12, tzinfo=UTC))
    assert moment(micros(at)) == at


def test_none_stays_none() -> None:
    assert micros(None) is None
    assert moment(None) is None


def test_seconds_become_whole_microseconds() -> None:
    assert span(0.1) == 100_000
    assert span(1e-6) == 1
