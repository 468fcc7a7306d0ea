"""Running a participant: from its queue to its handlers, through outages, to a graceful end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from amends.brokers import Broker, Delivery, Retention
from amends.contracts import Clock, Duration, SystemClock, TransientError, UsageError, as_timedelta
from amends.contracts.errors import stack_of
from amends.participants.forgetting import Forgetter
from amends.participants.inbox import Inbox
from amends.participants.intake import Intake
from amends.participants.processing import Processor
from amends.participants.retries import Sleep, backoff

if TYPE_CHECKING:
    from amends.participants.participant import Participant

_log: Any = structlog.get_logger("amends.participants")

_LEAST_PREFETCH: Final = 256
_TRANSACTIONAL_PREFETCH: Final = 2048
"""Handlers in transactions are done at once, a batch at a time: the next one should be here by then."""


class ParticipantRunner:
    """Handles the messages of one participant, from one broker, with one inbox. Make it in a running event loop.

    `run` works until `stop`. Without `run`, `open` and `process` handle single batches: that is for tests and
    simulations, which may also give their own `clock` and `sleep`, and `threads=False` to run plain functions on the
    loop. Raises `UsageError` for a participant without handlers, and for an inbox private to this process behind a
    broker that others share (they would do again what is recorded here).
    """

    def __init__(
        self,
        participant: Participant,
        broker: Broker,
        inbox: Inbox,
        *,
        retention: Retention | None = None,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        threads: bool = True,
    ) -> None:
        self._service = participant.service
        if not participant.handlers:
            raise UsageError(f"{participant!r} handles nothing. Import the modules that declare its handlers first")
        if broker.shared and not inbox.shared:
            raise UsageError(
                f"Participant({self._service!r}): its inbox lives in this process alone, but other processes can be on "
                'its broker, and would do again what is recorded here. Give it a shared inbox: inbox="sqlite:shop.db"'
            )
        self._broker, self._inbox, self._sleep = broker, inbox, sleep
        clock = clock or SystemClock()
        self._processor = Processor(participant, broker, inbox, clock, sleep, threads=threads)
        retention = retention or participant.retention or Retention()
        self._forgetter = Forgetter(self._service, inbox, retention, clock, sleep)
        at_once = all(handler.transactional for handler in participant.handlers.values())
        least = _TRANSACTIONAL_PREFETCH if at_once else _LEAST_PREFETCH
        self._prefetch = max(least, 4 * (participant.concurrency + participant.undo_concurrency))
        self._intake: Intake | None = None
        self._stopping = asyncio.Event()
        self._tried = asyncio.Event()
        self._ended: asyncio.Event | None = None
        self._grace_s = 0.0
        self._away = False
        self._waits = backoff()

    async def open(self) -> Intake:
        """Begin to consume the service's queue. Raises `BrokerUnavailable`."""
        consumer = await self._broker.consume_service(self._service, prefetch=self._prefetch)
        self._intake = Intake(consumer, self._prefetch)
        return self._intake

    async def process(self, deliveries: Sequence[Delivery]) -> None:
        """Handle these to the end: handlers done, outcomes recorded, answers published, deliveries acknowledged.

        `open` first. Raises the first error of inbox or broker; what was not acknowledged is then to be delivered
        again.
        """
        if self._intake is None:
            raise UsageError("ParticipantRunner.process before open: there is nobody to acknowledge to")
        await self._processor.process(deliveries, self._intake)

    async def run(self) -> None:
        """Receive and handle messages until `stop`, or until cancelled.

        When the broker or the inbox is away, everything in hand is given back once; work goes on by itself when both
        are there again. Raises only what does not pass: a bug, a damaged file.
        """
        if self._ended is not None:
            raise UsageError(f"the participant {self._service!r} is run twice. Make another ParticipantRunner")
        self._ended = asyncio.Event()
        forgetting = asyncio.ensure_future(self._forgetter.run())
        try:
            while not self._stopping.is_set():
                try:
                    await self._inbox.ping()
                    intake = await self.open()
                    self._tell_recovery()
                    await self._consume(intake)
                except TransientError as error:
                    self._tell_outage(error)
                    await self._close_intake()
                    await self._pause(next(self._waits))
        except Exception as error:
            _log.error("the participant cannot go on", service=self._service, stack=stack_of(error))
            raise
        finally:
            try:
                forgetting.cancel()
                await asyncio.wait({forgetting})
                await self._wind_up()
            finally:
                self._ended.set()

    async def tried(self) -> None:
        """Wait until `run` consumes, or has found something away."""
        await self._tried.wait()

    async def stop(self, grace: Duration = 30.0) -> None:
        """Take nothing in any more, wait up to `grace` for handlers at work, then break off and give back the rest."""
        self._grace_s = as_timedelta(grace, "grace").total_seconds()
        self._stopping.set()
        self._processor.begin_nothing()
        if self._ended is None:
            await self._wind_up()
        else:
            await self._ended.wait()

    async def _consume(self, intake: Intake) -> None:
        trouble: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        stopping = asyncio.ensure_future(self._stopping.wait())

        def processed(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            if error := task.exception():
                if not trouble.done():
                    trouble.set_result(error)
            else:
                self._waits = backoff()

        try:
            while True:
                receiving = asyncio.ensure_future(intake.receive())
                first: set[asyncio.Future[Any]] = {receiving, stopping, trouble}
                try:
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    receiving.cancel()
                    await asyncio.wait({receiving})
                if trouble.done():
                    raise trouble.result()
                if stopping.done():
                    return
                self._processor.spawn(self._processor.process(receiving.result(), intake)).add_done_callback(processed)
        finally:
            stopping.cancel()

    async def _wind_up(self) -> None:
        await self._processor.stop(self._grace_s)
        await self._close_intake()

    async def _close_intake(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            with suppress(TransientError):
                await intake.close()

    async def _pause(self, seconds: float) -> None:
        waits = {asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._stopping.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _tell_outage(self, error: TransientError) -> None:
        if not self._away:
            _log.warning(
                "the participant waits; it goes on by itself when this is over",
                service=self._service,
                reason=str(error),
            )
        self._away = True
        self._tried.set()

    def _tell_recovery(self) -> None:
        if self._away:
            _log.info("the participant goes on", service=self._service)
        self._away = False
        self._tried.set()
