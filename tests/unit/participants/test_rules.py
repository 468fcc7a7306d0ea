"""The rules of the protocol that a participant keeps, by their number. Each test fails when its rule is taken out."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.inbox import begin
from tests.support.desk import Count, Desk, Release, Reserve, Reserved, SoldOut, Uncount, data_of, key
from tests.support.faulty_inbox import FaultyInbox, Trap
from tests.support.timeline import Timeline

from amends.brokers import EmbeddedBroker
from amends.contracts import MSGPACK, Codec, Failure, ReplyOutcome, UsageError
from amends.contracts.payloads import Done, Recorded
from amends.participants import Context, MemoryInbox, Participant, ParticipantRunner, Reject, SqliteInbox
from amends.participants.rows import Recording

from .conftest import OpenDesk

LEASE_S = 30.0


class Stock:
    """A participant that counts what its handlers did, and does as it is told."""

    def __init__(self, inventory: Participant, *, transactional: bool) -> None:
        self.done: list[Context[Any]] = []
        self.undone: list[Context[Any]] = []
        self.told: list[Reserve] = []
        self.error: Exception | None = None

        @inventory.action(Reserve, transactional=transactional)
        def reserve(command: Reserve, ctx: Context) -> Reserved:
            self.told.append(command)
            if self.error:
                raise self.error
            self.done.append(ctx)
            return Reserved(reservation=f"r{len(self.done)}")

        @inventory.compensation(Release, transactional=transactional)
        def release(undo: Release, ctx: Context[Reserve]) -> None:
            if self.error:
                raise self.error
            self.undone.append(ctx)


@pytest.fixture(params=[False, True], ids=["plain", "transactional"])
def transactional(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def stock(inventory: Participant, transactional: bool) -> Stock:
    return Stock(inventory, transactional=transactional)


@pytest.fixture
async def desk(open_desk: OpenDesk, inventory: Participant, stock: Stock) -> Desk:
    desk: Desk = await open_desk(inventory, file=True)
    return desk


LAMP = Reserve(sku="lamp")


# 2: the effect happens at most once


async def test_rule_2_redelivered_command_gets_the_recorded_reply(desk: Desk, stock: Stock) -> None:
    first = await desk.answer(desk.command(LAMP))
    again = await desk.answer(desk.command(LAMP))
    resent = await desk.answer(desk.command(LAMP, attempt=2))
    assert first == again
    assert (resent.outcome, resent.data, resent.attempt) == (ReplyOutcome.DONE, first.data, 2)
    assert len(stock.done) == 1


async def test_rule_2_duplicates_in_one_batch_are_one_effect(desk: Desk, stock: Stock) -> None:
    command = desk.command(LAMP)
    assert await desk.outcomes(command, command, command) == [ReplyOutcome.DONE] * 3
    assert len(stock.done) == 1


async def test_rule_2_corrected_command_is_not_answered_with_the_first_ones_rejection(desk: Desk, stock: Stock) -> None:
    stock.error = Reject(SoldOut(left=0))
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.REJECTED
    stock.error = None
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.REJECTED
    corrected = Reserve(sku="desk")
    assert await desk.outcome(desk.command(corrected, revision=1)) is ReplyOutcome.DONE
    assert stock.told == [LAMP, corrected]


async def test_rule_2_undo_addresses_all_revisions(desk: Desk, stock: Stock) -> None:
    await desk.handle(desk.command(LAMP, revision=1))
    assert await desk.outcome(desk.undo(Release(), LAMP, revision=0)) is ReplyOutcome.UNDONE
    assert await desk.outcome(desk.command(LAMP, revision=2)) is ReplyOutcome.UNDONE
    assert len(stock.done) == 1


async def test_rule_2_idempotency_key_is_that_of_the_effect(desk: Desk, stock: Stock) -> None:
    stock.error = OSError("away")
    await desk.handle(desk.command(LAMP, attempt=1))
    stock.error = None
    await desk.handle(desk.command(LAMP, revision=1, attempt=2))
    await desk.handle(desk.undo(Release(), LAMP, attempt=4))
    assert [ctx.idempotency_key for ctx in stock.done + stock.undone] == [key(), f"{key()}/undo"]


async def test_rule_2_next_attempt_after_a_failure_runs_again(desk: Desk, stock: Stock) -> None:
    stock.error = OSError("away")
    failed = await desk.answer(desk.command(LAMP, attempt=1))
    assert failed.outcome is ReplyOutcome.FAILED
    assert data_of(failed, Failure) == Failure("OSError", "away")
    stock.error = None
    assert await desk.answer(desk.command(LAMP, attempt=1)) == failed
    assert await desk.outcome(desk.command(LAMP, attempt=2)) is ReplyOutcome.DONE


# 4: not-after; undos never expire and carry what they undo


async def test_rule_4_command_past_its_not_after_is_never_begun(desk: Desk, stock: Stock, time: Timeline) -> None:
    late = desk.command(LAMP, not_after=time.now())
    time.advance(5.001)
    assert await desk.handle(late) == []
    assert stock.told == []
    assert desk.medium.pending == 0, "it is acknowledged: the coordinator sends it again"
    assert await desk.outcome(desk.command(LAMP, attempt=2)) is ReplyOutcome.DONE


async def test_rule_4_clocks_may_be_apart_by_the_skew(desk: Desk, stock: Stock, time: Timeline) -> None:
    command = desk.command(LAMP, not_after=time.now())
    time.advance(5)
    assert await desk.outcome(command) is ReplyOutcome.DONE


async def test_rule_4_skew_is_a_setting(open_desk: OpenDesk, time: Timeline, transactional: bool) -> None:
    strict = Participant("inventory", skew=0)
    stock = Stock(strict, transactional=transactional)
    desk = await open_desk(strict, file=True)
    late = desk.command(LAMP, not_after=time.now())
    time.advance(0.001)
    assert await desk.handle(late) == []
    assert stock.told == []


async def test_rule_4_command_that_waited_for_a_slot_past_its_not_after_is_not_begun(
    open_desk: OpenDesk, time: Timeline
) -> None:
    narrow = Participant("inventory", concurrency=1)
    begun: list[str] = []
    go_on = asyncio.Event()

    @narrow.action
    async def reserve(command: Reserve) -> Reserved:
        begun.append(command.sku)
        await go_on.wait()
        return Reserved(reservation="r")

    desk = await open_desk(narrow, sleep=time.sleep)
    await desk.put(desk.command(LAMP), desk.command(Reserve(sku="desk"), effect_key=key("other#0")))
    working = asyncio.ensure_future(desk.work())
    await time.asleep()
    time.advance(3600)
    go_on.set()
    await working
    assert begun == ["lamp"]
    assert [answer.effect_key for answer in await desk.answers()] == [key()]


async def test_rule_4_undos_never_expire(desk: Desk, stock: Stock, time: Timeline) -> None:
    await desk.handle(desk.command(LAMP))
    undo = desk.undo(Release(), LAMP, not_after=time.now())
    time.advance(3600)
    assert await desk.outcome(undo) is ReplyOutcome.UNDONE
    assert stock.undone[0].deadline is None


@pytest.mark.parametrize("codec", [None, MSGPACK], ids=["json", "msgpack"])
async def test_rule_4_undo_brings_what_the_inbox_has_lost(
    open_desk: OpenDesk, inventory: Participant, stock: Stock, codec: Codec | None
) -> None:
    desk = await open_desk(inventory, file=True, **({"codec": codec} if codec else {}))
    undo = desk.undo(Release(reason="cancelled"), LAMP, Reserved(reservation="r9"))
    answer = await desk.answer(undo)
    assert answer.outcome is ReplyOutcome.UNDONE
    undoes = stock.undone[0].undoes
    assert (undoes.outcome, undoes.command, undoes.reply) == ("done", LAMP, Reserved(reservation="r9"))


async def test_rule_4_undo_is_told_what_the_inbox_recorded(desk: Desk, stock: Stock) -> None:
    await desk.handle(desk.command(LAMP))
    await desk.handle(desk.undo(Release(), Reserve(sku="reworded"), revision=1))
    undoes = stock.undone[0].undoes
    assert (undoes.outcome, undoes.command, undoes.reply) == ("done", LAMP, Reserved(reservation="r1"))


# 5: closed, or done


async def test_rule_5_settle_of_a_missing_action_closes_it_for_ever(desk: Desk, stock: Stock, time: Timeline) -> None:
    closed = await desk.answer(desk.settle(Reserve))
    assert (closed.outcome, closed.type) == (ReplyOutcome.CLOSED, Done.__tag__)
    time.advance(100 * LEASE_S)
    for late in (desk.command(LAMP), desk.command(LAMP, attempt=2), desk.command(LAMP, revision=1)):
        assert await desk.outcome(late) is ReplyOutcome.CLOSED
    assert stock.told == []


async def test_rule_5_settle_and_command_in_one_batch_do_not_contradict_each_other(desk: Desk, stock: Stock) -> None:
    outcomes = set(await desk.outcomes(desk.settle(Reserve), desk.command(LAMP)))
    later = await desk.outcome(desk.settle(Reserve, attempt=2))
    if stock.done:
        assert outcomes <= {ReplyOutcome.DONE, ReplyOutcome.IN_DOUBT}
        assert later is ReplyOutcome.DONE
    else:
        assert outcomes == {later} == {ReplyOutcome.CLOSED}


async def test_rule_5_settle_of_a_done_action_gives_its_reply(desk: Desk) -> None:
    done = await desk.answer(desk.command(LAMP))
    settled = await desk.answer(desk.settle(Reserve))
    assert (settled.outcome, settled.type, settled.data) == (ReplyOutcome.DONE, done.type, done.data)


async def test_rule_5_settle_never_says_no_without_closing(desk: Desk, stock: Stock) -> None:
    stock.error = Reject(SoldOut(left=0))
    await desk.handle(desk.command(LAMP))
    settled = await desk.answer(desk.settle(Reserve))
    assert (settled.outcome, data_of(settled, SoldOut)) == (ReplyOutcome.REJECTED, SoldOut(left=0))
    stock.error = None
    assert await desk.outcome(desk.command(LAMP, revision=1)) is ReplyOutcome.CLOSED
    assert len(stock.told) == 1


async def test_rule_5_failed_action_is_in_doubt_unless_it_was_rolled_back(
    desk: Desk, stock: Stock, transactional: bool
) -> None:
    stock.error = OSError("away")
    await desk.handle(desk.command(LAMP))
    expected = ReplyOutcome.CLOSED if transactional else ReplyOutcome.IN_DOUBT
    assert await desk.outcome(desk.settle(Reserve)) is expected


async def test_rule_5_action_at_work_is_in_doubt(open_desk: OpenDesk, inventory: Participant, time: Timeline) -> None:
    go_on = asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        await go_on.wait()
        return Reserved(reservation="r")

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.put(desk.command(LAMP))
    working = asyncio.ensure_future(desk.work())
    await time.asleep()
    assert await desk.outcome(desk.settle(Reserve)) is ReplyOutcome.IN_DOUBT
    go_on.set()
    await working
    assert (await desk.next_answer()).outcome is ReplyOutcome.DONE


async def test_rule_5_undo_of_a_missing_action_closes_it_and_says_nothing_to_undo(desk: Desk, stock: Stock) -> None:
    assert await desk.outcome(desk.undo(Release(), LAMP)) is ReplyOutcome.CLOSED
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.CLOSED
    assert (stock.told, stock.undone) == ([], [])


async def test_rule_5_undo_runs_once_however_often_it_comes(desk: Desk, stock: Stock) -> None:
    await desk.handle(desk.command(LAMP))
    undo = desk.undo(Release(), LAMP)
    assert await desk.outcomes(undo, undo, desk.undo(Release(), LAMP, attempt=2)) == [ReplyOutcome.UNDONE] * 3
    assert len(stock.undone) == 1


async def test_rule_5_failed_undo_is_told_and_tried_again_by_the_next_attempt(desk: Desk, stock: Stock) -> None:
    await desk.handle(desk.command(LAMP))
    stock.error = OSError("away")
    failed = await desk.answer(desk.undo(Release(), LAMP, attempt=1))
    assert (failed.outcome, data_of(failed, Failure).error) == (ReplyOutcome.UNDO_FAILED, "OSError")
    stock.error = None
    assert await desk.outcome(desk.undo(Release(), LAMP, attempt=2)) is ReplyOutcome.UNDONE


# 6: claims, fences, transactions


async def test_rule_6_claim_is_known_to_others_before_the_handler_starts(
    open_desk: OpenDesk, inventory: Participant, tmp_path: Path, time: Timeline
) -> None:
    claims: list[tuple[Any, ...]] = []

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        with closing(sqlite3.connect(tmp_path / "inventory.db")) as connection:
            claims.extend(connection.execute("SELECT effect_key FROM inbox"))
        return Reserved(reservation="r")

    desk = await open_desk(inventory, file=True)
    await desk.handle(desk.command(LAMP))
    assert claims == [(key(),)]


async def test_rule_6_effects_of_a_transactional_handler_and_its_reply_are_committed_together(
    open_desk: OpenDesk, inventory: Participant, tmp_path: Path
) -> None:
    seen: list[int] = []

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve, ctx: Context) -> Reserved:
        ctx.session.execute("INSERT INTO stock VALUES (?)", (command.sku,))
        if command.sku == "broken":
            raise OSError("after writing")
        if command.sku == "sold out":
            raise Reject(SoldOut(left=0))
        with closing(sqlite3.connect(tmp_path / "inventory.db")) as other:
            seen.extend(other.execute("SELECT count(*) FROM inbox").fetchone())
        return Reserved(reservation="r")

    desk = await open_desk(inventory, file=True)
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as other:
        other.execute("CREATE TABLE stock (sku)")
        commands = [
            desk.command(Reserve(sku=sku), effect_key=key(f"{sku}#0")) for sku in ("lamp", "broken", "sold out")
        ]
        outcomes = {answer.effect_key: answer.outcome for answer in await desk.handle(*commands)}
        assert list(outcomes.values()).count(ReplyOutcome.DONE) == 1
        assert other.execute("SELECT sku FROM stock").fetchall() == [("lamp",)]
    assert seen == [0], "no claim was written before"


async def test_rule_6_command_at_work_is_not_run_twice(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    begun = 0
    go_on = asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        nonlocal begun
        begun += 1
        await go_on.wait()
        return Reserved(reservation="r")

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.put(desk.command(LAMP), desk.command(LAMP), desk.command(LAMP, attempt=2))
    working = asyncio.ensure_future(desk.work())
    await time.asleep()
    go_on.set()
    await working
    assert begun == 1
    assert [answer.outcome for answer in await desk.answers()] == [ReplyOutcome.DONE] * 3


async def test_rule_6_undo_that_meets_an_action_at_work_waits_for_its_end(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    events: list[str] = []
    go_on = asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        await go_on.wait()
        events.append("done")
        return Reserved(reservation="r")

    @inventory.compensation
    async def release(undo: Release, ctx: Context[Reserve]) -> None:
        events.append(f"undone {ctx.undoes.outcome}")

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.put(desk.command(LAMP))
    acting = asyncio.ensure_future(desk.work())
    await time.asleep()
    await desk.put(desk.undo(Release(), LAMP))
    undoing = asyncio.ensure_future(desk.work())
    for _ in range(10):
        await time.asleep()
        time.advance(LEASE_S / 3)
        await asyncio.sleep(0)
    assert events == [], "the lease is renewed while the handler is at work"
    go_on.set()
    await asyncio.gather(acting, undoing)
    assert events == ["done", "undone done"]


async def test_rule_6_undo_that_meets_somebody_elses_claim_waits_for_the_lease_and_then_fences_it(
    desk: Desk, stock: Stock, time: Timeline
) -> None:
    other = Participant("inventory")
    hang = asyncio.Event()

    @other.action
    async def reserve(command: Reserve) -> Reserved:
        await hang.wait()
        return Reserved(reservation="too late")

    other_time = Timeline()
    other_desk = await Desk(other, desk.inbox, other_time, sleep=other_time.sleep).open()
    await other_desk.put(other_desk.command(LAMP))
    stuck = asyncio.ensure_future(other_desk.work())
    await other_time.asleep()
    before = time.now()

    assert await desk.outcome(desk.undo(Release(), LAMP)) is ReplyOutcome.UNDONE
    assert (time.now() - before).total_seconds() >= LEASE_S, "it was tried again when the lease was over"
    assert stock.undone[0].undoes.outcome == "unknown"
    assert stock.undone[0].undoes.command == LAMP

    hang.set()
    await stuck
    assert await other_desk.answers() == [], "the late result is thrown away"
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.UNDONE
    await other_desk.runner.stop(0)
    await other_desk.medium.close()


async def test_rule_6_claim_of_somebody_else_is_not_polled(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    at_work = MemoryInbox(time)
    trap = Trap("", RuntimeError())

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r")

    @inventory.compensation
    async def release(undo: Release) -> None:
        pass

    desk = await open_desk(inventory, inbox=FaultyInbox(at_work, trap), sleep=time.sleep)
    sent = desk.command(LAMP).envelope
    command = Recording(sent.type, sent.data, sent.content_type)
    await at_work.begin([begin(key(), owner="somebody else", command=command)])
    await desk.put(desk.undo(Release(), LAMP))
    undoing = asyncio.ensure_future(desk.work())
    assert await time.asleep() == LEASE_S
    assert trap.passed["begin:before"] == 1
    time.advance(LEASE_S)
    await undoing
    assert trap.passed["begin:before"] == 2, "asked when it came, and when the lease was over"
    assert [answer.outcome for answer in await desk.answers()] == [ReplyOutcome.UNDONE]


async def test_rule_6_handler_whose_claim_was_taken_over_is_broken_off(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    ended: list[str] = []

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("broken off")
        raise AssertionError

    @inventory.compensation
    async def release(undo: Release) -> None:
        pass

    inbox = MemoryInbox(time)
    frozen = await open_desk(inventory, inbox=inbox, sleep=time.sleep)
    await frozen.put(frozen.command(LAMP))
    working = asyncio.ensure_future(frozen.work())
    await time.asleep()
    # as after a long pause of the process: the lease is over before it can be renewed
    other = await open_desk(inventory, inbox=inbox, sleep=Timeline().sleep)
    time.pass_unnoticed(LEASE_S + 1)
    assert await other.outcome(other.undo(Release(), LAMP)) is ReplyOutcome.UNDONE
    time.advance(0)
    await working
    assert ended == ["broken off"]
    assert await frozen.answers() == []


async def test_rule_6_reply_of_an_unknown_outcome_is_a_clear_error(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    @inventory.action(Reserve)
    async def reserve(command: Reserve) -> Reserved:
        raise OSError("broken")

    @inventory.compensation
    async def release(undo: Release, ctx: Context[Reserve]) -> None:
        print(ctx.undoes.reply)

    desk = await open_desk(inventory)
    await desk.handle(desk.command(LAMP))
    answer = await desk.answer(desk.undo(Release(), LAMP))
    assert answer.outcome is ReplyOutcome.UNDO_FAILED
    assert "the outcome of Reserve is unknown" in data_of(answer, Failure).message


async def test_rule_6_private_inbox_behind_a_shared_broker_is_refused(
    inventory: Participant, stock: Stock, tmp_path: Path
) -> None:
    broker = await EmbeddedBroker.open(tmp_path / "amends.db")
    with pytest.raises(UsageError, match=r"lives in this process alone.*sqlite:"):
        ParticipantRunner(inventory, broker, MemoryInbox())
    with pytest.raises(UsageError, match="lives in this process alone"):
        async with inventory.running(broker, inbox="memory:"):
            pass
    inbox = SqliteInbox.open(tmp_path / "amends.db")
    await ParticipantRunner(inventory, broker, inbox).stop(0)
    await inbox.close()
    await broker.close()


# 7: below the low-water mark


@pytest.mark.parametrize("what", ["command", "undo", "undo with reply", "settle"])
async def test_rule_7_missing_row_below_the_low_water_mark_is_in_doubt(
    desk: Desk, stock: Stock, time: Timeline, what: str
) -> None:
    await desk.handle(desk.command(LAMP))
    message = {
        "command": desk.command(LAMP, attempt=2, not_after=None),
        "undo": desk.undo(Release(), LAMP),
        "undo with reply": desk.undo(Release(), LAMP, Reserved(reservation="r1")),
        "settle": desk.settle(Reserve),
    }[what]
    time.advance(60)
    assert await desk.inbox.purge(time.now()) == 1
    assert await desk.outcome(message) is ReplyOutcome.IN_DOUBT
    assert (len(stock.done), len(stock.undone)) == (1, 0)


# a command without reply data


async def test_command_that_promises_nothing_is_answered_with_done_alone(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    undone: list[Any] = []

    @inventory.action
    async def count(command: Count) -> None:
        pass

    @inventory.compensation
    async def uncount(undo: Uncount, ctx: Context[Count]) -> None:
        undone.append((ctx.undoes.outcome, ctx.undoes.reply))

    desk = await open_desk(inventory)
    answer = await desk.answer(desk.command(Count(sku="lamp")))
    assert (answer.outcome, answer.type, answer.data) == (ReplyOutcome.DONE, Done.__tag__, b"{}")
    carried = Recorded(answer.type, answer.data)  # type: ignore[arg-type]
    await desk.handle(desk.undo(Uncount(), Count(sku="lamp")))
    await desk.handle(desk.undo(Uncount(), Count(sku="desk"), carried, effect_key=key("lost#0")))
    assert undone == [("done", None), ("done", None)]
