"""A saga as it was at a version of its journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from amends.contracts import UsageError
from amends.coordinator.cli.records import state_of
from amends.coordinator.core.journal import JournalRecord, What
from amends.coordinator.core.snapshot import Phase


class Moment(Struct, frozen=True):
    """What the journal had told by one version.

    `steps` holds the last thing told of each step run, in the order in which they began.
    """

    version: int
    at: datetime
    phase: Phase
    paused: bool
    steps: dict[str, What]
    state: Any


_PHASES: Final = {
    What.COMPENSATION_STARTED: Phase.COMPENSATING,
    What.COMPLETED: Phase.COMPLETED,
    What.COMPENSATED: Phase.COMPENSATED,
}
_ASIDE: Final = (What.LATE, What.OPERATOR, What.EVENT_PUBLISHED, What.ROLLED_BACK)
"""Entries that name a step without changing where it stands."""


def as_of(records: Sequence[JournalRecord], version: int) -> Moment:
    """The saga as its journal tells it up to a version. Raises `UsageError` for one that there is not."""
    past = [record for record in records if record.version <= version]
    if not past or version > records[-1].version:
        raise UsageError(
            f"there is no version {version}: the journal goes from {records[0].version} to {records[-1].version}"
        )
    phase, paused, state = Phase.RUNNING, False, None
    steps: dict[str, What] = {}
    for record in past:
        state = state if record.state is None else record.state
        for entry in record.entries:
            phase = _PHASES.get(entry.what, phase)
            if entry.what in (What.PAUSED, What.RESUMED):
                paused = entry.what is What.PAUSED
            if entry.step and entry.what not in _ASIDE:
                steps[entry.step] = entry.what
    return Moment(
        version=past[-1].version,
        at=past[-1].at,
        phase=phase,
        paused=paused,
        steps=steps,
        state=None if state is None else state_of(state),
    )
