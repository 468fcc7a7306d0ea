"""The benchmark of memory tells bytes per saga, and where they are."""

from __future__ import annotations

import json

import pytest
from benchmarks.memory import life, main
from tests.support.servers import ServiceMissing, redis_program

from amends.coordinator.core.snapshot import Phase
from amends.coordinator.ids import Ids

HOT = ["in a coordinator, hot, as it was made", "in a coordinator, hot, as it was loaded"]


def test_memory_tells_bytes_per_saga_and_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        redis_program()
    except ServiceMissing as error:
        pytest.skip(f"NOT TESTED on a real redis: {error}")
    assert main(["--sagas", "30", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(told) == ["in Redis, parked, of 30", "in Redis, ended, of 30", *HOT]
    parked, ended = told["in Redis, parked, of 30"], told["in Redis, ended, of 30"]
    assert {"saga", "timers", "index"} <= set(parked["where"])
    assert {"saga", "ended", "index"} <= set(ended["where"])
    assert "outbox" not in parked["where"], "what was sent is cleared"
    assert ended["where"]["saga"] > parked["where"]["saga"] > 500
    assert all(one["bytes"] > 500 for one in told.values())


@pytest.mark.parametrize(("number", "phase"), [(3, Phase.COMPLETED), (9, Phase.COMPENSATED)])
def test_the_lives_that_are_stored_come_to_their_end(number: int, phase: Phase) -> None:
    *_, last = life(number, Ids())
    assert last.snapshot.phase is phase
    *_, parked = life(number, Ids(), 2)
    assert parked.snapshot.phase is Phase.RUNNING
    assert parked.snapshot.wake_at is not None
