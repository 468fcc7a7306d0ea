"""What RabbitMQ took out of a queue at its delivery limit: judged, and put back or filed as a dead letter.

RabbitMQ counts a message as handed out when it was sent ahead to a process that died, also when nobody saw it there. So
its limit alone says nothing about a message. What reaches it goes to a queue of its own, and waits there for somebody
who knows more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from amends.brokers.packing import parts_of
from amends.brokers.port import BrokerUnavailable, Judge, Returned
from amends.brokers.rabbitmq.lane import Lane
from amends.brokers.rabbitmq.wire import Headers, Parcel, unwrap, wrap_again
from amends.contracts.packs import Unpacked

if TYPE_CHECKING:
    from amends.brokers.rabbitmq.dead import DeadLetters
    from amends.brokers.rabbitmq.link import Link
    from amends.brokers.rabbitmq.names import Names
    from amends.brokers.rabbitmq.publisher import Publisher
    from amends.brokers.rabbitmq.tap import Arrival

_PREFETCH: Final = 32
_QUEUE: Final = "amends-returned-from"
_TIMES: Final = "amends-returned"
_REASON: Final = "delivery-limit"
_LIMIT: Final = "delivery_limit"


class _Letter(Struct, frozen=True, eq=False):
    """One message, of its own or out of a pack, and the full name of the queue it came from.

    `refused` is why it left the queue, if that was not for the delivery limit: a program in another language may reject
    a message, and that is its last word.
    """

    message: Unpacked
    queue: str
    times: int
    refused: str = ""


class ReturnedLetters:
    """The queue of what was returned."""

    def __init__(self, link: Link, publisher: Publisher, names: Names, dead: DeadLetters) -> None:
        self._link, self._publisher, self._names, self._dead = link, publisher, names, dead

    async def give_up(self, message: Unpacked, queue: str) -> None:
        """Put one there that has reached the limit before RabbitMQ noticed. Raises `BrokerUnavailable`."""
        parcel = wrap_again(message, self._names.returned)
        parcel.headers[_QUEUE] = queue
        if await self._publisher.publish([parcel]):
            raise BrokerUnavailable(f"RabbitMQ at {self._link.server.where} has no queue {parcel.key!r} any more")

    async def judge_all(self, judge: Judge) -> None:
        """Take what is there and what comes, until cancelled. Raises `BrokerUnavailable`, and what `judge` raises."""
        arrivals: asyncio.Queue[Arrival | None] = asyncio.Queue()
        opening = Lane.open(
            self._link,
            self._names.returned,
            _PREFETCH,
            lambda _, arrival: arrivals.put_nowait(arrival),
            lambda _: arrivals.put_nowait(None),
        )
        lane = await self._link.job(opening)
        try:
            while True:
                batch = [await arrivals.get()]
                while not arrivals.empty():
                    batch.append(arrivals.get_nowait())
                if lane.closed:
                    raise self._link.server.lost()
                await self._link.job(self._deal(lane, [arrival for arrival in batch if arrival is not None], judge))
        finally:
            await self._link.job(lane.close())

    async def _deal(self, lane: Lane, arrivals: Sequence[Arrival], judge: Judge) -> None:
        all_letters = [letter for arrival in arrivals for letter in self._letters(arrival)]
        refused = [self._refused(letter) for letter in all_letters if letter.refused]
        letters = [letter for letter in all_letters if not letter.refused]
        found = [
            Returned(self._names.address_of(letter.queue), letter.message.envelope, letter.times) for letter in letters
        ]
        verdicts = await judge(found)
        parcels = [
            self._back(letter) if wrong is None else self._to_the_dead(letter, wrong)
            for letter, wrong in zip(letters, verdicts, strict=True)
        ]
        lost = await self._publisher.publish(parcels) if parcels else []
        homeless = [self._to_the_dead(letters[number], "its queue is not there any more") for number in lost]
        if (dead := homeless + refused) and await self._publisher.publish(dead):
            raise self._dead.missing()
        await lane.acknowledge({arrival.tag for arrival in arrivals})

    def _letters(self, arrival: Arrival) -> list[_Letter]:
        headers = arrival.headers
        queue = headers.get(_QUEUE) or headers.get("x-first-death-queue")
        home = self._names.plain(queue) if isinstance(queue, str) else ""
        times = headers.get(_TIMES)
        parts = parts_of(arrival.content_type, arrival.body)
        if parts is None:
            envelope, problem = unwrap(headers, arrival.content_type, arrival.body)
            parts = [Unpacked(envelope, arrival.body, problem)]
        died_of = headers.get("x-first-death-reason", _LIMIT)
        refused = "" if _QUEUE in headers or died_of == _LIMIT else str(died_of)
        return [_Letter(part, home, times if type(times) is int else 0, refused) for part in parts]

    def _back(self, letter: _Letter) -> Parcel:
        parcel = wrap_again(letter.message, letter.queue)
        extra: Headers = {_TIMES: letter.times + 1}
        parcel.headers |= extra
        return parcel

    def _refused(self, letter: _Letter) -> Parcel:
        reason = letter.refused.replace("_", "-")
        return self._dead.letter(letter.message, letter.queue, 0, reason, f"moved here by RabbitMQ: {reason}")

    def _to_the_dead(self, letter: _Letter, detail: str) -> Parcel:
        return self._dead.letter(letter.message, letter.queue, 0, _REASON, detail)
