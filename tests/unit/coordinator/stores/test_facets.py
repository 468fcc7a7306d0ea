from __future__ import annotations

from itertools import product

import pytest
from tests.support.sagas import snapshot

from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import SagaQuery
from amends.coordinator.stores.facets import PHASES, facets_of, matching, phase_and_flags

EVERY = list(product(Phase, (False, True), (False, True), (False, True)))


def test_the_stored_numbers_are_fixed() -> None:
    assert PHASES == (Phase.RUNNING, Phase.COMPENSATING, Phase.COMPLETED, Phase.COMPENSATED)
    assert facets_of(snapshot(phase=Phase.COMPENSATING, stuck=True)) == 9
    assert facets_of(snapshot(phase=Phase.COMPENSATED, waived=True, paused=True)) == 30


@pytest.mark.parametrize(("phase", "stuck", "paused", "waived"), EVERY)
def test_facets_say_phase_and_flags(phase: Phase, stuck: bool, paused: bool, waived: bool) -> None:
    facets = facets_of(snapshot(phase=phase, stuck=stuck, paused=paused, waived=waived))
    assert phase_and_flags(facets) == (phase, stuck, paused, waived)
    assert matching(SagaQuery(phase=phase, stuck=stuck, paused=paused, waived=waived)) == [facets]


def test_a_query_without_filters_matches_all_and_each_filter_its_share() -> None:
    assert len(matching(SagaQuery())) == len(EVERY)
    assert len(matching(SagaQuery(phase=Phase.RUNNING))) == 8
    assert len(matching(SagaQuery(stuck=True))) == 16
    assert not set(matching(SagaQuery(paused=True))) & set(matching(SagaQuery(paused=False)))
