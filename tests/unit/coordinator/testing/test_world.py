"""Sagas and participants together on the virtual clock."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from amends.contracts import MSGPACK, Command, Compensation, Event, Rejection, Reply, Signal, UsageError
from amends.coordinator import Policy, Publish, Refused, Saga, Sleep, StillGoing, WaitFor, step
from amends.coordinator.testing import World
from amends.participants import Context, Participant, Reject


class Booked(Reply):
    ref: str


class Full(Rejection):
    pass


class Book(Command[Booked, Full], service="hotel"):
    nights: int


class Unbook(Compensation[Book]):
    pass


class Paid(Event):
    trip: str


class Approve(Signal):
    by: str


class Trip(Saga):
    trip: str
    nights: int
    ref: str = ""

    @step
    def book(self) -> Book:
        return Book(nights=self.nights)

    @book.on_success
    def booked(self, reply: Booked) -> None:
        self.ref = reply.ref

    @book.compensation
    def unbook(self) -> Unbook:
        return Unbook()

    @step(timeout=timedelta(days=3))
    def paid(self) -> WaitFor[Paid]:
        return WaitFor(Paid, where={"trip": self.trip})


class Payer(Saga):
    """Pays for a trip after a night's sleep."""

    trip: str

    @step
    def night(self) -> Sleep:
        return Sleep(timedelta(hours=8))

    @step
    def pay(self) -> Publish:
        return Publish(Paid(trip=self.trip))


