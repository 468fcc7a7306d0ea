"""A saga as it was at a version of its journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from amends.contracts import UsageError
from amends.coordinator.cli.history import as_of
from amends.coordinator.core.journal import Entry, JournalRecord, What
from amends.coordinator.core.snapshot import Phase

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def record(version: int, *entries: Entry, state: object = None) -> JournalRecord:
    data = None if state is None else msgspec.msgpack.encode(state)
    return JournalRecord(version, f"c{version}", T0 + timedelta(seconds=version), "a cause", entries, data)


JOURNAL = [
    record(1, Entry(What.STARTED), Entry(What.STEP_ISSUED, "reserve#0"), state={"reserved": False}),
    record(2, Entry(What.STEP_DONE, "reserve#0"), Entry(What.STEP_ISSUED, "charge#0"), state={"reserved": True}),
    record(3, Entry(What.PAUSED)),
    record(4, Entry(What.RESUMED), Entry(What.LATE, "reserve#0", "came again")),
    record(
        5, Entry(What.STEP_REJECTED, "charge#0"), Entry(What.COMPENSATION_STARTED), Entry(What.UNDO_ISSUED, "reserve#0")
    ),
    record(6, Entry(What.STEP_UNDONE, "reserve#0"), Entry(What.COMPENSATED)),
]


@pytest.mark.parametrize(
    ("version", "phase", "paused", "steps", "reserved"),
    [
        (1, Phase.RUNNING, False, {"reserve#0": "step-issued"}, False),
        (2, Phase.RUNNING, False, {"reserve#0": "step-done", "charge#0": "step-issued"}, True),
        (3, Phase.RUNNING, True, {"reserve#0": "step-done", "charge#0": "step-issued"}, True),
        (4, Phase.RUNNING, False, {"reserve#0": "step-done", "charge#0": "step-issued"}, True),
        (5, Phase.COMPENSATING, False, {"reserve#0": "undo-issued", "charge#0": "step-rejected"}, True),
        (6, Phase.COMPENSATED, False, {"reserve#0": "step-undone", "charge#0": "step-rejected"}, True),
    ],
)
def test_a_saga_is_told_as_its_journal_had_it(
    version: int, phase: Phase, paused: bool, steps: dict[str, str], reserved: bool
) -> None:
    moment = as_of(JOURNAL, version)
    assert (moment.version, moment.at) == (version, T0 + timedelta(seconds=version))
    assert (moment.phase, moment.paused, moment.steps) == (phase, paused, steps)
    assert moment.state == {"reserved": reserved}


@pytest.mark.parametrize("version", [0, -1, 7])
def test_a_version_that_is_not_in_the_journal_is_refused(version: int) -> None:
    with pytest.raises(UsageError, match=f"there is no version {version}: the journal goes from 1 to 6"):
        as_of(JOURNAL, version)
