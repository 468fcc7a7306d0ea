"""A process that dies anywhere between a delivery and its acknowledgement: one effect, one recorded reply."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.desk import Desk, Release, Reserve, Reserved
from tests.support.faults import FaultyBroker
from tests.support.faulty_inbox import FaultyTransactionalInbox, Trap
from tests.support.timeline import Timeline

from amends.contracts import ReplyOutcome
from amends.participants import Context, Participant, SqliteInbox

from .conftest import OpenDesk

LAMP = Reserve(sku="lamp")

ANSWERING = ("publish:before", "publish:after", "ack:before", "ack:after")
PLAIN = ("begin:before", "begin:after", "finish:before", "finish:after", *ANSWERING)
TRANSACTIONAL = ("transact:before", "transact:after", *ANSWERING)


class Crash(Exception):
    """The process is gone."""


class Bank:
    """Something outside, which acts once per idempotency key; and a table of our own, which does not."""

    def __init__(self, inventory: Participant, path: Path, *, transactional: bool) -> None:
        self.calls: list[str] = []
        self._path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE stock (sku)")

        @inventory.action(Reserve, transactional=transactional)
        def reserve(command: Reserve, ctx: Context) -> Reserved:
            self.calls.append(ctx.idempotency_key)
            if transactional:
                ctx.session.execute("INSERT INTO stock VALUES ('lamp')")
            return Reserved(reservation=f"r{len(self.calls)}")

        @inventory.compensation(Release, transactional=transactional)
        def release(undo: Release, ctx: Context[Reserve]) -> None:
            self.calls.append(ctx.idempotency_key)
            if transactional:
                ctx.session.execute("INSERT INTO stock VALUES ('back')")

    @property
    def effects(self) -> int:
        return len(set(self.calls))

    def stock(self) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            return [sku for (sku,) in connection.execute("SELECT sku FROM stock ORDER BY rowid")]


@pytest.mark.parametrize(
    ("transactional", "point"),
    [(False, point) for point in PLAIN] + [(True, point) for point in TRANSACTIONAL],
    ids=[f"plain-{point}" for point in PLAIN] + [f"transactional-{point}" for point in TRANSACTIONAL],
)
@pytest.mark.parametrize("undoing", [False, True], ids=["action", "undo"])
async def test_effect_happens_once_and_has_one_answer_wherever_the_process_dies(
    open_desk: OpenDesk,
    inventory: Participant,
    tmp_path: Path,
    time: Timeline,
    transactional: bool,
    point: str,
    undoing: bool,
) -> None:
    path = tmp_path / "inventory.db"
    bank = Bank(inventory, path, transactional=transactional)
    trap = Trap("", Crash())
    inbox = FaultyTransactionalInbox(SqliteInbox.open(path, clock=time), trap)
    dying: Desk = await open_desk(inventory, inbox=inbox, wrap=lambda broker: FaultyBroker(broker, trap))
    message = dying.command(LAMP)
    if undoing:
        assert await dying.outcome(message) is ReplyOutcome.DONE
        message = dying.undo(Release(), LAMP)

    trap.point, trap.passed = point, Counter()
    await dying.put(message)
    with pytest.raises(Crash):
        await dying.work()
    await dying.runner.stop(0)

    other: Desk = await open_desk(inventory, file=True, medium=dying.medium)
    answers = await other.answers()
    if other.medium.pending:
        await other.work()
        answers += await other.answers()
    assert {answer.outcome for answer in answers} == {ReplyOutcome.UNDONE if undoing else ReplyOutcome.DONE}
    assert len({(answer.id, answer.data) for answer in answers}) == 1
    assert other.medium.pending == 0
    assert bank.effects == (2 if undoing else 1)
    assert bank.stock() == ((["lamp", "back"] if undoing else ["lamp"]) if transactional else [])
    again = await other.answer(other.command(LAMP, attempt=2))
    assert again.outcome is (ReplyOutcome.UNDONE if undoing else ReplyOutcome.DONE)
    assert bank.effects == (2 if undoing else 1)


async def test_handler_that_ran_before_the_crash_runs_again_with_the_same_idempotency_key(
    open_desk: OpenDesk, inventory: Participant, tmp_path: Path, time: Timeline
) -> None:
    path = tmp_path / "inventory.db"
    bank = Bank(inventory, path, transactional=False)
    trap = Trap("finish:before", Crash())
    inbox = FaultyTransactionalInbox(SqliteInbox.open(path, clock=time), trap)
    dying: Desk = await open_desk(inventory, inbox=inbox)
    await dying.put(dying.command(LAMP))
    with pytest.raises(Crash):
        await dying.work()
    await dying.runner.stop(0)
    died_at = time.now()
    other: Desk = await open_desk(inventory, file=True, medium=dying.medium)
    await other.work()
    assert (len(bank.calls), bank.effects) == (2, 1)
    assert (time.now() - died_at).total_seconds() >= 30, "not before the lease of the dead process was over"
