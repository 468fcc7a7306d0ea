"""A participant in somebody else's program: from entering an `async with` to leaving it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from amends.brokers import Broker, Retention, connect_broker
from amends.contracts import Clock, Duration
from amends.participants.connect import connect_inbox, inbox_beside
from amends.participants.inbox import Inbox
from amends.participants.runner import ParticipantRunner

if TYPE_CHECKING:
    from amends.participants.participant import Participant


@asynccontextmanager
async def run_participant(
    participant: Participant,
    broker: Broker | str,
    inbox: Inbox | str | None,
    retention: Retention,
    grace: Duration,
    clock: Clock | None,
) -> AsyncIterator[None]:
    """See `Participant.running`."""
    async with AsyncExitStack() as opened:
        if isinstance(broker, str):
            broker = await connect_broker(broker)
            opened.push_async_callback(broker.close)
        if inbox is None:
            inbox = inbox_beside(broker, clock=clock)
            opened.push_async_callback(inbox.close)
        elif isinstance(inbox, str):
            inbox = await connect_inbox(inbox, clock=clock)
            opened.push_async_callback(inbox.close)
        runner = ParticipantRunner(participant, broker, inbox, retention=retention, clock=clock)
        running = asyncio.ensure_future(runner.run())
        try:
            trying = asyncio.ensure_future(runner.tried())
            await asyncio.wait({running, trying}, return_when=asyncio.FIRST_COMPLETED)
            trying.cancel()
            if not running.done():
                yield
        finally:
            await runner.stop(grace)
            await running
