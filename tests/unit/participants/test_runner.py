"""The runner: answers, dead letters, retries, slots, outages, and a graceful end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import tenacity
from structlog.testing import capture_logs
from tests.support.desk import Count, Desk, Release, Reserve, Reserved, SoldOut, data_of, key, tags
from tests.support.faults import FaultyBroker
from tests.support.faulty_inbox import FaultyInbox, FaultyTransactionalInbox, Trap, UnreachableBroker
from tests.support.timeline import Timeline

from amends.brokers import BrokerUnavailable, Delivery
from amends.brokers.retention import FOREVER
from amends.brokers.sqlite_file import FileUnavailable
from amends.contracts import MSGPACK, Command, Envelope, Failure, Kind, Rejection, ReplyOutcome, UsageError
from amends.participants import Context, MemoryInbox, Participant, ParticipantRunner, Reject, SqliteInbox
from amends.participants.rows import Claimed

from .conftest import OpenDesk

LAMP = Reserve(sku="lamp")
DONE = ReplyOutcome.DONE


@pytest.fixture(params=[False, True], ids=["plain", "transactional"])
def transactional(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def at_once(inventory: Participant, **options: Any) -> list[Context[Any]]:
    """Handlers that succeed at once; the contexts they were given."""
    seen: list[Context[Any]] = []

    @inventory.action(Reserve, **options)
    def reserve(command: Reserve, ctx: Context) -> Reserved:
        seen.append(ctx)
        return Reserved(reservation=f"r-{command.sku}")

    @inventory.compensation(Release, **options)
    def release(undo: Release, ctx: Context[Reserve]) -> None:
        seen.append(ctx)

    return seen


def some(desk: Desk, count: int) -> list[Any]:
    return [desk.command(LAMP, effect_key=key(f"step{n}#0")) for n in range(count)]


# answers


async def test_answer_echoes_what_it_answers(open_desk: OpenDesk, inventory: Participant, time: Timeline) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    asked = desk.command(LAMP, revision=2, attempt=5, tracestate="a=b").envelope
    answer = await desk.answer(desk.command(LAMP, revision=2, attempt=5, tracestate="a=b"))
    for field in (
        *("effect_key", "revision", "attempt", "incarnation", "version", "commit_id", "correlation_id", "subject"),
        *("partition_key", "traceparent", "tracestate", "content_type"),
    ):
        assert getattr(answer, field) == getattr(asked, field), field
    assert answer.causation_id == asked.id
    assert (answer.kind, answer.outcome, answer.type) == (Kind.REPLY, DONE, Reserved.__tag__)
    assert (answer.source, answer.time, answer.reply_to) == ("/amends/inventory", time.now(), None)
    assert data_of(answer, Reserved) == Reserved(reservation="r-lamp")


async def test_same_answer_has_the_same_id_and_others_have_others(open_desk: OpenDesk, inventory: Participant) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    messages = [
        desk.command(LAMP),
        desk.command(LAMP, attempt=2),
        desk.command(LAMP, revision=1),
        desk.command(LAMP, effect_key=key("other#0")),
        desk.settle(Reserve),
    ]
    first = [answer.id for message in messages for answer in await desk.handle(message)]
    again = [answer.id for message in messages for answer in await desk.handle(message)]
    assert first == again
    assert len(set(first)) == len(messages)
    assert (await desk.answer(desk.undo(Release(), LAMP))).id not in first


async def test_answer_is_in_the_codec_of_the_question(open_desk: OpenDesk, inventory: Participant) -> None:
    at_once(inventory)
    desk = await open_desk(inventory, codec=MSGPACK)
    answer = await desk.answer(desk.command(LAMP))
    assert answer.content_type == "application/msgpack"
    assert data_of(answer, Reserved) == Reserved(reservation="r-lamp")
    assert (await desk.answer(desk.undo(Release(), LAMP))).content_type == "application/msgpack"


async def test_message_that_wants_no_answer_gets_none(open_desk: OpenDesk, inventory: Participant) -> None:
    seen = at_once(inventory)
    desk = await open_desk(inventory)
    assert await desk.handle(desk.command(LAMP, reply_to=None)) == []
    assert (len(seen), desk.medium.pending) == (1, 0)


async def test_handler_is_told_its_circumstances(
    open_desk: OpenDesk, inventory: Participant, transactional: bool
) -> None:
    seen = at_once(inventory, transactional=transactional)
    desk = await open_desk(inventory, file=True)
    command = desk.command(LAMP, revision=1, attempt=3)
    await desk.handle(command)
    (ctx,) = seen
    assert (ctx.saga_id, ctx.step, ctx.effect_key) == ("order-1", "reserve", key())
    assert (ctx.revision, ctx.attempt, ctx.correlation_id) == (1, 3, "order-1")
    assert ctx.deadline == command.envelope.not_after
    with pytest.raises(UsageError, match="an action undoes nothing"):
        _ = ctx.undoes


async def test_session_is_for_transactional_handlers(open_desk: OpenDesk, inventory: Participant) -> None:
    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve, ctx: Context) -> Reserved:
        ctx.session.execute("SELECT 1")
        return Reserved(reservation="r")

    desk = await open_desk(inventory)
    failure = data_of(await desk.answer(desk.command(LAMP)), Failure)
    assert "SqliteInbox" in failure.message
    assert await desk.outcome(desk.settle(Reserve)) is ReplyOutcome.IN_DOUBT


# dead letters


def unreadable(desk: Desk) -> dict[str, Any]:
    command = desk.command(LAMP)
    return {
        "unknown-type": desk.command(Count(sku="lamp"), effect_key=key("a#0")),
        "a command as compensation": desk.undo(LAMP, LAMP, effect_key=key("b#0")),  # type: ignore[arg-type]
        "a compensation as command": desk.command(Release(), effect_key=key("c#0")),  # type: ignore[arg-type]
        "an event": envelope(command, kind=Kind.EVENT),
        "no effect key": envelope(command, effect_key=None),
        "no JSON": envelope(command, data=b"{"),
        "wrong field": envelope(command, data=b'{"sku": 1}'),
        "unknown codec": envelope(command, content_type="text/plain"),
        "bad reply address": envelope(command, reply_to="nowhere"),
        "no settle": envelope(desk.settle(Reserve), data=b"[]"),
        "no undo": envelope(desk.undo(Release(), LAMP), data=b'{"compensation": {}}'),
        "unknown recorded command": desk.undo(Release(), Count(sku="lamp")),
        "unknown recorded reply": desk.undo(Release(), LAMP, desk.recorded(SoldOut(left=0))),
    }


def envelope(outgoing: Any, **changes: Any) -> Any:
    fields = {name: getattr(outgoing.envelope, name) for name in Envelope.__struct_fields__}
    return type(outgoing)(outgoing.address, Envelope(**fields | changes))


async def test_message_that_cannot_be_processed_is_a_dead_letter_and_stops_nothing_else(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    seen = at_once(inventory)
    desk = await open_desk(inventory)
    bad = unreadable(desk)
    good = some(desk, 3)
    answers = await desk.handle(*good[:1], *bad.values(), *good[1:])
    assert [answer.outcome for answer in answers] == [DONE] * 3
    assert len(seen) == 3
    letters = list(reversed(await desk.medium.dead_letters()))
    unknown = {"unknown-type", "a command as compensation", "a compensation as command", "an event"}
    unknown |= {"unknown recorded command", "unknown recorded reply"}
    assert len(letters) == len(bad)
    for name, message in bad.items():
        (letter,) = [letter for letter in letters if letter.envelope == message.envelope]
        assert letter.reason == ("unknown-type" if name in unknown else "undecodable"), name
        assert letter.detail, name
    assert desk.medium.pending == 0


async def test_dead_letter_names_what_is_wrong(open_desk: OpenDesk, inventory: Participant) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    bad = unreadable(desk)
    await desk.handle(bad["wrong field"], bad["unknown-type"])
    details = {letter.reason: letter.detail for letter in await desk.medium.dead_letters()}
    assert "$.sku" in details["undecodable"]
    assert "inventory.count.v1" in details["unknown-type"]
    assert "nobody in service 'inventory'" in details["unknown-type"]


async def test_bytes_that_are_no_envelope_are_a_dead_letter(open_desk: OpenDesk, inventory: Participant) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    await desk.put(desk.command(LAMP))
    (delivery,) = await desk.intake.receive()
    damaged = Delivery(None, delivery.deliveries, delivery.token, b"\x00", "it is cut off")
    await desk.runner.process([damaged])
    (letter,) = await desk.medium.dead_letters()
    assert (letter.reason, letter.detail) == ("undecodable", "it is cut off")


# failures


async def test_handler_that_fails_now_and_then_is_tried_three_times(
    open_desk: OpenDesk, inventory: Participant, transactional: bool
) -> None:
    tries = 0

    @inventory.action(Reserve, transactional=transactional)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("away")
        return Reserved(reservation="r")

    desk = await open_desk(inventory, file=True)
    assert await desk.outcome(desk.command(LAMP)) is DONE
    assert tries == 3


async def test_waits_between_tries_grow(open_desk: OpenDesk, inventory: Participant, time: Timeline) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        raise OSError("away")

    desk = await open_desk(inventory, file=True, sleep=sleep)
    answer = await desk.answer(desk.command(LAMP))
    assert data_of(answer, Failure) == Failure("OSError", "away")
    assert 0.1 <= waits[0] <= 0.2 <= waits[1] <= 0.3
    assert len(waits) == 2


@pytest.mark.parametrize("policy", [tenacity.AsyncRetrying, tenacity.Retrying])
async def test_policy_of_a_handler_is_its_own(
    open_desk: OpenDesk, inventory: Participant, transactional: bool, policy: Any
) -> None:
    tries = 0
    retry = policy(
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_fixed(1),
        retry=tenacity.retry_if_exception_type(OSError),
    )

    @inventory.action(Reserve, retry=retry, transactional=transactional)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        raise OSError("away") if tries < 4 else ValueError("no use")

    desk = await open_desk(inventory, file=True)
    assert data_of(await desk.answer(desk.command(LAMP)), Failure) == Failure("ValueError", "no use")
    assert tries == 4
    assert not retry.statistics, "the policy is only a template"


async def test_policy_of_the_participant_is_for_handlers_without_one(open_desk: OpenDesk) -> None:
    tries = 0
    inventory = Participant("inventory", retry=tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(1)))

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        raise OSError

    desk = await open_desk(inventory)
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.FAILED
    assert tries == 1


async def test_rejection_is_never_retried(open_desk: OpenDesk, inventory: Participant, transactional: bool) -> None:
    tries = 0

    @inventory.action(Reserve, transactional=transactional, retry=tenacity.AsyncRetrying())
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        raise Reject(SoldOut(left=2))

    desk = await open_desk(inventory, file=True)
    answer = await desk.answer(desk.command(LAMP))
    assert (answer.outcome, data_of(answer, SoldOut)) == (ReplyOutcome.REJECTED, SoldOut(left=2))
    assert tries == 1


class Unnamed(Rejection):
    pass


class Anything(Command[Reserved], service="inventory"):
    pass


async def test_command_that_names_no_rejection_may_be_rejected_with_any(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    @inventory.action
    async def anything(command: Anything) -> Reserved:
        raise Reject(Unnamed())

    desk = await open_desk(inventory)
    assert tags(await desk.handle(desk.command(Anything()))) == [Unnamed.__tag__]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Reject(Unnamed()), "rejected with Unnamed, but Reserve names SoldOut"),
        (Reject(Reserved(reservation="r")), "rejected with Reserved, but Reserve names SoldOut"),  # type: ignore[arg-type]
        (SoldOut(left=0), "returned SoldOut, but Reserve asks for Reserved"),
        (None, "returned None, but Reserve asks for Reserved"),
        (Reserved(reservation=7), "made a Reserved that cannot be read"),  # type: ignore[arg-type]
        (Reserved(reservation=object()), "made a Reserved that cannot be written"),  # type: ignore[arg-type]
    ],
)
async def test_broken_promise_is_a_failure_that_is_not_retried(
    open_desk: OpenDesk, inventory: Participant, transactional: bool, result: Any, message: str
) -> None:
    tries = 0

    @inventory.action(Reserve, transactional=transactional)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]

    desk = await open_desk(inventory, file=True)
    answer = await desk.answer(desk.command(LAMP))
    failure = data_of(answer, Failure)
    assert (answer.outcome, failure.error) == (ReplyOutcome.FAILED, "BrokenPromise")
    assert message in failure.message
    assert tries == 1


async def test_compensation_cannot_reject_and_returns_nothing(
    open_desk: OpenDesk, inventory: Participant, transactional: bool
) -> None:
    @inventory.action(Reserve, transactional=transactional)
    def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r")

    @inventory.compensation(Release, transactional=transactional)
    def release(undo: Release) -> None:
        if undo.reason:
            raise Reject(SoldOut(left=0))
        return Reserved(reservation="r")  # type: ignore[return-value]

    desk = await open_desk(inventory, file=True)
    await desk.handle(desk.command(LAMP))
    rejecting = await desk.answer(desk.undo(Release(reason="no"), LAMP, attempt=1))
    returning = await desk.answer(desk.undo(Release(), LAMP, attempt=2))
    assert rejecting.outcome is returning.outcome is ReplyOutcome.UNDO_FAILED
    assert "a compensation cannot refuse" in data_of(rejecting, Failure).message
    assert "returned Reserved, but Release asks for None" in data_of(returning, Failure).message


async def test_handler_that_hangs_is_broken_off_at_its_timeout(open_desk: OpenDesk, inventory: Participant) -> None:
    @inventory.action(Reserve, timeout=0.001, retry=tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(2)))
    async def reserve(command: Reserve) -> Reserved:
        await asyncio.Event().wait()
        raise AssertionError

    desk = await open_desk(inventory)
    assert data_of(await desk.answer(desk.command(LAMP)), Failure).error == "TimeoutError"


async def test_transactional_retry_past_its_time_is_told_as_a_failure(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    async def sleep(seconds: float) -> None:
        time.advance(3600)
        await asyncio.sleep(0)

    tries = 0

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        raise OSError("away")

    desk = await open_desk(inventory, file=True, sleep=sleep)
    assert data_of(await desk.answer(desk.command(LAMP)), Failure) == Failure("OSError", "away")
    assert tries == 1


async def test_transactional_retry_that_an_undo_overtook_is_closed(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    tries = 0

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        raise OSError("away")

    @inventory.compensation(Release, transactional=True)
    def release(undo: Release) -> None:
        raise AssertionError("there is nothing to undo")

    desk = await open_desk(inventory, file=True, sleep=time.sleep)
    await desk.put(desk.command(LAMP))
    working = asyncio.ensure_future(desk.work())
    await time.asleep()
    assert await desk.outcome(desk.undo(Release(), LAMP)) is ReplyOutcome.CLOSED
    time.advance(10)
    await working
    assert (await desk.next_answer()).outcome is ReplyOutcome.CLOSED
    assert tries == 1


async def test_transactional_handler_that_returns_an_awaitable_breaks_its_promise(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    async def later() -> Reserved:
        return Reserved(reservation="r")

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        return later()  # type: ignore[return-value]

    desk = await open_desk(inventory, file=True)
    assert "returned an awaitable" in data_of(await desk.answer(desk.command(LAMP)), Failure).message


async def test_plain_function_that_returns_an_awaitable_is_awaited(open_desk: OpenDesk, inventory: Participant) -> None:
    async def later() -> Reserved:
        return Reserved(reservation="later")

    @inventory.action(Reserve)
    def reserve(command: Reserve) -> Reserved:
        return later()  # type: ignore[return-value]

    desk = await open_desk(inventory, threads=True)
    assert data_of(await desk.answer(desk.command(LAMP)), Reserved).reservation == "later"


# threads and slots


async def test_plain_functions_run_in_threads_and_may_block(open_desk: OpenDesk, inventory: Participant) -> None:
    both = threading.Barrier(2, timeout=10)
    threads: set[int] = set()

    @inventory.action(Reserve)
    def reserve(command: Reserve) -> Reserved:
        both.wait()
        threads.add(threading.get_ident())
        return Reserved(reservation="r")

    desk = await open_desk(inventory, threads=True)
    assert await desk.outcomes(*some(desk, 2)) == [DONE, DONE]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_stop_iteration_in_a_thread_is_a_failure(open_desk: OpenDesk, inventory: Participant) -> None:
    @inventory.action(Reserve)
    def reserve(command: Reserve) -> Reserved:
        return next(iter([]))

    desk = await open_desk(inventory, threads=True)
    assert data_of(await desk.answer(desk.command(LAMP)), Failure).error == "RuntimeError"


class Gauge:
    """Counts how many are inside at once; they stay until `open` is set."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.full = asyncio.Event()
        self.expected = 0
        self.open = asyncio.Event()

    async def enter(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self.expected:
            self.full.set()
        await self.open.wait()
        self.now -= 1


async def test_no_more_actions_run_at_once_than_there_are_slots(open_desk: OpenDesk) -> None:
    inventory = Participant("inventory", concurrency=3)
    gauge = Gauge()
    gauge.expected = 3

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        await gauge.enter()
        return Reserved(reservation="r")

    desk = await open_desk(inventory, sleep=Timeline().sleep)
    await desk.put(*some(desk, 8))
    working = asyncio.ensure_future(desk.work())
    await gauge.full.wait()
    gauge.open.set()
    await working
    assert gauge.most == 3
    assert len(await desk.answers()) == 8


async def test_handler_may_have_fewer_slots_of_its_own(open_desk: OpenDesk, inventory: Participant) -> None:
    gauge = Gauge()
    gauge.expected = 1
    counted: list[str] = []

    @inventory.action(Reserve, concurrency=1)
    async def reserve(command: Reserve) -> Reserved:
        await gauge.enter()
        return Reserved(reservation="r")

    @inventory.action(Count)
    async def count(command: Count) -> None:
        counted.append(command.sku)

    desk = await open_desk(inventory, sleep=Timeline().sleep)
    await desk.put(*some(desk, 4), desk.command(Count(sku="lamp"), effect_key=key("count#0")))
    working = asyncio.ensure_future(desk.work())
    await gauge.full.wait()
    assert (await desk.next_answer()).effect_key == key("count#0")
    gauge.open.set()
    await working
    assert (gauge.most, counted) == (1, ["lamp"])


async def test_undos_and_settles_get_through_when_all_actions_are_stuck(open_desk: OpenDesk) -> None:
    inventory = Participant("inventory", concurrency=2, undo_concurrency=1)
    begun, stuck = asyncio.Event(), asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        if command.sku == "stuck":
            begun.set()
            await stuck.wait()
        return Reserved(reservation="r")

    @inventory.compensation
    async def release(undo: Release) -> None:
        pass

    desk = await open_desk(inventory, sleep=Timeline().sleep)
    await desk.handle(desk.command(LAMP))
    await desk.put(*(desk.command(Reserve(sku="stuck"), effect_key=key(f"stuck{n}#0")) for n in range(5)))
    working = asyncio.ensure_future(desk.work())
    await begun.wait()
    assert await desk.outcome(desk.undo(Release(), LAMP)) is ReplyOutcome.UNDONE
    assert await desk.outcome(desk.settle(Reserve)) is ReplyOutcome.UNDONE
    stuck.set()
    await working


async def test_quick_answer_does_not_wait_for_a_slow_one_of_its_batch(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    slow = asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        if command.sku == "slow":
            await slow.wait()
        return Reserved(reservation=command.sku)

    desk = await open_desk(inventory, sleep=Timeline().sleep)
    await desk.put(desk.command(Reserve(sku="slow"), effect_key=key("slow#0")), desk.command(LAMP))
    working = asyncio.ensure_future(desk.work())
    assert data_of(await desk.next_answer(), Reserved).reservation == "lamp"
    assert not working.done()
    slow.set()
    await working


async def test_batch_is_asked_of_inbox_and_broker_at_once(
    open_desk: OpenDesk, inventory: Participant, transactional: bool, time: Timeline, tmp_path: Path
) -> None:
    at_once(inventory, transactional=transactional)
    trap = Trap("", RuntimeError())
    inbox = FaultyTransactionalInbox(SqliteInbox.open(tmp_path / "inventory.db", clock=time), trap)
    desk = await open_desk(inventory, inbox=inbox, wrap=lambda broker: FaultyBroker(broker, trap), sleep=time.sleep)
    assert len(await desk.handle(*some(desk, 64))) == 64
    expected = {"transact:before": 1} if transactional else {"begin:before": 1, "finish:before": 1}
    expected |= {"publish:before": 1, "ack:before": 1}
    assert {point: trap.passed[point] for point in expected} == expected


# run: outages and the end


async def test_run_handles_messages_until_it_is_stopped(open_desk: OpenDesk, inventory: Participant) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    await desk.intake.close()
    running = asyncio.ensure_future(desk.runner.run())
    await desk.put(*some(desk, 5))
    assert [(await desk.next_answer()).outcome for _ in range(5)] == [DONE] * 5
    await desk.runner.stop()
    await running
    await desk.put(desk.command(LAMP))
    assert await desk.answers() == []


@pytest.mark.parametrize(
    "point", ["consume:before", "publish:before", "publish:after", "ack:before", "ping:before", "begin:before"]
)
async def test_outage_is_told_once_and_work_goes_on_by_itself(
    open_desk: OpenDesk, inventory: Participant, time: Timeline, point: str
) -> None:
    seen = at_once(inventory)
    trap = Trap(point, BrokerUnavailable("the broker does not answer"), times=3)
    inbox = FaultyInbox(MemoryInbox(time), trap)
    desk = await open_desk(inventory, inbox=inbox)
    runner = ParticipantRunner(
        inventory,
        UnreachableBroker(desk.medium.join(), trap),
        inbox,
        retention=FOREVER,
        clock=time,
        sleep=time.nap,
        threads=False,
    )
    await desk.intake.close()
    await desk.put(*some(desk, 2))
    with capture_logs() as logs:
        running = asyncio.ensure_future(runner.run())
        outcomes = set()
        while desk.medium.pending:
            outcomes |= {answer.outcome for answer in await desk.answers()}
            await asyncio.sleep(0)
        await runner.stop()
        await running
    assert outcomes == {DONE}
    assert (trap.left, len(seen)) == (0, 2)
    told = [log for log in logs if "waits" in log["event"]]
    assert {log["reason"] for log in told} == {"the broker does not answer"}
    if point in ("consume:before", "ping:before"):
        assert len(told) == 1, "it never came back in between"
    assert logs[-1]["event"] == "the participant goes on" or not told


async def test_result_is_kept_until_the_inbox_takes_it(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    seen = at_once(inventory)
    trap = Trap("finish:before", FileUnavailable("the disk is full"), times=3)
    desk = await open_desk(inventory, inbox=FaultyInbox(MemoryInbox(time), trap))
    assert await desk.outcome(desk.command(LAMP)) is DONE
    assert (trap.left, len(seen)) == (0, 1)


async def test_inbox_that_is_away_is_not_the_handlers_failure(
    open_desk: OpenDesk, inventory: Participant, time: Timeline, tmp_path: Path
) -> None:
    tries = 0

    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        trap.point = "transact:before"
        raise OSError("the handler's own")

    trap = Trap("", FileUnavailable("the disk is full"))
    inbox = FaultyTransactionalInbox(SqliteInbox.open(tmp_path / "inventory.db", clock=time), trap)
    desk = await open_desk(inventory, inbox=inbox)
    await desk.put(desk.command(LAMP))
    with pytest.raises(FileUnavailable):
        await desk.work()
    assert tries == 1
    assert await desk.outcome(desk.settle(Reserve)) is ReplyOutcome.CLOSED, "nothing was recorded of it"


async def test_stop_waits_for_handlers_at_work(open_desk: OpenDesk, inventory: Participant, time: Timeline) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        begun.set()
        await go_on.wait()
        return Reserved(reservation="r")

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.intake.close()
    running = asyncio.ensure_future(desk.runner.run())
    await desk.put(desk.command(LAMP))
    await begun.wait()
    stopping = asyncio.ensure_future(desk.runner.stop(60))
    await desk.put(desk.command(LAMP, effect_key=key("later#0")))
    go_on.set()
    await stopping
    await running
    assert [answer.effect_key for answer in await desk.answers()] == [key()]
    assert desk.medium.pending == 1, "what came later waits for somebody else"


async def test_handler_that_outlasts_the_grace_is_broken_off_and_its_claim_released(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    begun = asyncio.Event()
    ended: list[str] = []

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("broken off")
        raise AssertionError

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.intake.close()
    running = asyncio.ensure_future(desk.runner.run())
    await desk.put(desk.command(LAMP))
    await begun.wait()
    await desk.runner.stop(0)
    await running
    assert ended == ["broken off"]
    assert await desk.answers() == []
    assert desk.medium.pending == 1, "it is delivered again"

    succeed = Participant("inventory")
    at_once(succeed)
    other = await open_desk(succeed, inbox=desk.inbox, medium=desk.medium, sleep=time.sleep)
    before = time.now()
    await other.work()
    assert [answer.outcome for answer in await other.answers()] == [DONE]
    assert time.now() == before, "without waiting for the lease"


async def test_cancelled_runner_releases_its_claims_and_stays_cancelled(
    open_desk: OpenDesk, inventory: Participant, time: Timeline
) -> None:
    begun = asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.intake.close()
    running = asyncio.ensure_future(desk.runner.run())
    await desk.put(desk.command(LAMP))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (answer,) = await desk.inbox.begin([desk.runner._processor._reader.read(*await first(desk)).request])
    assert isinstance(answer, Claimed)


async def first(desk: Desk) -> Any:
    intake = await desk.runner.open()
    (delivery,) = await intake.receive()
    return delivery, intake


async def test_stop_takes_out_what_only_waits(open_desk: OpenDesk, time: Timeline) -> None:
    inventory = Participant("inventory", concurrency=1)
    begun: list[str] = []
    first_begun, go_on = asyncio.Event(), asyncio.Event()

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        begun.append(command.sku)
        first_begun.set()
        await go_on.wait()
        return Reserved(reservation="r")

    desk = await open_desk(inventory, sleep=time.sleep)
    await desk.intake.close()
    running = asyncio.ensure_future(desk.runner.run())
    await desk.put(*some(desk, 3))
    await first_begun.wait()
    stopping = asyncio.ensure_future(desk.runner.stop(60))
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    await running
    assert len(begun) == 1
    assert desk.medium.pending == 1 + 2, "an answer, and two commands for somebody else"


async def test_runner_is_for_one_run(inventory: Participant, open_desk: OpenDesk) -> None:
    at_once(inventory)
    desk = await open_desk(inventory)
    running = asyncio.ensure_future(desk.runner.run())
    await desk.runner.tried()
    with pytest.raises(UsageError, match="run twice"):
        await desk.runner.run()
    await desk.runner.stop()
    await running


async def test_participant_without_handlers_is_not_run(inventory: Participant, time: Timeline) -> None:
    with pytest.raises(UsageError, match="Import the modules"):
        Desk(inventory, MemoryInbox(), time)


async def test_process_before_open_is_refused(inventory: Participant, time: Timeline) -> None:
    at_once(inventory)
    desk = Desk(inventory, MemoryInbox(), time)
    with pytest.raises(UsageError, match="before open"):
        await desk.runner.process([])


async def test_what_does_not_pass_ends_the_run(open_desk: OpenDesk, inventory: Participant, time: Timeline) -> None:
    at_once(inventory)
    trap = Trap("begin:before", RuntimeError("a bug"))
    desk = await open_desk(inventory, inbox=FaultyInbox(MemoryInbox(time), trap))
    await desk.intake.close()
    await desk.put(desk.command(LAMP))
    with capture_logs() as logs, pytest.raises(RuntimeError, match="a bug"):
        await desk.runner.run()
    assert logs[-1]["event"] == "the participant cannot go on"
    assert desk.medium.pending == 1


# handlers that fail in odd ways


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("file \udcff"), "file \\udcff"), (Mute(), "(its message cannot be read)")]
)
async def test_error_whose_text_cannot_be_sent_is_a_failure_like_any_other(
    open_desk: OpenDesk, inventory: Participant, error: Exception, told: str, transactional: bool
) -> None:
    @inventory.action(
        Reserve, transactional=transactional, retry=tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(1))
    )
    def reserve(command: Reserve) -> Reserved:
        raise error

    desk = await open_desk(inventory, file=True)
    answer = await desk.answer(desk.command(LAMP))
    assert answer.outcome is ReplyOutcome.FAILED
    assert data_of(answer, Failure) == Failure(type(error).__name__, told)


async def test_handler_whose_own_future_was_cancelled_has_failed_and_is_tried_again(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    tries = 0

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        nonlocal tries
        tries += 1
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting
        return Reserved(reservation="never")

    desk = await open_desk(inventory)
    answer = await desk.answer(desk.command(LAMP))
    assert (answer.outcome, tries) == (ReplyOutcome.FAILED, 3)
    assert "raised CancelledError" in data_of(answer, Failure).message


async def test_transactional_handler_that_raises_a_cancellation_has_failed(
    open_desk: OpenDesk, inventory: Participant
) -> None:
    @inventory.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        raise asyncio.CancelledError

    desk = await open_desk(inventory, file=True)
    assert await desk.outcome(desk.command(LAMP)) is ReplyOutcome.FAILED
