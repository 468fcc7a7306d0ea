"""The shell around the core: takes a batch of deliveries to committed transitions, sent messages and acknowledgements.

The order is fixed: commit, publish with confirms, acknowledge, clear the outbox with the next commit. Whatever breaks
in between, the messages are delivered again or the relay sends the outbox; everything downstream recognises duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from amends.brokers import Broker, Consumer, Delivery, Outgoing
from amends.contracts import JSON, Envelope, Kind, TerminalError, UnknownTypeError, UsageError, slot_of
from amends.contracts.errors import stack_of, text_of
from amends.contracts.names import check_saga_id, is_reply_address, slot_address
from amends.contracts.payloads import Notice, Start
from amends.coordinator import orphans
from amends.coordinator.actors import Actor, Actors
from amends.coordinator.core import (
    DoesNotFit,
    Policy,
    Transition,
    Verdict,
    encode_state,
    interests,
    sign_of_loss,
    start,
    transition,
)
from amends.coordinator.core.inputs import Answered, AnyInput, TimersFired
from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.ids import Ids, incarnation_of
from amends.coordinator.registry import Registry, UnknownSaga, input_hash
from amends.coordinator.store import (
    Commit,
    CommitResult,
    Interest,
    LedgerEntry,
    OutboxKey,
    Parked,
    Predecessor,
    PublishingStore,
    SagaStore,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
)
from amends.coordinator.wire import notice, outgoing, read_input, read_start

log = structlog.get_logger("amends.coordinator")

COMMIT_TRIES: Final = 3
"""How often a commit of unknown outcome is repeated, under its own commit id, before its deliveries are given back."""

_ASKING: Final = (Kind.START, Kind.SIGNAL, Kind.CONTROL)
"""Messages whose senders wait for an answer."""

_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)
"""What encoding raises: it is about the data of one commit, not about the store."""


class Letter(Struct, frozen=True, eq=False):
    """A delivery that could be read: what it tells which saga."""

    delivery: Delivery
    envelope: Envelope
    content: AnyInput | Start


class Dead(Struct, frozen=True, eq=False):
    """A delivery that nobody can process."""

    delivery: Delivery
    reason: str
    detail: str


class Decided(Struct, eq=False):
    """What is left to do for a batch once its transitions are stored."""

    messages: list[Outgoing] = []
    sent: list[OutboxKey] = []
    handled: list[Delivery] = []
    dead: list[Dead] = []
    parked: list[Parked] = []


class _Refused(Exception):
    """A request that gets a "no" with its reason."""

    def __init__(self, code: str, problem: str) -> None:
        self.code, self.problem = code, problem


class Processor:
    """Applies inputs to sagas. One batch is decided at a time; finishing one may overlap with deciding the next.

    `on_wake` is told the earliest timer of what was committed. `ids_kept` is how long the store's ledger remembers an
    id at least.
    """

    def __init__(
        self,
        registry: Registry,
        store: SagaStore,
        broker: Broker,
        *,
        policy: Policy,
        actors: Actors | None = None,
        on_wake: Callable[[datetime], None] = lambda due: None,
        ids_kept: timedelta | None = None,
    ) -> None:
        self._registry, self._store, self._broker, self._policy = registry, store, broker, policy
        self._actors = actors if actors is not None else Actors()
        # with store and broker in one database, what is committed is also published, and the outbox stays empty
        self._joint = store if isinstance(store, PublishingStore) and store.joins(broker) else None
        self._on_wake = on_wake
        self._ids = Ids()
        self._ids_kept = ids_kept
        self._cleared: list[OutboxKey] = []
        self._epochs: set[str] = set()
        self._shards: frozenset[int] | None = None
        self._watches_events = {d.tag for d in registry if d.event_types()}

    def own(self, shards: frozenset[int]) -> None:
        """The broker has given these shards to us. Sagas of others are dropped from memory."""
        self._shards = shards
        self._actors.evict_where(lambda saga_id: not self._is_ours(saga_id))

    def _is_ours(self, saga_id: str) -> bool:
        return self._shards is None or self._broker.shard_map.shard_of(slot_of(saga_id)) in self._shards

    async def process(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        """Decide a batch and finish it."""
        await self.finish(consumer, await self.decide(deliveries))

    # deciding

    async def decide(self, deliveries: Sequence[Delivery]) -> Decided:
        """Take a batch through the core and commit what came of it.

        Raises `StoreUnavailable`; then nothing may be acknowledged, and the sagas concerned are dropped from memory,
        since nobody knows what was stored.
        """
        decided = Decided()
        busy: list[Actor] = []
        for delivery in deliveries:
            if (letter := self._open(delivery, decided)) is not None:
                actor = self._actors.get(letter.envelope.subject)
                if not actor.mailbox:
                    busy.append(actor)
                actor.mailbox.append(letter)
        touched = list(busy)
        try:
            while busy:
                busy = await self._round(busy, decided)
        except BaseException:
            for actor in touched:
                self._actors.evict(actor.saga_id)
            raise
        self._actors.trim()
        return decided

    def _open(self, delivery: Delivery, decided: Decided) -> Letter | None:
        envelope = delivery.envelope
        if envelope is None:
            decided.dead.append(Dead(delivery, "undecodable", delivery.problem))
            return None
        if not self._is_ours(envelope.subject):
            decided.messages.append(Outgoing(slot_address(slot_of(envelope.subject)), envelope))
            decided.handled.append(delivery)
            return None
        if envelope.reply_to is not None and not is_reply_address(envelope.reply_to):
            detail = f"{envelope.reply_to[:80]!r} is no address to answer to"
            decided.dead.append(Dead(delivery, "undecodable", detail))
            return None
        try:
            check_saga_id(envelope.subject)
            content = read_start(envelope) if envelope.kind is Kind.START else read_input(envelope)
        except (TerminalError, UsageError) as error:
            reason = "unknown-type" if isinstance(error, UnknownTypeError) else "undecodable"
            self._refuse(delivery, envelope, reason, str(error), decided)
            return None
        return Letter(delivery, envelope, content)

    async def _round(self, busy: list[Actor], decided: Decided) -> list[Actor]:
        """One input for each busy actor; gives back the actors that have more."""
        cold = [actor for actor in busy if not actor.hydrated]
        if cold:
            await self._hydrate(cold, decided)
        fresh = set(map(id, cold))
        now = await self._store.now()
        commits: list[tuple[Actor, Letter, Commit, Transition]] = []
        for actor in busy:
            if not actor.mailbox or not actor.hydrated:
                continue
            letter: Letter = actor.mailbox[0]
            try:
                pending = self._apply(actor, letter, now, decided, fresh=id(actor) in fresh)
            except Exception as error:
                self._give_up(actor, letter, error, decided)
                continue
            if pending is not None:
                commits.append((actor, letter, *pending))
        if commits:
            await self._commit(commits, decided)
        return [actor for actor in busy if actor.mailbox]

    async def _hydrate(self, cold: list[Actor], decided: Decided) -> None:
        try:
            found: Sequence[Stored] = await self._store.load([actor.saga_id for actor in cold])
        except StoreCorrupt as error:
            if len(cold) == 1:
                self._bury(cold[0], error, decided)
            else:
                for actor in cold:
                    await self._hydrate([actor], decided)
            return
        for actor, stored in zip(cold, found, strict=True):
            actor.hydrate(stored.snapshot, stored.start)
            actor.epoch = stored.epoch
        self._look_at_epochs({stored.epoch for stored in found}, cold)

    def _look_at_epochs(self, seen: set[str], fresh: list[Actor]) -> None:
        """In a store of another epoch nothing is certain that was read before."""
        new = seen - self._epochs
        if new and self._epochs:
            log.warning(
                "the store was restarted, failed over or restored, or has got another server: sagas ask their "
                "participants again about what they have issued",
                epoch=", ".join(sorted(new)),
            )
            self._actors.forget_others(set(fresh))
        self._epochs |= new

    def _bury(self, actor: Actor, error: StoreCorrupt, decided: Decided) -> None:
        """A saga that cannot be read takes its own messages to the dead letters, and nobody else's."""
        log.error("a saga cannot be read", saga_id=actor.saga_id, problem=str(error))
        while actor.mailbox:
            letter = actor.mailbox.popleft()
            self._refuse(letter.delivery, letter.envelope, "corrupt", str(error), decided)

    def _apply(
        self, actor: Actor, letter: Letter, now: datetime, decided: Decided, *, fresh: bool
    ) -> tuple[Commit, Transition] | None:
        """What one message leads to: a commit, or an answer at once."""
        envelope = letter.envelope
        try:
            if isinstance(letter.content, Start):
                return self._start(actor, letter, letter.content, now, decided, fresh=fresh)
            snapshot = actor.snapshot
            if snapshot is None:
                if not fresh:
                    actor.forget()
                    return None
                self._to_nobody(actor, letter, decided)
                return None
            definition = self._registry.get(snapshot.saga, snapshot.definition_version)
            content = sign_of_loss(definition, snapshot, letter.content, actor.epoch) or letter.content
            result = transition(definition, snapshot, content, now, self._ids.next(), self._policy)
        except (UnknownSaga, DoesNotFit) as error:
            self._park(actor, letter, str(error), decided)
            return None
        except _Refused as refusal:
            actor.mailbox.popleft()
            self._refuse(letter.delivery, envelope, refusal.code, refusal.problem, decided)
            return None
        except TerminalError as error:
            actor.mailbox.popleft()
            self._refuse(letter.delivery, envelope, "undecodable", str(error), decided)
            return None
        if result.snapshot is not None and result.record is not None:
            return self._as_commit(definition, snapshot, result, envelope.id), result
        if not fresh:
            # a coordinator that lost this saga may hold an old state: only the store can say that nothing is to be done
            actor.forget()
            return None
        actor.mailbox.popleft()
        decided.messages.extend(outgoing(snapshot, result.effects, envelope.id))
        if _is_orphan(letter, snapshot):
            decided.dead.append(Dead(letter.delivery, orphans.REASON, orphans.detail(envelope)))
            return None
        nobody_told = envelope.reply_to is None
        if result.verdict in (Verdict.UNEXPECTED, Verdict.REFUSED) and nobody_told:
            decided.dead.append(Dead(letter.delivery, result.verdict.value, result.detail))
        else:
            decided.handled.append(letter.delivery)
        return None

    def _start(
        self, actor: Actor, letter: Letter, content: Start, now: datetime, decided: Decided, *, fresh: bool
    ) -> tuple[Commit, Transition] | None:
        envelope = letter.envelope
        try:
            hashed = input_hash(content.saga, content.input)
        except ValueError as error:
            raise _Refused("undecodable", f"the input of {content.saga} is no JSON: {error}") from None
        if actor.start is not None:
            if not fresh:
                actor.forget()
                return None
            if actor.start.input_hash != hashed:
                since = f"since {actor.start.started_at:%Y-%m-%d %H:%M:%S} UTC"
                problem = f"saga id {actor.saga_id!r} is taken by another saga or input {since}: use another id"
                raise _Refused("id-in-use", problem)
            actor.mailbox.popleft()
            decided.handled.append(letter.delivery)
            version = actor.snapshot.version if actor.snapshot is not None else 0
            self._reply(envelope, Notice(what="accepted", existing=True, version=version), decided)
            return None
        try:
            definition = self._registry.get(content.saga, content.version)
        except UnknownSaga as error:
            if self._registry.knows(content.saga):
                # a client was deployed before this coordinator: the start is kept for one that has the version
                raise
            raise _Refused("unknown-saga", str(error)) from None
        state = encode_state(_read_input(definition, content))
        result = start(
            definition,
            actor.saga_id,
            state,
            now,
            self._ids.next(),
            self._policy,
            cause=envelope.id,
            reply_to=envelope.reply_to,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            traceparent=envelope.traceparent,
            epoch=actor.epoch,
            incarnation=incarnation_of(actor.saga_id, hashed, now, self._ids_kept),
        )
        return self._as_commit(definition, None, result, envelope.id, hashed), result

    def _as_commit(
        self, definition: Definition, before: Snapshot | None, result: Transition, cause: str, hashed: str = ""
    ) -> Commit:
        snapshot, record = result.snapshot, result.record
        assert snapshot is not None
        assert record is not None
        wanted: tuple[Interest, ...] | None = None
        if definition.tag in self._watches_events:
            wanted = tuple(Interest(a.type, a.where) for a in interests(definition, snapshot, self._policy))
        return Commit(
            snapshot=snapshot,
            predecessor=None if before is None else Predecessor(before.incarnation, before.version, before.commit_id),
            record=record,
            outbox=outgoing(snapshot, result.effects, cause),
            input_hash=hashed,
            interests=wanted,
        )

    async def _commit(self, pending: list[tuple[Actor, Letter, Commit, Transition]], decided: Decided) -> None:
        cleared, self._cleared = self._cleared, []
        commits = [commit for _, _, commit, _ in pending]
        try:
            results = await self._commit_surely(commits, cleared)
        except _UNWRITABLE as error:
            self._cleared.extend(cleared)
            await self._single_out(pending, error, decided)
            return
        except BaseException:
            self._cleared.extend(cleared)
            raise
        for (actor, letter, commit, result), outcome in zip(pending, results, strict=True):
            snapshot = commit.snapshot
            if outcome is CommitResult.CONFLICT:
                log.info("another coordinator has moved a saga on; deciding again", saga_id=snapshot.id)
                actor.forget()
                continue
            if result.verdict is Verdict.RECONCILING:
                # of the store's other life everybody has been told once
                tell = log.debug if actor.snapshot and actor.snapshot.epoch != snapshot.epoch else log.warning
                tell("a saga may have lost commits and asks again", saga_id=snapshot.id, why=result.detail)
            else:
                actor.mailbox.popleft()
                decided.handled.append(letter.delivery)
            if commit.predecessor is None:
                actor.start = LedgerEntry(snapshot.incarnation, commit.input_hash, snapshot.started_at)
            actor.hydrate(snapshot, actor.start)
            if snapshot.phase.ended and not actor.mailbox:
                self._actors.evict(actor.saga_id)
            if commit.outbox and self._joint is None:
                decided.messages.extend(commit.outbox)
                decided.sent.append(OutboxKey(snapshot.id, snapshot.incarnation, snapshot.version))
            if (due := snapshot.wake_at) is not None:
                self._on_wake(due)
            if result.verdict is Verdict.UNEXPECTED:
                log.warning("unexpected message", saga_id=snapshot.id, detail=result.detail)

    async def _single_out(
        self, pending: list[tuple[Actor, Letter, Commit, Transition]], error: Exception, decided: Decided
    ) -> None:
        """One of these commits cannot be written: it takes its own message to the dead letters, and nobody else's."""
        if len(pending) > 1:
            for one in pending:
                await self._commit([one], decided)
            return
        actor, letter, _, _ = pending[0]
        self._give_up(actor, letter, error, decided)

    def _give_up(self, actor: Actor, letter: Letter, error: Exception, decided: Decided) -> None:
        """A bug, of ours or in a saga's class, over one message: it must not stop the others."""
        log.error(
            "a message could not be processed",
            saga_id=actor.saga_id,
            message_id=letter.envelope.id,
            stack=stack_of(error),
        )
        problem = f"{type(error).__name__}: {text_of(error)}"
        decided.dead.append(Dead(letter.delivery, "internal-error", problem))
        if letter.envelope.kind in _ASKING:
            self._reply(letter.envelope, Notice(what="refused", code="internal-error", problem=problem), decided)
        actor.mailbox.popleft()
        actor.forget()

    async def _commit_surely(self, commits: list[Commit], cleared: list[OutboxKey]) -> Sequence[CommitResult]:
        """Commit; when the outcome is unknown, ask again under the same commit ids, which the store recognises."""
        for attempt in range(1, COMMIT_TRIES + 1):
            try:
                if self._joint is not None:
                    return await self._joint.commit_and_publish(commits, self._broker)
                return await self._store.commit(commits, cleared)
            except StoreUnavailable:
                if attempt == COMMIT_TRIES:
                    raise
                await asyncio.sleep(0.05 * attempt)
        raise AssertionError("unreachable")

    # what cannot be applied

    def _to_nobody(self, actor: Actor, letter: Letter, decided: Decided) -> None:
        """A message to a saga that is not there."""
        actor.mailbox.popleft()
        if isinstance(letter.content, Answered):
            if actor.start is not None and actor.start.incarnation == letter.content.incarnation:
                decided.handled.append(letter.delivery)  # it ended long ago: whatever comes now is late
            else:
                decided.dead.append(Dead(letter.delivery, orphans.REASON, orphans.detail(letter.envelope)))
            return
        if actor.start is not None or isinstance(letter.content, TimersFired):
            # it was there, ended long ago and was removed: whatever comes now is late
            problem = f"saga {actor.saga_id!r} ended long ago and has been removed"
            if letter.envelope.reply_to is None:
                decided.handled.append(letter.delivery)
                return
        else:
            problem = f"there is no saga {actor.saga_id!r}"
        self._refuse(letter.delivery, letter.envelope, "no-such-saga", problem, decided)

    def _park(self, actor: Actor, letter: Letter, problem: str, decided: Decided) -> None:
        actor.mailbox.popleft()
        log.error("a message waits until a fitting saga version is loaded", saga_id=actor.saga_id, problem=problem)
        if isinstance(letter.content, TimersFired):
            # the sweeper tells it again and again, and then behind all that is kept
            decided.handled.append(letter.delivery)
            return
        name, version = _awaited(actor, letter)
        message = Outgoing(slot_address(slot_of(actor.saga_id)), letter.envelope)
        # a key of its own: an earlier parking of the same message may be on its way out at this moment
        decided.parked.append(Parked(name, version, message, self._ids.next()))
        decided.handled.append(letter.delivery)
        # whoever starts a saga is answered once it is stored, by the coordinator that does so
        if not isinstance(letter.content, Start):
            self._reply(letter.envelope, Notice(what="accepted", problem=f"kept for later: {problem}"), decided)

    def _refuse(self, delivery: Delivery, envelope: Envelope, code: str, problem: str, decided: Decided) -> None:
        """Tell whoever asked; what nobody waits for goes to the dead letters."""
        if envelope.reply_to is not None and envelope.kind in _ASKING:
            self._reply(envelope, Notice(what="refused", code=code, problem=problem), decided)
            decided.handled.append(delivery)
        else:
            decided.dead.append(Dead(delivery, code, problem))

    def _reply(self, envelope: Envelope, what: Notice, decided: Decided) -> None:
        if envelope.reply_to is not None:
            id = f"{envelope.id}.answer"
            decided.messages.append(notice(envelope.reply_to, envelope.subject, what, envelope.id, id, envelope.time))

    # finishing

    async def finish(self, consumer: Consumer, decided: Decided) -> None:
        """Send what was decided, then acknowledge.

        When the broker is away the deliveries stay unacknowledged and the outbox keeps the messages. Raises
        `BrokerUnavailable` or `StoreUnavailable` then.
        """
        if decided.parked:
            await self._store.park(decided.parked)
        if decided.messages:
            await self._broker.publish(decided.messages)
        for dead in decided.dead:
            await consumer.dead_letter(dead.delivery, dead.reason, dead.detail)
        if decided.handled:
            await consumer.ack(decided.handled)
        self._cleared.extend(decided.sent)

    async def flush(self) -> None:
        """Clear what was sent from the outbox, if no commit has done so."""
        cleared, self._cleared = self._cleared, []
        if not cleared:
            return
        try:
            await self._store.commit((), cleared)
        except BaseException:
            self._cleared.extend(cleared)
            raise


def _awaited(actor: Actor, letter: Letter) -> tuple[str, int]:
    """The saga name and version that a message must wait for: that of its saga, or the one it wants to start."""
    if actor.snapshot is not None:
        return actor.snapshot.saga, actor.snapshot.definition_version
    start = letter.content
    assert isinstance(start, Start)
    assert start.version is not None
    return start.saga, start.version


def _is_orphan(letter: Letter, snapshot: Snapshot) -> bool:
    """Whether a message tells of an effect of a saga that had this id, and is not the one that has it now."""
    another = isinstance(letter.content, Answered) and letter.content.incarnation != snapshot.incarnation
    return another and orphans.left_something(letter.envelope)


def _read_input(definition: Definition, content: Start) -> object:
    """The saga that a start asks for. Raises `DecodeError` naming the field."""
    return JSON.decode(content.input, definition.saga)
