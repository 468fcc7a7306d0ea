"""What an operator is told when a step is stuck again at once."""

from __future__ import annotations

from amends.contracts import Command, Reply
from amends.coordinator import Saga, step
from amends.coordinator.cli.asking import _still_stuck
from amends.coordinator.testing import World
from amends.participants import Participant


class Booked(Reply):
    pass


class Book(Command[Booked], service="hotel"):
    pass


class Broken(Saga):
    """Its own code cannot take the answer, however often it is given."""

    @step(pivot=True)
    def book(self) -> Book:
        return Book()

    @book.on_success
    def booked(self, reply: Booked) -> None:
        raise LookupError("no such room")


async def test_a_step_that_is_stuck_again_at_once_is_named_with_its_reason() -> None:
    hotel = Participant("hotel")

    @hotel.action
    async def book(command: Book) -> Booked:
        return Booked()

    async with World(Broken, hotel) as world:
        await world.start(Broken(), id="b")
        await world.settle()
        await world.client.retry("b")
        told = await _still_stuck(world.client, "b")
        assert told == "stuck now: book (LookupError: Broken.booked: no such room)"


async def test_nothing_is_said_when_nothing_is_stuck() -> None:
    hotel = Participant("hotel")

    @hotel.action
    async def book(command: Book) -> Booked:
        return Booked()

    class Fine(Saga):
        @step(pivot=True)
        def book(self) -> Book:
            return Book()

    async with World(Fine, hotel) as world:
        await world.run(Fine(), id="f")
        assert await _still_stuck(world.client, "f") == ""
