"""Given a saga, expect what it asks for, and answer: the test of one saga, on the pure core alone.

    saga = given(PlaceOrder(order_id="1", sku="a", quantity=2, amount=30))
    saga.expect(ReserveStock(sku="a", quantity=2)).succeeds(StockReserved(reservation_id="r1"))
    saga.expect(ChargeCard(amount=30)).rejects(CardRefused())
    saga.expect_undo(ReleaseStock(reason="order cancelled")).undone()
    saga.expect_compensated()

Every message goes through its wire format, and every snapshot through its stored form, as in production.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic

from typing_extensions import TypeVar

from amends.contracts import (
    JSON,
    Command,
    Compensation,
    Duration,
    Envelope,
    Event,
    Failure,
    Kind,
    Rejection,
    Reply,
    ReplyOutcome,
    Signal,
)
from amends.contracts.payloads import Control, Done, Undo
from amends.coordinator.core import Policy, Transition, Verdict, encode_state, start, transition
from amends.coordinator.core.inputs import AnyInput, TimersFired
from amends.coordinator.core.journal import Entry
from amends.coordinator.core.snapshot import Phase, Snapshot, decode_snapshot, encode_snapshot
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.saga import Saga, definition_of
from amends.coordinator.testing.clock import VirtualClock
from amends.coordinator.wire import outgoing, read_input

S = TypeVar("S", bound=Saga)
R = TypeVar("R", bound="Reply | None")
X = TypeVar("X", bound=Rejection)


def given(saga: S, *, id: str = "saga-1", policy: Policy | None = None, clock: VirtualClock | None = None) -> Given[S]:
    """Start `saga` and see what it asks for."""
    return Given(saga, id, policy or Policy(), clock or VirtualClock())


class Expected(Generic[S]):
    """A message that was expected and has come; its answer is yours to give."""

    def __init__(self, saga: Given[S], envelope: Envelope) -> None:
        self._saga, self.envelope = saga, envelope

    def _answer(self, outcome: ReplyOutcome, payload: Any) -> Given[S]:
        return self._saga._reply(self.envelope, outcome, payload)

    def unanswered(self) -> Given[S]:
        """Leave it: the answer is lost, or takes long."""
        return self._saga


class ExpectedCommand(Expected[S], Generic[S, R, X]):
    """A command to answer as its participant would."""

    def succeeds(self, reply: R) -> Given[S]:
        """It was done, with this reply (None for a `Command[None]`)."""
        return self._answer(ReplyOutcome.DONE, Done() if reply is None else reply)

    def rejects(self, rejection: X) -> Given[S]:
        """A business "no": nothing was done."""
        return self._answer(ReplyOutcome.REJECTED, rejection)

    def fails(self, error: str = "RuntimeError", message: str = "") -> Given[S]:
        """An unexpected error, after the participant's own retries."""
        return self._answer(ReplyOutcome.FAILED, Failure(error, message))


class ExpectedUndo(Expected[S]):
    """An undo to answer as its participant would."""

    def undone(self) -> Given[S]:
        """It has been undone."""
        return self._answer(ReplyOutcome.UNDONE, Done())

    def nothing_to_undo(self) -> Given[S]:
        """The action had never happened, and now never will."""
        return self._answer(ReplyOutcome.CLOSED, Done())

    def fails(self, error: str = "RuntimeError", message: str = "") -> Given[S]:
        """The compensation raised, after the participant's own retries."""
        return self._answer(ReplyOutcome.UNDO_FAILED, Failure(error, message))


class ExpectedSettle(Expected[S]):
    """The question what became of a step, to answer as its participant would."""

    def done(self, reply: Reply | None) -> Given[S]:
        """It happened."""
        return self._answer(ReplyOutcome.DONE, Done() if reply is None else reply)

    def rejected(self, rejection: Rejection) -> Given[S]:
        return self._answer(ReplyOutcome.REJECTED, rejection)

    def closed(self) -> Given[S]:
        """It never happened, and now never will."""
        return self._answer(ReplyOutcome.CLOSED, Done())

    def in_doubt(self) -> Given[S]:
        """The participant cannot say."""
        return self._answer(ReplyOutcome.IN_DOUBT, Done())


