"""Incarnations: the same for a start that was lost, another one for an id that is used anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from amends.coordinator.ids import incarnation_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)
KEPT = timedelta(days=90)

ids = st.text(min_size=1, max_size=20)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))


@given(ids, moments, st.timedeltas(KEPT, timedelta(days=4000)))
def test_an_id_that_the_ledger_has_forgotten_gets_another_incarnation(id: str, at: datetime, later: timedelta) -> None:
    assert incarnation_of(id, "input", at, KEPT) != incarnation_of(id, "input", at + later, KEPT)


def test_a_start_that_is_sent_again_soon_gets_the_same_one_but_for_an_id_in_thousands() -> None:
    ids = [f"order-{number}" for number in range(20_000)]
    soon = T0 + timedelta(hours=1)
    changed = sum(incarnation_of(id, "input", T0, KEPT) != incarnation_of(id, "input", soon, KEPT) for id in ids)
    assert 0 < changed < 40


def test_where_ids_are_never_forgotten_it_is_the_same_for_ever() -> None:
    assert incarnation_of("a", "input", T0, None) == incarnation_of("a", "input", T0 + timedelta(days=9999), None)


@given(ids, moments)
def test_another_id_input_or_retention_gets_another_incarnation(id: str, at: datetime) -> None:
    mine = incarnation_of(id, "input", at, KEPT)
    others = {
        incarnation_of(id + "x", "input", at, KEPT),
        incarnation_of(id, "other", at, KEPT),
        incarnation_of(id, "input", at, 2 * KEPT),
        incarnation_of(id, "input", at, None),
    }
    assert mine not in others


@given(ids, moments)
def test_it_holds_nothing_that_an_effect_key_is_parted_by(id: str, at: datetime) -> None:
    assert incarnation_of(id, "input", at, KEPT).isalnum()
