"""A process killed (SIGKILL) inside a handler: what others find in the inbox, and what they make of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.desk import SERVICE, Desk, Release, Reserve, Reserved
from tests.support.timeline import Timeline

from amends.contracts import ReplyOutcome, SystemClock
from amends.participants import Context, Participant, SqliteInbox

from .conftest import OpenDesk

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LAMP = Reserve(sku="lamp")
LEASE_S = 30


def kill_inside(hangs_in: str, path: Path) -> None:
    """Run a service until it is inside a handler, and kill it there."""
    command = [sys.executable, "-m", "tests.unit.participants.dying_child", str(path), hangs_in]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            said = child.stdout.readline()
        finally:
            child.kill()
    assert said == "begun\n"
    assert child.returncode == -9


@pytest.fixture
def time() -> Timeline:
    return Timeline(SystemClock().now())


@pytest.fixture
def told() -> list[Context[Reserve]]:
    return []


@pytest.fixture
async def survivor(open_desk: OpenDesk, time: Timeline, tmp_path: Path, told: list[Context[Reserve]]) -> Desk:
    inventory = Participant(SERVICE)

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r2")

    @inventory.compensation
    async def release(undo: Release, ctx: Context[Reserve]) -> None:
        told.append(ctx)

    inbox = SqliteInbox.open(tmp_path / "inbox.db", clock=time)
    desk: Desk = await open_desk(inventory, inbox=inbox)
    return desk


async def test_action_of_a_killed_process_is_run_again_when_its_lease_is_over(
    survivor: Desk, time: Timeline, tmp_path: Path
) -> None:
    kill_inside("action", tmp_path / "inbox.db")
    killed_at = time.now()
    # until then, nobody can say
    assert await survivor.outcome(survivor.settle(Reserve)) is ReplyOutcome.IN_DOUBT
    assert await survivor.outcome(survivor.command(LAMP)) is ReplyOutcome.DONE
    assert (time.now() - killed_at).total_seconds() >= LEASE_S


async def test_undo_of_a_killed_process_action_is_told_that_its_outcome_is_unknown(
    survivor: Desk, time: Timeline, tmp_path: Path, told: list[Context[Reserve]]
) -> None:
    kill_inside("action", tmp_path / "inbox.db")
    killed_at = time.now()
    assert await survivor.outcome(survivor.undo(Release(), LAMP)) is ReplyOutcome.UNDONE
    assert (time.now() - killed_at).total_seconds() >= LEASE_S
    assert [(ctx.undoes.outcome, ctx.undoes.command) for ctx in told] == [("unknown", LAMP)]
    assert await survivor.outcome(survivor.command(LAMP)) is ReplyOutcome.UNDONE


async def test_undo_of_a_killed_process_is_run_again_and_knows_the_reply(
    survivor: Desk, time: Timeline, tmp_path: Path, told: list[Context[Reserve]]
) -> None:
    kill_inside("undo", tmp_path / "inbox.db")
    assert await survivor.outcome(survivor.undo(Release(), LAMP, attempt=2)) is ReplyOutcome.UNDONE
    assert [(ctx.undoes.outcome, ctx.undoes.reply) for ctx in told] == [("done", Reserved(reservation="r1"))]