class Waiting(Saga):
    by: str = ""

    @step
    def nap(self) -> Sleep:
        return Sleep(timedelta(days=7))

    @step(timeout=timedelta(days=2))
    def approval(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @approval.on_success
    def approved(self, approve: Approve) -> None:
        self.by = approve.by


def hotel(*, fails: int = 0) -> tuple[Participant, list[str]]:
    """A hotel whose first `fails` calls raise, with the list of what it did."""
    participant = Participant("hotel")
    done: list[str] = []

    @participant.action(Book)
    async def book(command: Book, ctx: Context) -> Booked:
        nonlocal fails
        if command.nights > 30:
            raise Reject(Full())
        if fails:
            fails -= 1
            raise RuntimeError("the line is down")
        done.append(f"book {ctx.saga_id}")
        return Booked(ref=f"B-{ctx.saga_id}")

    @participant.compensation
    def unbook(undo: Unbook, ctx: Context[Book]) -> None:
        done.append(f"unbook {ctx.saga_id}")

    return participant, done


async def test_a_saga_completes_when_the_event_of_another_saga_comes() -> None:
    participant, done = hotel()
    async with World(Trip, Payer, participant) as world:
        trip = await world.start(Trip(trip="t1", nights=2), id="t1")
        other = await world.start(Trip(trip="t2", nights=2), id="t2")
        await world.run(Payer(trip="t1"), id="p1")
        assert (await trip.outcome()).status == "completed"
        assert (await trip.state()).ref == "B-t1"
        assert (await other.outcome()).status == "running"
        assert done == ["book t1", "book t2"]


async def test_a_trip_nobody_pays_for_is_undone_after_three_days() -> None:
    participant, done = hotel()
    async with World(Trip, participant) as world:
        began = world.clock.now()
        outcome = await world.run(Trip(trip="t1", nights=2), id="t1")
        assert outcome.status == "compensated"
        assert done == ["book t1", "unbook t1"]
        assert world.clock.now() - began == timedelta(days=3)


async def test_a_rejection_undoes_nothing_that_was_not_done() -> None:
    participant, done = hotel()
    async with World(Trip, participant) as world:
        outcome = await world.run(Trip(trip="t1", nights=60), id="t1")
        assert outcome.status == "compensated"
        assert outcome.failure is not None
        assert outcome.failure.error == Full.__tag__
        assert done == []


@pytest.mark.parametrize("fails", [1, 2, 5, 8])
async def test_a_failing_handler_is_tried_again_by_the_participant_and_then_by_the_coordinator(fails: int) -> None:
    participant, done = hotel(fails=fails)
    async with World(Trip, Payer, participant) as world:
        handle = await world.start(Trip(trip="t1", nights=2), id="t1")
        await world.advance(timedelta(hours=1))
        await world.run(Payer(trip="t1"), id="p1")
        assert (await handle.outcome()).status == "completed"
        assert done == ["book t1"]


async def test_a_handler_that_never_works_sends_the_saga_back() -> None:
    participant, done = hotel(fails=10_000)
    async with World(Trip, participant) as world:
        outcome = await world.run(Trip(trip="t1", nights=2), id="t1")
        assert outcome.status == "compensated"
        # the outcome of the booking was unknown, so it was undone; the handler of the undo was told so
        assert done == ["unbook t1"]


async def test_nine_days_and_three_restarts_pass_in_no_time() -> None:
    async with World(Waiting) as world:
        handle = await world.start(Waiting(), id="w")
        await world.restart()
        await world.advance(timedelta(days=7))
        await world.restart()
        await world.advance(timedelta(days=1, hours=23))
        await world.restart()
        await handle.signal(Approve(by="ada"))
        outcome = await world.finish(handle)
        assert outcome.status == "completed"
        assert outcome.state.by == "ada"


async def test_an_early_signal_waits_for_its_step() -> None:
    async with World(Waiting) as world:
        handle = await world.start(Waiting(), id="w")
        await handle.signal(Approve(by="early"))
        outcome = await world.finish(handle)
        assert outcome.unwrap().by == "early"


async def test_starting_twice_is_idempotent_and_another_input_is_refused() -> None:
    participant, done = hotel()
    async with World(Trip, participant) as world:
        await world.start(Trip(trip="t1", nights=2), id="t1")
        again = await world.start(Trip(trip="t1", nights=2), id="t1")
        assert again.existing
        with pytest.raises(Refused, match="another saga or input") as refused:
            await world.start(Trip(trip="t1", nights=3), id="t1")
        assert refused.value.code == "id-in-use"
        await world.settle()
        assert done == ["book t1"]


async def test_a_saga_can_be_started_by_its_name_and_input() -> None:
    participant, done = hotel()
    async with World(Trip, participant) as world:
        await world.start("trip", {"trip": "t1", "nights": 2}, id="t1")
        await world.settle()
        assert done == ["book t1"]


async def test_a_saga_that_needs_a_participant_which_is_not_there_says_so() -> None:
    async with World(Trip) as world:
        with pytest.raises(UsageError, match="asks service 'hotel' for book#0, and this World has no such"):
            await world.run(Trip(trip="t1", nights=2), id="t1")


async def test_a_saga_that_takes_longer_than_is_allowed_is_still_going() -> None:
    async with World(Waiting) as world:
        with pytest.raises(StillGoing, match="still running"):
            await world.run(Waiting(), id="w", within=timedelta(days=1))


def test_a_world_takes_nothing_but_sagas_and_participants() -> None:
    with pytest.raises(UsageError, match="not 'hotel'"):
        World(Trip, "hotel")  # type: ignore[arg-type]


async def test_a_transactional_handler_writes_into_a_database_of_its_own() -> None:
    participant = Participant("hotel")

    @participant.action(Book, transactional=True)
    def book(command: Book, ctx: Context) -> Booked:
        ctx.session.execute("INSERT INTO rooms VALUES (?)", (ctx.saga_id,))
        return Booked(ref="r")

    @participant.compensation(Unbook, transactional=True)
    def unbook(undo: Unbook, ctx: Context) -> None:
        ctx.session.execute("DELETE FROM rooms WHERE guest = ?", (ctx.saga_id,))

    async with World(Trip, Payer, participant) as world:
        with closing(sqlite3.connect(world.database("hotel"))) as rooms, rooms:
            rooms.execute("CREATE TABLE rooms (guest TEXT)")
        await world.start(Trip(trip="t1", nights=2), id="t1")
        await world.start(Trip(trip="t2", nights=2), id="t2")
        await world.run(Payer(trip="t1"), id="p1")
        await world.restart()
        await world.advance(timedelta(days=3))
        with closing(sqlite3.connect(world.database("hotel"))) as rooms:
            assert rooms.execute("SELECT guest FROM rooms").fetchall() == [("t1",)]


async def test_messages_may_travel_as_msgpack() -> None:
    participant, done = hotel()
    async with World(Trip, Payer, participant, policy=Policy(codec=MSGPACK)) as world:
        trip = await world.start(Trip(trip="t1", nights=2), id="t1")
        lost = await world.start(Trip(trip="t2", nights=2), id="t2")
        await world.run(Payer(trip="t1"), id="p1")
        assert (await trip.outcome()).unwrap().ref == "B-t1"
        assert (await world.finish(lost)).status == "compensated"
        assert done == ["book t1", "book t2", "unbook t2"]


class Delivered(Event):
    trip: str


class Parcel(Saga):
    trip: str

    @step
    def paid(self) -> WaitFor[Paid]:
        return WaitFor(Paid, where={"trip": self.trip})

    @step
    def delivered(self) -> WaitFor[Delivered]:
        return WaitFor(Delivered, where={"trip": self.trip})


async def test_events_of_two_types_may_have_the_same_id() -> None:
    """As they have when they are named after the order they are about."""
    async with World(Parcel) as world:
        handle = await world.start(Parcel(trip="t1"), id="p1")
        await world.client.publish(Paid(trip="t1"), id="t1")
        await world.client.publish(Delivered(trip="t1"), id="t1")
        await world.settle()
        assert (await handle.outcome()).status == "completed"
