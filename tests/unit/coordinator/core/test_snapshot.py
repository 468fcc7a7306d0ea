"""The stored forms: snapshots, journal records and inputs come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from amends.contracts import Failure, ReplyOutcome
from amends.coordinator.core import Phase, RunStatus, Snapshot, StepRun
from amends.coordinator.core.inputs import (
    Answered,
    AnyInput,
    Cancel,
    EventReceived,
    Pause,
    ResolveStep,
    Resume,
    RetryStep,
    SignalReceived,
    SkipStep,
    TimersFired,
    Watch,
    decode_input,
    encode_input,
)
from amends.coordinator.core.journal import Entry, JournalRecord, What, decode_record, encode_record
from amends.coordinator.core.snapshot import (
    Awaits,
    Buffered,
    Recording,
    Waived,
    decode_snapshot,
    encode_snapshot,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SAID = Recording("said.v1", b"\x00\xff", "application/msgpack")


def snapshot(*runs: StepRun, **fields: object) -> Snapshot:
    made = Snapshot(
        saga="order",
        definition_version=1,
        shape="shape",
        id="order-1",
        incarnation="c1",
        version=1,
        commit_id="c1",
        phase=Phase.RUNNING,
        state=b"\x80",
        clock=T0,
        started_at=T0,
        runs={run.key: run for run in runs},
    )
    return msgspec.structs.replace(made, **fields)


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_a_snapshot_comes_back_as_it_was() -> None:
    run = StepRun(
        "reserve",
        RunStatus.UNDO_STUCK,
        visit=2,
        item=3,
        service="stock",
        command=SAID,
        reply=SAID,
        undo=SAID,
        awaits=Awaits("paid.v1", (("order", b'"a"'),)),
        attempt=4,
        heard=3,
        wake_at=later(1),
        failure=Failure("Broken", "it broke"),
        stuck_on="undo",
    )
    full = snapshot(
        run,
        deadline=later(9),
        paused_at=later(2),
        aborting=Failure("cancelled"),
        waived=(Waived("reserve#0", "why", "ada"),),
        buffer=(Buffered("m", "paid.v1", b"{}", "application/json"),),
        seen=("m",),
        held=(b"x",),
        watchers=("client:1",),
    )
    assert decode_snapshot(encode_snapshot(full)) == full
    assert list(full.runs) == ["reserve#2/3"]


def test_what_is_no_snapshot_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_snapshot(b"\x90")


def test_a_record_comes_back_as_it_was() -> None:
    record = JournalRecord(3, "c3", T0, "Answered m1", (Entry(What.STEP_DONE, "reserve#0", "said.v1"),), b"\x80")
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    "message",
    [
        Answered(message_id="m", run="a#0", incarnation="c1", outcome=ReplyOutcome.DONE, recording=SAID, attempt=2),
        TimersFired(message_id="m", incarnation="c1"),
        SignalReceived(message_id="m", recording=SAID, reply_to="client:1"),
        EventReceived(message_id="m", recording=SAID),
        Cancel(message_id="m", reason="why"),
        Pause(message_id="m"),
        Resume(message_id="m"),
        RetryStep(message_id="m", step=None, expected_version=4),
        SkipStep(message_id="m", step="a", reason="why"),
        ResolveStep(message_id="m", step="a", direction="forward", reason="why", reply=SAID),
        Watch(message_id="m", reply_to="client:1"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_an_input_that_is_held_comes_back_as_it_was(message: AnyInput) -> None:
    assert decode_input(encode_input(message)) == message


def test_a_saga_wakes_at_the_first_of_its_timers() -> None:
    slow = StepRun("slow", RunStatus.ISSUED, wake_at=later(30))
    quick = StepRun("quick", RunStatus.ISSUED, wake_at=later(10))
    done = StepRun("done", RunStatus.DONE)
    assert snapshot(slow, quick, done).wake_at == later(10)
    assert snapshot(slow, quick, deadline=later(5)).wake_at == later(5)
    assert snapshot(done).wake_at is None


def test_a_saga_that_is_paused_or_has_ended_does_not_wake() -> None:
    run = StepRun("quick", RunStatus.ISSUED, wake_at=later(10))
    assert snapshot(run, paused_at=T0).wake_at is None
    assert snapshot(run, phase=Phase.COMPLETED).wake_at is None
    assert snapshot(run, phase=Phase.COMPENSATED).wake_at is None


@pytest.mark.parametrize("status", list(RunStatus))
def test_a_saga_is_stuck_when_one_of_its_runs_is(status: RunStatus) -> None:
    stuck = status in (RunStatus.STUCK, RunStatus.UNDO_STUCK)
    assert snapshot(StepRun("a", RunStatus.DONE), StepRun("b", status)).stuck is stuck
