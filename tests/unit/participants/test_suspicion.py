"""Which command or undo is suspected of having killed its process, what is handled alone, and what has had enough."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.support.desk import ME, SERVICE, Desk, Release, Reserve, Reserved, data_of, key
from tests.support.faulty_inbox import FaultyInbox, Trap
from tests.support.timeline import Timeline

from amends.brokers import MemoryBroker, Outgoing
from amends.contracts import Envelope, Failure, ReplyOutcome, UsageError
from amends.participants import Context, Inbox, MemoryInbox, Participant, ParticipantRunner

from .conftest import OpenDesk

POISON = "poison"
HOUR = timedelta(hours=1)
"""Long enough for all leases of the dead."""
LIMIT = 5
DEATHS = 1 + LIMIT
"""The first delivery is not counted."""


class Processes:
    """One after the other handles what there is, until it dies of a certain item, when that is acted on or undone.

    Dying is to be cancelled without any end: claims and counts stay as they are.
    """

    def __init__(self, time: Timeline, inbox: Inbox | None = None, *, kills: str = "action") -> None:
        self.time, self.kills = time, kills
        self.inbox = inbox or MemoryInbox(time)
        self.medium = MemoryBroker(clock=time)
        self.begun: list[list[str]] = []
        """What each process began, by the item."""
        self.beside: list[set[str]] = []
        """What was at work whenever the killer was begun."""
        self.undone: list[Context[Any]] = []
        self._at_work: set[str] = set()
        self._died = asyncio.Event()
        self.participant = Participant(SERVICE, handling_limit=LIMIT)

        @self.participant.action
        async def reserve(command: Reserve) -> Reserved:
            await self._work(command.sku, "action")
            return Reserved(reservation=f"for {command.sku}")

        @self.participant.compensation
        async def release(undo: Release, ctx: Context[Reserve]) -> None:
            await self._work(ctx.undoes.command.sku, "undo")
            self.undone.append(ctx)

    async def _work(self, sku: str, what: str) -> None:
        self.begun[-1].append(sku)
        self._at_work.add(sku)
        if sku == POISON and what == self.kills:
            self.beside.append(set(self._at_work))
            self._died.set()
            await asyncio.Event().wait()
        for _ in range(20):  # long enough for the killer to begin meanwhile
            await asyncio.sleep(0)
        self._at_work.discard(sku)

    async def open(self) -> Processes:
        self.client = await self.medium.consume_client(ME)
        return self

    async def one(self) -> bool:
        """Whether it lives on."""
        self.begun.append([])
        self._at_work.clear()
        self._died.clear()
        broker = self.medium.join()
        runner = ParticipantRunner(
            self.participant, broker, self.inbox, clock=self.time, sleep=self.time.nap, threads=False
        )
        intake = await runner.open()
        work = asyncio.ensure_future(runner.process(await intake.receive()))
        died = asyncio.ensure_future(self._died.wait())
        await asyncio.wait({work, died}, return_when=asyncio.FIRST_COMPLETED)
        lives = not died.done()
        for task in (work, died):
            task.cancel()
        await asyncio.wait({work, died})
        if lives:
            await runner.stop(0)
        await broker.close()
        return lives

    async def until_one_lives(self) -> int:
        """How many have died before."""
        deaths = 0
        while not await self.one():
            deaths += 1
            assert deaths < 4 * DEATHS, "they die for ever"
        return deaths

    async def answers(self) -> dict[str, Envelope]:
        """By effect key."""
        deliveries = self.client.take()
        await self.client.ack(deliveries)
        return {d.envelope.effect_key or "": d.envelope for d in deliveries if d.envelope is not None}


@pytest.fixture
async def processes(time: Timeline) -> Processes:
    return await Processes(time).open()


async def commands(open_desk: OpenDesk, inventory: Participant, *skus: str, **fields: Any) -> list[Outgoing]:
    desk = await asking(open_desk, inventory)
    fields = {"not_after": desk.time.now() + HOUR} | fields
    return [desk.command(Reserve(sku=sku), effect_key=key(f"{sku}#0"), **fields) for sku in skus]


async def asking(open_desk: OpenDesk, inventory: Participant) -> Desk:
    """A desk that only makes messages."""

    @inventory.action
    def reserve(command: Reserve) -> Reserved:
        raise AssertionError("nobody asks this one")

    desk: Desk = await open_desk(inventory)
    return desk


async def test_command_that_kills_is_answered_as_failed_for_good_and_its_neighbours_are_done(
    processes: Processes, open_desk: OpenDesk, inventory: Participant
) -> None:
    skus = ["0", "1", POISON, "3", "4"]
    messages = await commands(open_desk, inventory, *skus)
    await processes.medium.publish(messages)
    assert await processes.until_one_lives() == DEATHS
    # uncounted, and twice together
    assert processes.begun[:3] == [skus] * 3
    # then alone: those before the killer are done, and those behind it when it has had its fill
    assert [begun[-1] for begun in processes.begun[3:6]] == [POISON] * 3
    assert processes.beside[3:] == [{POISON}] * 3
    assert sorted(sku for begun in processes.begun[3:] for sku in begun) == sorted([*skus, POISON, POISON])
    answers = await processes.answers()
    bad = answers.pop(key(f"{POISON}#0"))
    assert {answer.outcome for answer in answers.values()} == {ReplyOutcome.DONE}
    assert len(answers) == 4
    assert bad.outcome is ReplyOutcome.FAILED
    detail = "its handler was begun 5 times, and each time the process died"
    assert data_of(bad, Failure) == Failure("ProcessDied", detail, final=True)
    (letter,) = await processes.medium.dead_letters()
    assert (letter.envelope, letter.reason, letter.detail) == (messages[2].envelope, "delivery-limit", detail)
    assert processes.medium.pending == 0


async def test_action_that_killed_may_have_happened_and_is_undone_as_such(
    processes: Processes, open_desk: OpenDesk, inventory: Participant
) -> None:
    desk = await asking(open_desk, inventory)
    await processes.medium.publish([desk.command(Reserve(sku=POISON), not_after=None)])
    await processes.until_one_lives()
    await processes.answers()
    await processes.medium.publish([desk.undo(Release(), Reserve(sku=POISON))])
    assert await processes.one()
    assert [answer.outcome for answer in (await processes.answers()).values()] == [ReplyOutcome.UNDONE]
    assert [ctx.undoes.outcome for ctx in processes.undone] == ["unknown"]


async def test_undo_that_kills_is_answered_as_failed_for_good(
    time: Timeline, open_desk: OpenDesk, inventory: Participant
) -> None:
    processes = await Processes(time, kills="undo").open()
    desk = await asking(open_desk, inventory)
    await processes.medium.publish([desk.command(Reserve(sku=POISON), not_after=None)])
    assert await processes.one()
    await processes.answers()
    await processes.medium.publish([desk.undo(Release(), Reserve(sku=POISON), attempt=2)])
    assert await processes.until_one_lives() == DEATHS
    (answer,) = (await processes.answers()).values()
    assert answer.outcome is ReplyOutcome.UNDO_FAILED
    assert data_of(answer, Failure).final
    assert len(await processes.medium.dead_letters()) == 1


async def test_resend_of_what_kills_does_not_begin_at_zero(
    processes: Processes, open_desk: OpenDesk, inventory: Participant
) -> None:
    (first,) = await commands(open_desk, inventory, POISON)
    await processes.medium.publish([first])
    for _ in range(4):
        assert not await processes.one()
    # three are counted; sent again beside the first one
    (again,) = await commands(open_desk, inventory_again(), POISON, attempt=2)
    await processes.medium.publish([again])
    assert 4 + await processes.until_one_lives() <= DEATHS + 1
    assert len(await processes.medium.dead_letters()) == 2


def inventory_again() -> Participant:
    return Participant(SERVICE)


async def test_each_further_attempt_is_begun_once_alone_and_a_repaired_handler_is_forgiven(
    processes: Processes, open_desk: OpenDesk, inventory: Participant
) -> None:
    await processes.medium.publish(await commands(open_desk, inventory, POISON))
    assert await processes.until_one_lives() == DEATHS
    neighbour, second = await commands(open_desk, inventory_again(), "mug", POISON, attempt=2)
    await processes.medium.publish([neighbour, second])
    assert await processes.until_one_lives() == 1
    assert processes.beside[-1] == {POISON}
    # somebody has repaired the handler, and an operator asks for one more attempt
    processes.kills = "nothing"
    await processes.answers()
    (third,) = await commands(open_desk, inventory_again(), POISON, attempt=3)
    await processes.medium.publish([third])
    assert await processes.one()
    assert [answer.outcome for answer in (await processes.answers()).values()] == [ReplyOutcome.DONE]
    name = f"{key(f'{POISON}#0')}@0/command"
    assert list(await processes.inbox.handlings([name, f"{name}#3"])) == [0, 0]


async def test_resent_undo_of_one_that_kills_is_not_begun_beside_others(
    time: Timeline, open_desk: OpenDesk, inventory: Participant
) -> None:
    processes = await Processes(time, kills="undo").open()
    desk = await asking(open_desk, inventory)
    await processes.medium.publish([desk.command(Reserve(sku=POISON))])
    assert await processes.one()
    await processes.medium.publish([desk.undo(Release(), Reserve(sku=POISON), attempt=2)])
    for _ in range(DEATHS):
        assert not await processes.one()
    neighbour = desk.command(Reserve(sku="mug"), effect_key=key("mug#0"))
    await processes.medium.publish([neighbour, desk.undo(Release(), Reserve(sku=POISON), attempt=3)])
    assert await processes.until_one_lives() == 1
    assert processes.beside[-1] == {POISON}


async def test_what_killed_is_answered_also_when_its_time_to_begin_is_over(
    processes: Processes, time: Timeline, open_desk: OpenDesk, inventory: Participant
) -> None:
    await processes.medium.publish(await commands(open_desk, inventory, POISON))
    for _ in range(DEATHS):
        assert not await processes.one()
    time.advance(2 * HOUR.total_seconds())
    assert await processes.one()
    assert [answer.outcome for answer in (await processes.answers()).values()] == [ReplyOutcome.FAILED]


async def hand_out_before(desk: Desk) -> None:
    """To a process that is gone."""
    gone = await desk.medium.join().consume_service(SERVICE)
    await gone.receive()
    await gone.close()


@pytest.mark.parametrize("transactional", [False, True], ids=["plain", "transactional"])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
async def test_handlers_that_end_are_forgotten_at_once(open_desk: OpenDesk, transactional: bool, fails: bool) -> None:
    participant = Participant(SERVICE)

    @participant.action(Reserve, transactional=transactional)
    def reserve(command: Reserve) -> Reserved:
        if fails:
            raise RuntimeError("no")
        return Reserved(reservation="r")

    desk = await open_desk(participant, file=True)
    for earlier in (0, 2):  # together, alone
        effect_key = key(f"step{earlier}#0")
        name = f"{effect_key}@0/command"
        await desk.inbox.count_handlings([name] * earlier)
        await desk.put(desk.command(Reserve(sku="lamp"), effect_key=effect_key))
        await hand_out_before(desk)
        await desk.work()
        assert list(await desk.inbox.handlings([name, f"{name}#1"])) == [0, 0]
    outcome = ReplyOutcome.FAILED if fails else ReplyOutcome.DONE
    assert [answer.outcome for answer in await desk.answers()] == [outcome] * 2


async def test_transactional_command_that_killed_did_nothing_for_certain(open_desk: OpenDesk) -> None:
    """The dying itself takes real processes: see tests/e2e/test_poison_service.py."""
    participant = Participant(SERVICE, handling_limit=LIMIT)

    @participant.action(Reserve, transactional=True)
    def reserve(command: Reserve) -> Reserved:
        raise AssertionError("it is not begun any more")

    desk = await open_desk(participant, file=True)
    name = f"{key()}@0/command"
    await desk.inbox.count_handlings([name, f"{name}#1"] * LIMIT)
    await desk.put(desk.command(Reserve(sku=POISON)))
    await hand_out_before(desk)
    await desk.work()
    (answer,) = await desk.answers()
    assert (answer.outcome, data_of(answer, Failure).final) == (ReplyOutcome.FAILED, True)
    assert [letter.reason for letter in await desk.medium.dead_letters()] == ["delivery-limit"]
    assert await desk.outcome(desk.settle(Reserve)) is ReplyOutcome.CLOSED


async def test_what_a_stop_breaks_off_is_not_held_against_it(
    time: Timeline, open_desk: OpenDesk, inventory: Participant
) -> None:
    inbox, medium = MemoryInbox(time), MemoryBroker(clock=time)
    begun = asyncio.Event()
    ends = False
    participant = Participant(SERVICE, handling_limit=1)

    @participant.action
    async def reserve(command: Reserve) -> Reserved:
        begun.set()
        if not ends:
            await asyncio.Event().wait()
        return Reserved(reservation="r")

    client = await medium.consume_client(ME)
    await medium.publish(await commands(open_desk, inventory, "lamp"))
    for round in range(6):
        ends = round == 5
        begun.clear()
        broker = medium.join()
        runner = ParticipantRunner(participant, broker, inbox, clock=time, sleep=time.sleep, threads=False)
        intake = await runner.open()
        work = asyncio.ensure_future(runner.process(await intake.receive()))
        await asyncio.wait_for(begun.wait(), 10)
        if ends:
            await work
        await runner.stop(0)
        await asyncio.wait({work})
        await broker.close()
    assert await medium.dead_letters() == []
    assert [d.envelope.outcome for d in client.take() if d.envelope] == [ReplyOutcome.DONE]


async def test_first_delivery_asks_nothing_of_the_counts(time: Timeline, open_desk: OpenDesk) -> None:
    trap = Trap("never", RuntimeError())
    processes = await Processes(time, FaultyInbox(MemoryInbox(time), trap), kills="nothing").open()
    desk = await asking(open_desk, inventory_again())
    for message in (desk.command(Reserve(sku="lamp")), desk.undo(Release(), Reserve(sku="lamp"), attempt=2)):
        await processes.medium.publish([message])
        assert await processes.one()
    assert processes.begun == [["lamp"], ["lamp"]]
    assert [point for point in trap.passed if "handlings" in point] == []


async def test_waiting_for_somebodys_claim_counts_nothing(
    processes: Processes, time: Timeline, open_desk: OpenDesk, inventory: Participant
) -> None:
    """Those beside a killer that wait for the leases of the dead are not begun, and hence not suspected."""
    await processes.medium.publish(await commands(open_desk, inventory, POISON, "lamp"))
    for _ in range(2):
        assert not await processes.one()
    names = [f"{key(f'{sku}#0')}@0/command" for sku in (POISON, "lamp")]
    counted = list(await processes.inbox.handlings(names))
    broker = processes.medium.join()
    runner = ParticipantRunner(
        processes.participant, broker, processes.inbox, clock=time, sleep=time.sleep, threads=False
    )
    intake = await runner.open()
    work = asyncio.ensure_future(runner.process(await intake.receive()))
    assert await time.asleep() > 0
    work.cancel()
    await asyncio.wait({work})
    await broker.close()
    assert list(await processes.inbox.handlings(names)) == counted == [1, 1]


def test_a_limit_is_at_least_one() -> None:
    with pytest.raises(UsageError, match="handling_limit= is at least 1"):
        Participant(SERVICE, handling_limit=0)
