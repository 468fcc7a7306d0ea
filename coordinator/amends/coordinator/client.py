"""The client: starts sagas, waits for them, and speaks to them."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import count
from typing import Any, Generic, Self, TypeAlias, overload

import msgspec
from typing_extensions import TypeVar

from amends.brokers import Broker, BrokerUnavailable, Consumer, ConsumerClosed, Delivery, Outgoing
from amends.brokers.connect import connect_broker
from amends.brokers.settings import find_settings
from amends.contracts import (
    JSON,
    Duration,
    Envelope,
    Event,
    Kind,
    Reply,
    Signal,
    TerminalError,
    TransientError,
    UsageError,
    as_timedelta,
)
from amends.contracts.names import check_saga_id, client_address, topic_address
from amends.contracts.payloads import Action, Control, Notice, Recorded, Start
from amends.coordinator.core.journal import JournalRecord
from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.declaration.saga import Saga, definition_of
from amends.coordinator.outcome import Outcome, StillGoing, UnknownSagaId
from amends.coordinator.store import SagaQuery, SagaStore, SagaSummary
from amends.coordinator.stores import connect_store
from amends.coordinator.wire import word

SagaT = TypeVar("SagaT", bound=Saga, default=Saga)

_SOURCE = "/amends/client"

_Asked: TypeAlias = tuple[str, str]
"""A question of ours: the saga it went to, and the id of the message, which is the caller's own choice."""

_Post: TypeAlias = tuple[Outgoing, asyncio.Future[None]]

_RECHECK_S = 10.0
"""How often a waiting client looks into the store by itself, should the word of the end have been lost."""


class Refused(TerminalError):
    """The coordinator said no. `code` is a short stable word, `problem` the sentence for people."""

    def __init__(self, saga_id: str, code: str, problem: str) -> None:
        self.saga_id, self.code, self.problem = saga_id, code, problem
        super().__init__(problem)


class NoAnswer(TransientError, TimeoutError):
    """No coordinator answered in time. The message is stored and handled once one runs; asking again is safe."""

    def __init__(self, saga_id: str, timeout_s: float) -> None:
        self.saga_id = saga_id
        super().__init__(
            f"no coordinator answered for saga {saga_id!r} within {timeout_s:g} s. The message waits for one: is it "
            "running (`amends run MODULE`), on the same broker?"
        )


class Handle(Generic[SagaT]):
    """One saga instance, as a client holds it."""

    def __init__(self, client: SagaClient, saga_id: str, type: type[SagaT] | None, *, existing: bool = False) -> None:
        self.id = saga_id
        self.existing = existing
        """Whether the saga was there before, started with the same input."""
        self._client, self._type = client, type

    async def result(self, timeout: Duration | None = None) -> Outcome[SagaT]:
        """Wait until the saga has ended. Raises `StillGoing` after `timeout`, and `UnknownSagaId`."""
        return await self._client._result(self.id, self._type, timeout)

    async def outcome(self) -> Outcome[SagaT]:
        """The saga as it stands now. Raises `UnknownSagaId`."""
        return await self._client._outcome(self.id, self._type)

    async def state(self) -> SagaT:
        """The saga's state as it stands now. Raises `UnknownSagaId`."""
        return (await self.outcome()).state

    async def signal(self, signal: Signal, *, id: str | None = None) -> None:
        """See `SagaClient.signal`."""
        await self._client.signal(self.id, signal, id=id)

    async def cancel(self, reason: str) -> None:
        """See `SagaClient.cancel`."""
        await self._client.cancel(self.id, reason=reason)


