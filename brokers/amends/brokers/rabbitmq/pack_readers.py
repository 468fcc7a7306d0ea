"""Which services have consumers that read packs."""

from __future__ import annotations

import asyncio
from typing import Final

from aiormq.exceptions import ChannelNotFoundEntity
from msgspec import Struct

from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.names import Names

ASK_AGAIN_S: Final = 3.0
"""How old an answer may be. The first pack goes out so much later than a consumer comes; when the last one left, packs
wait for it for so long, and what is in them goes again by the resend timers of their senders."""


class _Answer(Struct):
    reads: bool
    at: float
    again: asyncio.Task[None] | None = None


class PackReaders:
    """Asks the broker how many consumers the second queue of a service has: at first use, and then now and then beside
    the publishing."""

    def __init__(self, link: Link, names: Names, ask_again_s: float = ASK_AGAIN_S) -> None:
        self._link, self._names, self._ask_again_s = link, names, ask_again_s
        self._answers: dict[str, _Answer] = {}

    async def of(self, service: str) -> bool:
        """Whether packs may go to a service. When the broker cannot say, they may not."""
        answer = self._answers.get(service)
        if answer is None:
            await self._link.job(self._ask(service))
            return self._answers[service].reads
        if answer.again is None and asyncio.get_running_loop().time() - answer.at > self._ask_again_s:
            answer.again = asyncio.create_task(self._link.job(self._ask(service)))
        return answer.reads

    def gone(self, service: str) -> None:
        """A pack came back: there is no such queue any more."""
        self._note(service, reads=False)

    async def _ask(self, service: str) -> None:
        queue = self._names.packs(service)
        try:
            async with self._link.server.speaking():
                try:
                    found = await self._link.ask(lambda channel: channel.queue_declare(queue, passive=True))
                except ChannelNotFoundEntity:
                    self._note(service, reads=False)
                else:
                    self._note(service, reads=bool(found.consumer_count))
        except BrokerUnavailable:
            self._note(service, reads=False)

    def _note(self, service: str, *, reads: bool) -> None:
        self._answers[service] = _Answer(reads, asyncio.get_running_loop().time())
