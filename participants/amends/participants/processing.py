"""From deliveries to answers: what a participant does with a batch of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4

import structlog
from msgspec.structs import replace

from amends.brokers import Broker, Delivery
from amends.contracts import Clock, InternalError, TransientError
from amends.participants.answers import died
from amends.participants.batcher import Batcher
from amends.participants.claims import Claims
from amends.participants.gate import Gate
from amends.participants.handlers import Handler
from amends.participants.inbox import Inbox, PublishingInbox, Raised, TransactionalInbox, Work, WorkAnswer
from amends.participants.incoming import Incoming, Reader, Unreadable
from amends.participants.intake import Intake
from amends.participants.performing import Performer
from amends.participants.replier import AnyAnswer, Replier, Said
from amends.participants.retries import Sleep, backoff, repeat
from amends.participants.rows import (
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
from amends.participants.suspicion import Suspicion, sentence

if TYPE_CHECKING:
    from amends.participants.participant import Participant

_log: Any = structlog.get_logger("amends.participants")

Transact: TypeAlias = Callable[[Sequence[Work]], Awaitable[Sequence[WorkAnswer]]]

_SHORTEST_WAIT_S: Final = 0.05


class Processor:
    """Handles deliveries, many at a time.

    Transactional handlers of a batch run in one transaction. The others have a task and a slot each; what their tasks
    ask of inbox and broker is asked together with what others ask at that time. An answer is published after it was
    recorded, and a delivery acknowledged after its answer was published. What may have killed a process before is
    handled as `Suspicion` says: in the end alone, or not at all any more.
    """

    def __init__(
        self, participant: Participant, broker: Broker, inbox: Inbox, clock: Clock, sleep: Sleep, *, threads: bool
    ) -> None:
        self._clock, self._sleep = clock, sleep
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
        self._suspicion = Suspicion(inbox, participant.handling_limit)
        self._gate = Gate(participant.lease)
        self._action_slots = asyncio.Semaphore(participant.concurrency)
        self._undo_slots = asyncio.Semaphore(participant.undo_concurrency)
        self._own_slots = {
            tag: asyncio.Semaphore(handler.concurrency)
            for tag, handler in participant.handlers.items()
            if handler.concurrency is not None
        }
        self._begin = Batcher(inbox.begin)
        self._finish = Batcher(self._finish_all)
        self._replier = Replier(participant.service, broker, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Task[Any] | None] = set()
        self._stopping = False

    async def process(self, deliveries: Sequence[Delivery], intake: Intake) -> None:
        """Handle these to the end. Raises the first error of inbox or broker; handlers at work then go on."""
        intake.take(deliveries)
        works: list[Incoming] = []
        settles: list[Incoming] = []
        suspects: list[Incoming] = []
        jobs: list[Coroutine[Any, Any, None]] = []
        for delivery in deliveries:
            incoming = self._reader.read(delivery, intake)
            if isinstance(incoming, Unreadable):
                jobs.append(self._replier.bury(incoming, intake))
            elif incoming.handler is None:
                settles.append(incoming)
            elif self._suspicion.concerns(incoming):
                suspects.append(incoming)
            elif incoming.handler.transactional and self._transactions is not None:
                works.append(incoming)
            else:
                jobs.append(self._handle(incoming, incoming.handler))
        if works and self._transactions is not None:
            jobs.append(self._transact(works, self._transactions))
        if settles:
            jobs.append(self._settle(settles))
        if suspects:
            jobs.append(self._handle_suspects(suspects))
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
        await self._suspicion.release()
        for part in (self._begin, self._finish, self._replier, self._suspicion):
            part.close()
        self._performer.close()

    async def _settle(self, batch: list[Incoming]) -> None:
        found = await self._inbox.begin([incoming.request for incoming in batch])
        await self._replier.answer_all(list(zip(batch, found, strict=True)))

    # what may have killed a process

    async def _handle_suspects(self, suspects: list[Incoming]) -> None:
        works: list[Incoming] = []
        jobs: list[Coroutine[Any, Any, None]] = []
        for incoming, alone in zip(suspects, await self._suspicion.must_be_alone(suspects), strict=True):
            _, handler = _asked(incoming)
            if alone:
                jobs.append(self._handle_alone(incoming))
            elif handler.transactional and self._transactions is not None:
                works.append(incoming)
            else:
                jobs.append(self._handle(incoming, handler, suspect=True))
        if works and self._transactions is not None:
            jobs.append(self._transact(works, self._transactions, suspects=True))
        await self._together(jobs)

    async def _handle_alone(self, incoming: Incoming) -> None:
        """Nothing else is at work in this process meanwhile; while it waits for somebody's claim, others are."""
        while True:
            with self._holding_nothing():
                await self._gate.acquire_alone()
            try:
                if incoming.intake.closed:
                    return
                if spent := await self._suspicion.spent(incoming):
                    answer = await self._give_up(incoming, spent)
                else:
                    answer = await self._run_alone(incoming)
            finally:
                self._gate.release_alone()
            if not isinstance(answer, Busy):
                break
            await self._until_free(incoming, answer)
        if spent:
            await self._replier.give_up(incoming, answer, sentence(spent))
        else:
            await self._replier.answer((incoming, answer))

    async def _run_alone(self, incoming: Incoming) -> AnyAnswer:
        request, handler = _asked(incoming)
        if not handler.transactional or self._transactions is None:
            claimed = await self._begin(request)
            return await self._perform(incoming, handler, claimed, True) if isinstance(claimed, Claimed) else claimed
        await self._suspicion.begin([incoming])
        (answer,) = await self._transactions.transact([self._work(incoming)])
        if isinstance(answer, Raised):
            answer = await self._try_again(incoming, answer.error, self._transactions.transact)
        await self._suspicion.end([incoming])
        return answer

    async def _give_up(self, incoming: Incoming, handlings: int) -> AnyAnswer:
        """Record that it failed, without its handler: it may have happened, unless it was transactional."""
        request, handler = _asked(incoming)
        if isinstance(request, Begin):
            request = replace(request, start_before=None)  # nothing is started, and what was begun is to be told
        failure = died(handler, sentence(handlings), incoming.envelope.content_type)
        if handler.transactional and self._transactions is not None:
            (answer,) = await self._transactions.transact([Work(request, lambda claimed, session: failure)])
            return answer
        claimed = await self._begin(request)
        if not isinstance(claimed, Claimed):
            return claimed
        return await self._finish(
            Finish(
                effect_key=request.effect_key,
                fence=claimed.fence,
                outcome=failure.outcome,
                recording=failure.recording,
            )
        )

    # handlers with a claim

    async def _handle(self, incoming: Incoming, handler: Handler, *, suspect: bool = False) -> None:
        while True:
            answer: OpeningAnswer | ClosingAnswer
            slots = await self._enter(handler)
            try:
                if incoming.intake.closed:
                    return
                answer = await self._begin(incoming.request)
                if isinstance(answer, Claimed):
                    answer = await self._perform(incoming, handler, answer, suspect)
            finally:
                _leave(slots)
            if not isinstance(answer, Busy):
                break
            await self._until_free(incoming, answer)
        await self._replier.answer((incoming, answer))

    async def _perform(self, incoming: Incoming, handler: Handler, claimed: Claimed, suspect: bool) -> ClosingAnswer:
        key = incoming.request.effect_key
        claim = self._claims.hold(key, claimed.fence)
        try:
            if suspect:
                await self._suspicion.begin([incoming])
            answer: ClosingAnswer
            try:
                performed = await claim.at_work(self._performer.perform(incoming, handler, claimed))
            except TimeoutError:
                if not claim.lost:
                    raise
                answer = Fenced()
            else:
                answer = await self._finish(
                    Finish(
                        effect_key=key,
                        fence=claimed.fence,
                        outcome=performed.outcome,
                        recording=performed.recording,
                    )
                )
            if suspect:
                await self._suspicion.end([incoming])
            return answer
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

    async def _enter(self, handler: Handler) -> list[asyncio.Semaphore | Gate]:
        """Take a slot of the handler's own, if it has any, then one of all actions, or of all undos; go in."""
        taken: list[asyncio.Semaphore | Gate] = []
        try:
            with self._holding_nothing():
                if own := self._own_slots.get(handler.message.__tag__):
                    await own.acquire()
                    taken.append(own)
                common = self._undo_slots if handler.compensates else self._action_slots
                await common.acquire()
                taken.append(common)
                await self._gate.acquire()
                taken.append(self._gate)
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

    async def _transact(self, batch: list[Incoming], inbox: TransactionalInbox, *, suspects: bool = False) -> None:
        works = [self._work(incoming) for incoming in batch]
        with self._holding_nothing():
            await self._gate.acquire()
        try:
            if suspects:
                await self._suspicion.begin(batch)
            if self._joint is not None:
                found = await self._joint.transact_and_publish(works, self._broker)
            else:
                found = await inbox.transact(works)
        finally:
            self._gate.release()
        settled: list[Said] = []
        later: list[Coroutine[Any, Any, None]] = []
        for incoming, answer in zip(batch, found, strict=True):
            if isinstance(answer, Raised | Busy):
                later.append(self._transact_later(incoming, answer, inbox, suspect=suspects))
            else:
                settled.append((incoming, answer))
        if suspects:
            await self._suspicion.end(incoming for incoming, _ in settled)
        await self._together([self._replier.answer_all(settled, published=self._joint is not None), *later])

    def _work(self, incoming: Incoming) -> Work:
        request, handler = _asked(incoming)
        return Work(
            request,
            lambda claimed, session: self._performer.perform_in(incoming, handler, claimed, session),
            lambda answer: self._replier.reply(incoming, answer),
        )

    async def _transact_later(
        self, incoming: Incoming, answer: WorkAnswer, inbox: TransactionalInbox, *, suspect: bool
    ) -> None:
        async def transact(works: Sequence[Work]) -> Sequence[WorkAnswer]:
            with self._holding_nothing():
                await self._gate.acquire()
            try:
                return await inbox.transact(works)
            finally:
                self._gate.release()

        while isinstance(answer, Raised | Busy):
            if isinstance(answer, Raised):
                answer = await self._try_again(incoming, answer.error, transact)
                continue
            if suspect:
                await self._suspicion.end([incoming])  # what waits is at no risk
            await self._until_free(incoming, answer)
            if incoming.intake.closed:
                return
            if suspect:
                await self._suspicion.begin([incoming])
            (answer,) = await transact([self._work(incoming)])
        if suspect:
            await self._suspicion.end([incoming])
        await self._replier.answer((incoming, answer))

    async def _try_again(self, incoming: Incoming, error: Exception, transact: Transact) -> WorkAnswer:
        """Repeat a handler that raised, by its policy; then record that it failed."""
        request, handler = _asked(incoming)

        async def attempt() -> WorkAnswer | TransientError:
            try:
                (again,) = await transact([self._work(incoming)])
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
        (answer,) = await transact([Work(request, lambda claimed, session: failure)])
        return answer

    async def _sleep_idly(self, seconds: float) -> None:
        with self._holding_nothing():
            await self._sleep(seconds)

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


def _leave(slots: list[asyncio.Semaphore | Gate]) -> None:
    for slot in reversed(slots):
        slot.release()


def _asked(incoming: Incoming) -> tuple[Begin | BeginUndo, Handler]:
    if isinstance(incoming.request, Begin | BeginUndo) and incoming.handler is not None:
        return incoming.request, incoming.handler
    raise InternalError(f"{incoming.request.effect_key}: a settle has no handler")