class SagaClient:
    """A connection for callers. Use it as `async with SagaClient(…) as sagas:`; it may be used by many tasks.

    `broker` and `store` are the same as those of the coordinators: URLs, or objects, which are then not closed. What is
    not given comes from the settings, as at the coordinators.
    `timeout` is how long to wait for a coordinator's word.
    """

    def __init__(
        self,
        *,
        broker: Broker | str | None = None,
        store: SagaStore | str | None = None,
        timeout: Duration = 30.0,
    ) -> None:
        self._broker_given, self._store_given = broker, store
        self._timeout_s = as_timedelta(timeout, "timeout").total_seconds()
        self._name = secrets.token_hex(8)
        self._numbers = count(1)
        self._answers: defaultdict[_Asked, list[asyncio.Future[Notice]]] = defaultdict(list)
        self._ends: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self._watched: set[str] = set()
        self._posts: list[_Post] = []
        self._poster: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None

    async def __aenter__(self) -> Self:
        broker, store = self._broker_given, self._store_given
        if broker is None or store is None:
            settings = find_settings().settings
            broker = settings.broker if broker is None else broker
            store = settings.store if store is None else store
        async with AsyncExitStack() as opened:
            self._broker = await connect_broker(broker) if isinstance(broker, str) else broker
            if self._broker is not broker:
                opened.push_async_callback(self._broker.close)
            self._store = await connect_store(store) if isinstance(store, str) else store
            if self._store is not store:
                opened.push_async_callback(self._store.close)
            self._consumer = await self._broker.consume_client(self._name)
            opened.pop_all()
        self._reader = asyncio.create_task(self._read(self._consumer))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        for waiting in self._answers.values():
            for future in waiting:
                future.cancel()
        if self._poster is not None:
            await asyncio.gather(self._poster, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.close()
        if self._store is not self._store_given:
            await self._store.close()
        if self._broker is not self._broker_given:
            await self._broker.close()

    # starting

    @overload
    async def start(self, saga: SagaT, /, *, id: str) -> Handle[SagaT]: ...
    @overload
    async def start(
        self, saga: str, input: Mapping[str, Any], /, *, id: str, version: int | None = None
    ) -> Handle[Saga]: ...
    async def start(
        self, saga: Any, input: Mapping[str, Any] | None = None, /, *, id: str, version: int | None = None
    ) -> Handle[Any]:
        """Start a saga under an id; once it returns, the saga is stored.

        Idempotent: the same id with the same input gives a handle on the saga that is there (`handle.existing`). With
        another input it raises `Refused` (code `id-in-use`). A saga can also be started by its name and input, without
        its class. Raises `NoAnswer` when no coordinator runs; the start then waits for one.
        """
        check_saga_id(id)
        type = None if isinstance(saga, str) else saga.__class__
        if type is None:
            start = Start(saga, msgspec.Raw(JSON.encode(dict(input or {}))), version)
        elif isinstance(saga, Saga):
            definition = definition_of(type)
            start = Start(definition.name, msgspec.Raw(JSON.encode(saga)), definition.version)
        else:
            raise UsageError(f"start() takes a saga such as PlaceOrder(…), or its name and input; not {saga!r}")
        answer = await self._ask(id, Kind.START, Start.__tag__, JSON.encode(start))
        if not answer.existing:
            self._watched.add(id)
        return Handle(self, id, type, existing=answer.existing)

    async def run(self, saga: SagaT, /, *, id: str, timeout: Duration | None = None) -> Outcome[SagaT]:
        """Start a saga and wait for its end. See `start` and `Handle.result`."""
        handle = await self.start(saga, id=id)
        return await handle.result(timeout)

    @overload
    def handle(self, id: str, saga: type[SagaT]) -> Handle[SagaT]: ...
    @overload
    def handle(self, id: str) -> Handle[Saga]: ...
    def handle(self, id: str, saga: type[Any] | None = None) -> Handle[Any]:
        """A handle on a saga that was started elsewhere; nothing is looked up yet."""
        return Handle(self, id, saga)

    # speaking to a saga

    async def signal(self, saga_id: str, signal: Signal, *, id: str | None = None) -> None:
        """Give a saga a word from outside. It is kept until the step that awaits it; `id` makes repeating it harmless.

        Raises `Refused` when there is no such saga, or nothing in it awaits such a signal.
        """
        if not isinstance(signal, Signal):
            raise UsageError(f"signal() takes a Signal such as Approve(…), not {signal!r}")
        await self._ask(saga_id, Kind.SIGNAL, type(signal).__tag__, JSON.encode(signal), id)

    async def signal_raw(self, saga_id: str, type: str, data: Mapping[str, Any], *, id: str | None = None) -> None:
        """`signal` by the stable tag and the fields, for callers without the class."""
        await self._ask(saga_id, Kind.SIGNAL, type, JSON.encode(dict(data)), id)

    async def publish(self, event: Event, *, id: str | None = None, subject: str = "") -> None:
        """Publish a domain event: to the sagas that wait for it, and to all other subscribers of its type.

        Once it returns, the event is stored for them. With an `id`, repeating it is harmless to all who deduplicate by
        id, as sagas do. `subject` is what it is about. An event that nobody subscribes to is dropped; a saga is found
        by an event from the moment that `start` has returned.
        """
        if not isinstance(event, Event):
            raise UsageError(f"publish() takes an Event such as OrderPaid(…), not {event!r}")
        envelope = Envelope(
            id=id or f"{self._name}.{next(self._numbers)}",
            kind=Kind.EVENT,
            type=type(event).__tag__,
            source=_SOURCE,
            subject=subject,
            time=datetime.now(UTC),
            data=JSON.encode(event),
            partition_key=subject or None,
        )
        await self._post(Outgoing(topic_address(envelope.type), envelope))

    async def cancel(self, saga_id: str, *, reason: str, by: str = "") -> str:
        """Make a saga go back. Raises `Refused` when it is too late, with what to do.

        Gives what is to be known about it, such as that the pivot is being settled first, or "".
        """
        return await self._control(saga_id, "cancel", reason=reason, by=by)

    async def pause(self, saga_id: str, *, reason: str = "", by: str = "") -> None:
        """Let a saga dispatch nothing until it is resumed; what comes in is kept."""
        await self._control(saga_id, "pause", reason=reason, by=by)

    async def resume(self, saga_id: str, *, by: str = "") -> None:
        """Let a paused saga go on."""
        await self._control(saga_id, "resume", by=by)

    async def retry(
        self, saga_id: str, step: str | None = None, *, by: str = "", expected_version: int | None = None
    ) -> None:
        """Try what is stuck again: one step, or all."""
        await self._control(saga_id, "retry", step=step, by=by, expected_version=expected_version)

    async def skip(
        self, saga_id: str, step: str, *, reason: str, by: str = "", expected_version: int | None = None
    ) -> None:
        """Leave a stuck step, or undo, as it is. The outcome lists it as waived."""
        await self._control(saga_id, "skip", step=step, reason=reason, by=by, expected_version=expected_version)

    async def resolve_forward(
        self,
        saga_id: str,
        step: str,
        reply: Reply | Recorded | None = None,
        *,
        reason: str,
        by: str = "",
        expected_version: int | None = None,
    ) -> None:
        """Say that a stuck step is done, and what its reply would have been: as JSON, for callers without its class."""
        told = (
            reply
            if isinstance(reply, Recorded) or reply is None
            else Recorded(type(reply).__tag__, msgspec.Raw(JSON.encode(reply)))
        )
        await self._control(
            saga_id,
            "resolve",
            step=step,
            direction="forward",
            reply=told,
            reason=reason,
            by=by,
            expected_version=expected_version,
        )

    async def resolve_back(
        self, saga_id: str, step: str, *, reason: str, by: str = "", expected_version: int | None = None
    ) -> None:
        """Say that a stuck step never happened, or that a stuck undo has been done by hand."""
        await self._control(
            saga_id,
            "resolve",
            step=step,
            direction="back",
            reason=reason,
            by=by,
            expected_version=expected_version,
        )

    async def _control(self, saga_id: str, action: Action, **fields: Any) -> str:
        control = Control(action=action, **fields)
        answer = await self._ask(saga_id, Kind.CONTROL, Control.__tag__, JSON.encode(control))
        return answer.problem

    # looking

    async def snapshot(self, saga_id: str) -> Snapshot:
        """The saga as it is stored. Raises `UnknownSagaId`."""
        stored = (await self._store.load([saga_id]))[0]
        if stored.snapshot is None:
            raise UnknownSagaId(saga_id)
        return stored.snapshot

    async def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        """Everything that happened to a saga, oldest first. Raises `UnknownSagaId`."""
        records = await self._store.journal(saga_id)
        if not records:
            raise UnknownSagaId(saga_id)
        return records

    async def find(self, query: SagaQuery | None = None) -> Sequence[SagaSummary]:
        """The sagas that match. The list may lag behind by a moment."""
        return await self._store.find(query or SagaQuery())

    async def count(self, query: SagaQuery | None = None) -> int:
        """How many sagas match."""
        return await self._store.count(query or SagaQuery())

    async def _outcome(self, saga_id: str, type: type[SagaT] | None) -> Outcome[SagaT]:
        snapshot = await self.snapshot(saga_id)
        return Outcome(snapshot, read_state(snapshot, type))

    async def _result(self, saga_id: str, type: type[SagaT] | None, timeout: Duration | None) -> Outcome[SagaT]:
        loop = asyncio.get_running_loop()
        limit = None if timeout is None else as_timedelta(timeout, "timeout").total_seconds()
        until = None if limit is None else loop.time() + limit
        ended = asyncio.Event()
        self._ends[saga_id].append(ended)
        try:
            while True:
                outcome = await self._outcome(saga_id, type)
                if outcome.ended:
                    return outcome
                left = None if until is None else until - loop.time()
                if left is not None and left <= 0:
                    raise StillGoing(saga_id, outcome.status, limit or 0)
                if saga_id not in self._watched:
                    self._watched.add(saga_id)
                    await self._send(saga_id, Kind.CONTROL, Control.__tag__, JSON.encode(Control(action="watch")))
                try:
                    async with asyncio.timeout(_RECHECK_S if left is None else min(left, _RECHECK_S)):
                        await ended.wait()
                except TimeoutError:
                    pass
                ended.clear()
        finally:
            self._ends[saga_id].remove(ended)
            if not self._ends[saga_id]:
                del self._ends[saga_id]
                self._watched.discard(saga_id)

    # messages

    async def _send(self, saga_id: str, kind: Kind, type: str, data: bytes, id: str | None = None) -> str:
        message = self._message(saga_id, kind, type, data, id)
        await self._post(message)
        return message.envelope.id

    def _message(self, saga_id: str, kind: Kind, type: str, data: bytes, id: str | None) -> Outgoing:
        message_id = id or f"{self._name}.{next(self._numbers)}"
        return word(
            saga_id,
            kind,
            type,
            data,
            message_id,
            datetime.now(UTC),
            source=_SOURCE,
            reply_to=client_address(self._name),
            partition_key=saga_id,
        )

    async def _post(self, message: Outgoing) -> None:
        """Publish a message together with those that other tasks post at the same time."""
        posted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._posts.append((message, posted))
        if self._poster is None:
            self._poster = asyncio.create_task(self._publish_posts())
        await asyncio.shield(posted)

    async def _publish_posts(self) -> None:
        try:
            while self._posts:
                posts, self._posts = self._posts, []
                await self._publish(posts)
        finally:
            self._poster = None

    async def _publish(self, posts: Sequence[_Post]) -> None:
        try:
            await self._broker.publish([message for message, _ in posts])
        except Exception as error:
            if len(posts) > 1 and not isinstance(error, TransientError):
                # one of them cannot be sent: that is not the fault of the others
                for post in posts:
                    await self._publish([post])
                return
            for _, posted in posts:
                posted.set_exception(error)
        else:
            for _, posted in posts:
                posted.set_result(None)

    async def _ask(self, saga_id: str, kind: Kind, type: str, data: bytes, id: str | None = None) -> Notice:
        """Send a word to a saga and wait for the coordinator's. Raises `Refused` and `NoAnswer`."""
        message = self._message(saga_id, kind, type, data, id)
        asked: _Asked = (saga_id, message.envelope.id)
        future: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self._answers[asked].append(future)
        try:
            await self._post(message)
            async with asyncio.timeout(self._timeout_s):
                answer = await future
        except TimeoutError:
            raise NoAnswer(saga_id, self._timeout_s) from None
        finally:
            self._answers[asked].remove(future)
            if not self._answers[asked]:
                del self._answers[asked]
        if answer.what == "refused":
            raise Refused(saga_id, answer.code, answer.problem)
        return answer

    async def _read(self, consumer: Consumer) -> None:
        wait = 0.1
        while True:
            try:
                deliveries = await consumer.receive()
                for delivery in deliveries:
                    try:
                        self._heard(delivery)
                    except TerminalError as error:
                        await consumer.dead_letter(delivery, "undecodable", str(error))
                await consumer.ack(deliveries)
                wait = 0.1
            except ConsumerClosed:
                return
            except BrokerUnavailable:
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)

    def _heard(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        if envelope is None:
            raise TerminalError(delivery.problem)
        notice = JSON.decode(envelope.data, Notice)
        if notice.what == "ended":
            for event in self._ends.get(envelope.subject, ()):
                event.set()
            return
        for future in self._answers.get((envelope.subject, envelope.causation_id), ()):
            if not future.done():
                future.set_result(notice)


def read_state(snapshot: Snapshot, type: type[SagaT] | None) -> SagaT:
    """The state in a snapshot as its class, or as a dictionary without one. Raises `TerminalError`."""
    if type is None:
        state: Any = msgspec.msgpack.decode(snapshot.state)
        return state  # type: ignore[no-any-return]
    definition = definition_of(type)
    if definition.name != snapshot.saga:
        raise TerminalError(f"saga {snapshot.id!r} is a {snapshot.saga}, not a {definition.name}")
    try:
        saga: SagaT = definition.decoder.decode(snapshot.state)
    except msgspec.MsgspecError as error:
        raise TerminalError(
            f"the state of saga {snapshot.id!r} ({snapshot.saga} version {snapshot.definition_version}) is not what "
            f"{type.__name__} declares: {error}. New fields need a default; other changes need a new version"
        ) from error
    return saga
