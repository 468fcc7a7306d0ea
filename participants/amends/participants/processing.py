"""From deliveries to answers: what a participant does with a batch of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4

import structlog
from msgspec.structs import replace

from amends.brokers import Broker, Delivery
from amends.contracts import Clock, InternalError, TransientError
from amends.participants.answers import reply_to
from amends.participants.batcher import Batcher
from amends.participants.claims import Claims
from amends.participants.handlers import Handler
from amends.participants.inbox import Inbox, PublishingInbox, Raised, TransactionalInbox, Work, WorkAnswer
from amends.participants.incoming import Incoming, Reader, Unreadable
from amends.participants.intake import Intake
from amends.participants.performing import Performer
from amends.participants.retries import Sleep, backoff, repeat
from amends.participants.rows import (
    Answered,
    Begin,
    BeginUndo,
    Busy,
    Claimed,
    Closing,
    ClosingAnswer,
    Fenced,
    Finish,
    Ignored,
    OpeningAnswer,
)

if TYPE_CHECKING:
    from amends.participants.participant import Participant

_log: Any = structlog.get_logger("amends.participants")

Said: TypeAlias = tuple[Incoming, OpeningAnswer | ClosingAnswer | WorkAnswer]

_SHORTEST_WAIT_S: Final = 0.05


class Processor:
    """Handles deliveries, many at a time.

    Transactional handlers of a batch run in one transaction. The others have a task and a slot each; what their tasks
    ask of inbox and broker is asked together with what others ask at that time. An answer is published after it was
    recorded, and a delivery acknowledged after its answer was published.
    """

    def __init__(
        self, participant: Participant, broker: Broker, inbox: Inbox, clock: Clock, sleep: Sleep, *, threads: bool
    ) -> None:
        self._service, self._clock, self._sleep = participant.service, clock, sleep
        self._broker, self._inbox = broker, inbox
        self._transactions = inbox if isinstance(inbox, TransactionalInbox) else None
        # with inbox and broker in one database, answers are published by the transaction that records them
        self._joint = inbox if isinstance(inbox, PublishingInbox) and inbox.joins(broker) else None
        self._reader = Reader(
            participant.service,
            participant.handlers,
            owner=uuid4().hex,
            lease=participant.lease,
            skew=participant.skew,
            claims=self._transactions is None,
        )
        slots = participant.concurrency + participant.undo_concurrency
        self._performer = Performer(self._reader, participant.retry, sleep, slots if threads else 0)
        self._claims = Claims(inbox, participant.lease, sleep)
        self._action_slots = asyncio.Semaphore(participant.concurrency)
        self._undo_slots = asyncio.Semaphore(participant.undo_concurrency)
        self._own_slots = {
            tag: asyncio.Semaphore(handler.concurrency)
            for tag, handler in participant.handlers.items()
            if handler.concurrency is not None
        }
        self._begin = Batcher(inbox.begin)
        self._finish = Batcher(self._finish_all)
        self._answer = Batcher(self._answer_many)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[Any] | None] = set()
        self._stopping = False

    async def process(self, deliveries: Sequence[Delivery], intake: Intake) -> None:
        """Handle these to the end. Raises the first error of inbox or broker; handlers at work then go on."""
        intake.take(deliveries)
        works: list[Incoming] = []
        settles: list[Incoming] = []
        jobs: list[Coroutine[Any, Any, None]] = []
        for delivery in deliveries:
            incoming = self._reader.read(delivery, intake)
            if isinstance(incoming, Unreadable):
                jobs.append(self._bury(incoming, intake))
            elif incoming.handler is None:
                settles.append(incoming)
            elif incoming.handler.transactional and self._transactions is not None:
                works.append(incoming)
            else:
                jobs.append(self._handle(incoming, incoming.handler))
        if works and self._transactions is not None:
            jobs.append(self._transact(works, self._transactions))
        if settles:
            jobs.append(self._settle(settles))
        await self._together(jobs)

    def spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that `stop` looks after."""
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def begin_nothing(self) -> None:
        """From now on begin no handler any more; what only waits for its turn is taken out."""
        self._stopping = True
        for idle in self._idle:
            if idle is not None:
                idle.cancel()

    async def stop(self, grace_s: float) -> None:
        """Give handlers at work their grace, then break them off and release their claims."""
        self.begin_nothing()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._claims.release()
        for batcher in (self._begin, self._finish, self._answer):
            batcher.close()
        self._performer.close()

    async def _bury(self, letter: Unreadable, intake: Intake) -> None:
        _log.warning(
            "a message cannot be processed; it is now a dead letter", reason=letter.reason, detail=letter.detail
        )
        await intake.dead_letter(letter.delivery, letter.reason, letter.detail)

    async def _settle(self, batch: list[Incoming]) -> None:
        found = await self._inbox.begin([incoming.request for incoming in batch])
        await self._answer_all(list(zip(batch, found, strict=True)))

    # handlers with a claim

    async def _handle(self, incoming: Incoming, handler: Handler) -> None:
        while True:
            answer: OpeningAnswer | ClosingAnswer
            slots = await self._enter(handler)
            try:
                if incoming.intake.closed:
                    return
                answer = await self._begin(incoming.request)
                if isinstance(answer, Claimed):
                    answer = await self._perform(incoming, handler, answer)
            finally:
                _leave(slots)
            if not isinstance(answer, Busy):
                break
            await self._until_free(incoming, answer)
        await self._answer((incoming, answer))

    async def _perform(self, incoming: Incoming, handler: Handler, claimed: Claimed) -> ClosingAnswer:
        key = incoming.request.effect_key
        claim = self._claims.hold(key, claimed.fence)
        try:
            try:
                performed = await claim.at_work(self._performer.perform(incoming, handler, claimed))
            except TimeoutError:
                if not claim.lost:
                    raise
                return Fenced()
            return await self._finish(
                Finish(
                    effect_key=key,
                    fence=claimed.fence,
                    outcome=performed.outcome,
                    recording=performed.recording,
                )
            )
        except asyncio.CancelledError:
            # what is in a thread goes on: its lease runs out by itself
            if not self._performer.in_thread(handler):
                self._claims.abandon(claim)
            raise
        finally:
            self._claims.let_go(claim)

    async def _finish_all(self, requests: list[Closing]) -> Sequence[ClosingAnswer]:
        """Record what handlers did; when the inbox is away, until it is back: a result is not thrown away."""
        for wait in backoff():
            try:
                return await self._inbox.finish(requests)
            except TransientError as error:
                _log.warning("results cannot be recorded; trying again", reason=str(error), results=len(requests))
                await self._sleep(wait)
        raise InternalError("the waits for the inbox have an end")

    async def _enter(self, handler: Handler) -> list[asyncio.Semaphore]:
        """Take a slot of the handler's own, if it has any, then one of all actions, or of all undos."""
        taken: list[asyncio.Semaphore] = []
        try:
            with self._holding_nothing():
                if own := self._own_slots.get(handler.message.__tag__):
                    await own.acquire()
                    taken.append(own)
                common = self._undo_slots if handler.compensates else self._action_slots
                await common.acquire()
                taken.append(common)
        except BaseException:
            _leave(taken)
            raise
        return taken

    async def _until_free(self, incoming: Incoming, busy: Busy) -> None:
        """Wait for the end of the claim if it is ours, else for the end of its lease."""
        claim = self._claims.of(incoming.request.effect_key)
        with self._holding_nothing():
            if claim is not None:
                await claim.ended.wait()
            else:
                left = (busy.until - self._clock.now()).total_seconds()
                await self._sleep(max(left, _SHORTEST_WAIT_S))

    # transactional handlers

    async def _transact(self, batch: list[Incoming], inbox: TransactionalInbox) -> None:
        works = [self._work(incoming) for incoming in batch]
        if self._joint is not None:
            found = await self._joint.transact_and_publish(works, self._broker)
        else:
            found = await inbox.transact(works)
        settled: list[Said] = []
        later: list[Coroutine[Any, Any, None]] = []
        for incoming, answer in zip(batch, found, strict=True):
            if isinstance(answer, Raised | Busy):
                later.append(self._transact_later(incoming, answer, inbox))
            else:
                settled.append((incoming, answer))
        await self._together([self._answer_all(settled, published=self._joint is not None), *later])

    def _work(self, incoming: Incoming) -> Work:
        request, handler = _asked(incoming)
        return Work(
            request,
            lambda claimed, session: self._performer.perform_in(incoming, handler, claimed, session),
            lambda answer: reply_to(incoming.envelope, self._service, answer, self._clock.now()),
        )

    async def _transact_later(self, incoming: Incoming, answer: WorkAnswer, inbox: TransactionalInbox) -> None:
        while isinstance(answer, Raised | Busy):
            if isinstance(answer, Raised):
                answer = await self._try_again(incoming, answer.error, inbox)
                continue
            await self._until_free(incoming, answer)
            if incoming.intake.closed:
                return
            (answer,) = await inbox.transact([self._work(incoming)])
        await self._answer((incoming, answer))

    async def _try_again(self, incoming: Incoming, error: Exception, inbox: TransactionalInbox) -> WorkAnswer:
        """Repeat a handler that raised, by its policy; then record that it failed."""
        request, handler = _asked(incoming)

        async def attempt() -> WorkAnswer | TransientError:
            try:
                (again,) = await inbox.transact([self._work(incoming)])
            except TransientError as away:
                return away  # the inbox's trouble is not the handler's: no reason to repeat it
            if isinstance(again, Raised):
                raise again.error
            return again

        try:
            answer = await repeat(self._performer.policy_of(handler), attempt, self._sleep_idly, error)
        except Exception as last:
            error = last
        else:
            if isinstance(answer, TransientError):
                raise answer
            if answer != Ignored("expired"):
                return answer
        # not begun again past its time, but begun before: that is to be told
        if isinstance(request, Begin):
            request = replace(request, start_before=None)
        failure = self._performer.give_up(incoming, handler, error)
        (answer,) = await inbox.transact([Work(request, lambda claimed, session: failure)])
        return answer

    async def _sleep_idly(self, seconds: float) -> None:
        with self._holding_nothing():
            await self._sleep(seconds)

    # answers

    async def _answer_all(self, said: Sequence[Said], *, published: bool = False) -> None:
        now = self._clock.now()
        replies = []
        done: dict[Intake, list[Delivery]] = {}
        for incoming, answer in said:
            match answer:
                case Answered():
                    if not published and (reply := reply_to(incoming.envelope, self._service, answer, now)):
                        replies.append(reply)
                case Ignored() | Fenced():
                    _log.info("a message is not answered", effect_key=incoming.request.effect_key, why=_why(answer))
                case _:
                    raise InternalError(f"{incoming.request.effect_key}: {answer} is no answer to send")
            done.setdefault(incoming.intake, []).append(incoming.delivery)
        if replies:
            await self._broker.publish(replies)
        for intake, deliveries in done.items():
            await intake.ack(deliveries)

    async def _answer_many(self, said: list[Said]) -> list[None]:
        await self._answer_all(said)
        return [None] * len(said)

    # tasks

    async def _together(self, jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Run these to the end, or to the first error; a stop may take some of them out."""
        if not jobs:
            return
        tasks = [self.spawn(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        for task in done:
            if not task.cancelled() and (error := task.exception()):
                raise error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it has been told the first one

    def _holding_nothing(self) -> _Idling:
        """While a task waits without slot or claim, a stop takes it out at once: its message is delivered again."""
        if self._stopping:
            raise asyncio.CancelledError
        return _Idling(self._idle)


class _Idling:
    """The current task is among `idle` for the time of a `with`."""

    __slots__ = ("_idle", "_task")

    def __init__(self, idle: set[asyncio.Task[Any] | None]) -> None:
        self._idle, self._task = idle, asyncio.current_task()

    def __enter__(self) -> None:
        self._idle.add(self._task)

    def __exit__(self, *_: object) -> None:
        self._idle.discard(self._task)


def _leave(slots: list[asyncio.Semaphore]) -> None:
    for slot in reversed(slots):
        slot.release()


def _asked(incoming: Incoming) -> tuple[Begin | BeginUndo, Handler]:
    if isinstance(incoming.request, Begin | BeginUndo) and incoming.handler is not None:
        return incoming.request, incoming.handler
    raise InternalError(f"{incoming.request.effect_key}: a settle has no handler")


def _why(answer: Ignored | Fenced) -> str:
    if isinstance(answer, Fenced):
        return "its claim was taken over by somebody else; the result is thrown away"
    return {"expired": "it came past its not-after", "stale": "a newer revision has taken its place"}[answer.reason]
