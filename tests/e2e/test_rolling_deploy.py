"""A new version of a saga is rolled out while clients already start it: real processes, old and new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.processes import amends, running

pytestmark = pytest.mark.slow

ORDER = """
from amends.contracts import Signal
from amends.coordinator import Saga, WaitFor, step

class Go(Signal):
    pass

class Order{version}(Saga, name="order", version={version}):
    noted: int = 0

    @step
    def note(self) -> None:
        self.noted = {version}

    @step
    def go(self) -> WaitFor[Go]:
        return WaitFor(Go)
"""
TRIES = 60


def test_a_start_from_a_new_client_waits_while_old_coordinators_run_and_goes_on_at_the_new_one(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"order{version}.py").write_text(ORDER.format(version=version))
    with running("order1", cwd=tmp_path) as old:
        asked = amends("start", "order", "--version", "2", "--id", "early", "--timeout", "0.1", cwd=tmp_path)
        assert (asked.returncode, asked.stdout) == (5, "")
        old.wait_for("a message waits until a fitting saga version is loaded")
        assert any(_parked(tmp_path) for _ in range(TRIES))

        told = amends("list", cwd=tmp_path).stdout.splitlines()
        assert told == ["no sagas", "1 message waits for a coordinator that has order version 2"]
        shown = amends("show", "early", cwd=tmp_path)
        assert shown.returncode == 5
        assert "'early' is not started yet: it waits for a coordinator that has order version 2" in shown.stderr
        assert amends("start", "order", "--id", "other", cwd=tmp_path).returncode == 0, "others go on"
        assert amends("signal", "other", "go.v1", cwd=tmp_path).returncode == 0
        assert amends("wait", "other", "--within", "30", cwd=tmp_path).returncode == 0

        with running("order1", "order2", cwd=tmp_path):
            assert old.stop() == 0
            assert any(amends("signal", "early", "go.v1", cwd=tmp_path).returncode == 0 for _ in range(TRIES))
            assert amends("wait", "early", "--within", "30", cwd=tmp_path).returncode == 0
    shown = json.loads(amends("show", "early", "--json", cwd=tmp_path).stdout)
    assert (shown["definition_version"], shown["state"], shown["parked"]) == (2, {"noted": 2}, 0)
    assert not _parked(tmp_path)


def test_show_tells_of_the_messages_that_wait_for_the_version_of_a_saga(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"order{version}.py").write_text(ORDER.format(version=version))
    with running("order2", cwd=tmp_path) as new:
        assert amends("start", "order", "--id", "one", cwd=tmp_path).returncode == 0
        assert new.stop() == 0
    with running("order1", cwd=tmp_path):
        assert amends("signal", "one", "go.v1", cwd=tmp_path).returncode == 0
        assert any(_parked(tmp_path) for _ in range(TRIES))
        assert json.loads(amends("show", "one", "--json", cwd=tmp_path).stdout)["parked"] == 1
        told = amends("show", "one", cwd=tmp_path).stdout
        assert "  1 message waits for a coordinator that has order version 2, with these steps\n" in told
    with running("order2", cwd=tmp_path):
        assert amends("wait", "one", "--within", "30", cwd=tmp_path).returncode == 0


def _parked(folder: Path) -> list[object]:
    found: list[object] = json.loads(amends("list", "--json", cwd=folder).stdout)["parked"]
    return found
