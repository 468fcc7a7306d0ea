"""What sagas are listed by, in one small integer: the phase and the flags."""

from __future__ import annotations

from typing import Final

from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.store import SagaQuery

PHASES: Final = (Phase.RUNNING, Phase.COMPENSATING, Phase.COMPLETED, Phase.COMPENSATED)
"""Stored by position: only ever append."""

_STUCK, _PAUSED, _WAIVED = 1, 2, 4
_FLAGS: Final = 8


def facets_of(snapshot: Snapshot) -> int:
    return (
        PHASES.index(snapshot.phase) * _FLAGS
        + snapshot.stuck * _STUCK
        + snapshot.paused * _PAUSED
        + bool(snapshot.waived) * _WAIVED
    )


def phase_and_flags(facets: int) -> tuple[Phase, bool, bool, bool]:
    """The phase, and whether stuck, paused, waived."""
    return PHASES[facets // _FLAGS], bool(facets & _STUCK), bool(facets & _PAUSED), bool(facets & _WAIVED)


def matching(query: SagaQuery) -> list[int]:
    """The facets that a query asks for."""
    wanted = (query.phase, query.stuck, query.paused, query.waived)
    return [
        facets
        for facets in range(len(PHASES) * _FLAGS)
        if all(want is None or want == is_ for want, is_ in zip(wanted, phase_and_flags(facets), strict=True))
    ]