class Given(Generic[S]):
    """One saga under test. What it asked for and was not expected yet is listed in every failed expectation."""

    def __init__(self, saga: S, id: str, policy: Policy, clock: VirtualClock) -> None:
        self.clock = clock
        self._policy = policy
        self._definition: Definition = definition_of(type(saga))
        self._asked: list[Envelope] = []
        self._unanswered: set[tuple[Kind, str | None]] = set()
        self._words = 0
        self._commits = 0
        self.journal: list[Entry] = []
        """Everything that has happened, as it would stand in the journal."""
        self._take(start(self._definition, id, encode_state(saga), clock.now(), self._next(), policy, cause="test"))

    def _next(self) -> str:
        self._commits += 1
        return f"test-{self._commits:x}"

    def _take(self, result: Transition) -> Verdict:
        if result.snapshot is not None and result.record is not None:
            # through the stored form, so that a state which would not survive a restart fails here
            self.snapshot: Snapshot = decode_snapshot(encode_snapshot(result.snapshot))
            self.journal.extend(result.record.entries)
        for message in outgoing(self.snapshot, result.effects, "test"):
            self._ask(message.envelope)
        return result.verdict

    def _ask(self, envelope: Envelope) -> None:
        """Note what is asked for. What is only sent again because no answer came is no news."""
        about = (envelope.kind, envelope.effect_key)
        if envelope.kind is Kind.NOTICE or (envelope.effect_key is not None and about in self._unanswered):
            return
        self._asked = [e for e in self._asked if e.effect_key is None or (e.kind, e.effect_key) != about]
        self._asked.append(envelope)

    def _apply(self, message: AnyInput) -> Verdict:
        return self._take(
            transition(self._definition, self.snapshot, message, self.clock.now(), self._next(), self._policy)
        )

    def _word(self, kind: Kind, type: str, data: bytes, **fields: Any) -> Verdict:
        self._words += 1
        envelope = Envelope(
            id=f"word-{self._words}",
            kind=kind,
            type=type,
            source="/test",
            subject=self.snapshot.id,
            time=self.clock.now(),
            data=data,
            **fields,
        )
        return self._apply(read_input(envelope))

    def _reply(self, asked: Envelope, outcome: ReplyOutcome, payload: Any) -> Given[S]:
        self._unanswered.discard((asked.kind, asked.effect_key))
        self._word(
            Kind.REPLY,
            type(payload).__tag__,
            JSON.encode(payload),
            effect_key=asked.effect_key,
            revision=asked.revision,
            attempt=asked.attempt,
            outcome=outcome,
        )
        return self

    # what it asks for

    def expect(self, command: Command[R, X]) -> ExpectedCommand[S, R, X]:
        """The saga has asked for exactly this command."""
        return ExpectedCommand(self, self._find(Kind.COMMAND, type(command).__tag__, JSON.encode(command), command))

    def expect_undo(self, undo: Compensation[Any]) -> ExpectedUndo[S]:
        """The saga has asked for exactly this compensation."""
        return ExpectedUndo(self, self._find(Kind.UNDO, type(undo).__tag__, JSON.encode(undo), undo))

    def expect_settle(self, step: str) -> ExpectedSettle[S]:
        """The saga has asked what became of this step."""
        for envelope in self._asked:
            if envelope.kind is Kind.SETTLE and (envelope.effect_key or "").endswith(f"/{step}#0"):
                return ExpectedSettle(self, self._seen(envelope))
        raise AssertionError(f"expected the question what became of {step!r}{self._instead()}")

    def expect_event(self, event: Event) -> Given[S]:
        """The saga has published exactly this event."""
        self._find(Kind.EVENT, type(event).__tag__, JSON.encode(event), event)
        return self

    def expect_nothing(self) -> Given[S]:
        """The saga asks for nothing (more)."""
        if self._asked:
            raise AssertionError(f"expected nothing more{self._instead()}")
        return self

    def _find(self, kind: Kind, tag: str, data: bytes, wanted: object) -> Envelope:
        for envelope in self._asked:
            if envelope.kind is kind and envelope.type == tag and _content(envelope) == data:
                return self._seen(envelope)
        raise AssertionError(f"expected {wanted!r}{self._instead()}")

    def _seen(self, envelope: Envelope) -> Envelope:
        self._asked.remove(envelope)
        self._unanswered.add((envelope.kind, envelope.effect_key))
        return envelope

    def _instead(self) -> str:
        asked = "".join(f"\n  {e.kind}: {e.type} {_content(e).decode(errors='replace')}" for e in self._asked)
        told = "".join(f"\n  {e.what} {e.step} {e.detail}".rstrip() for e in self.journal[-8:])
        return f"; open:{asked or ' nothing'}\nphase {self.snapshot.phase}; last in the journal:{told}"

    # what comes from outside

    def signal(self, signal: Signal) -> Given[S]:
        """Give it a signal. Raises `AssertionError` when nobody awaits such a thing."""
        return self._heard(self._word(Kind.SIGNAL, type(signal).__tag__, JSON.encode(signal)), signal)

    def event(self, event: Event) -> Given[S]:
        """Let a matching event reach it. Raises `AssertionError` when nobody awaits such a thing."""
        return self._heard(self._word(Kind.EVENT, type(event).__tag__, JSON.encode(event)), event)

    def _heard(self, verdict: Verdict, word: object) -> Given[S]:
        if verdict is Verdict.REFUSED:
            raise AssertionError(f"nobody awaits {word!r}{self._instead()}")
        return self

    def cancel(self, reason: str = "test") -> Given[S]:
        """Cancel it. Raises `AssertionError` when it is too late."""
        control = Control(action="cancel", reason=reason)
        if self._word(Kind.CONTROL, Control.__tag__, JSON.encode(control)) is Verdict.REFUSED:
            raise AssertionError(f"too late to cancel{self._instead()}")
        return self

    def control(self, control: Control) -> Verdict:
        """Any other word of an operator; gives the verdict on it."""
        return self._word(Kind.CONTROL, Control.__tag__, JSON.encode(control))

    def after(self, duration: Duration) -> Given[S]:
        """Let time pass; every timer that becomes due fires at its moment."""
        end = self.clock.now() + (duration if isinstance(duration, timedelta) else timedelta(seconds=duration))
        while (due := self.snapshot.wake_at) is not None and due <= end:
            self.clock.advance_to(due)
            self._words += 1
            self._apply(TimersFired(message_id=f"word-{self._words}", incarnation=self.snapshot.incarnation))
        self.clock.advance_to(end)
        return self

    # how it stands

    @property
    def state(self) -> S:
        """The saga with the values its handlers gave it."""
        saga: S = self._definition.decoder.decode(self.snapshot.state)
        return saga

    def expect_completed(self) -> Given[S]:
        return self._expect_phase(Phase.COMPLETED).expect_nothing()

    def expect_compensated(self) -> Given[S]:
        return self._expect_phase(Phase.COMPENSATED).expect_nothing()

    def expect_running(self) -> Given[S]:
        return self._expect_phase(Phase.RUNNING)

    def expect_stuck(self) -> Given[S]:
        if not self.snapshot.stuck:
            raise AssertionError(f"expected it to be stuck{self._instead()}")
        return self

    def _expect_phase(self, phase: Phase) -> Given[S]:
        if self.snapshot.phase is not phase:
            raise AssertionError(f"expected it to be {phase}{self._instead()}")
        return self


def _content(envelope: Envelope) -> bytes:
    """What a message says: of an undo, the compensation alone."""
    return bytes(JSON.decode(envelope.data, Undo).compensation) if envelope.kind is Kind.UNDO else envelope.data
