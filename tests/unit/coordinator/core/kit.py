"""What the tests of the core share: a few contracts, and `Play`, which drives one saga input by input."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from amends.contracts import (
    JSON,
    Command,
    Compensation,
    Event,
    Failure,
    Message,
    Rejection,
    Reply,
    ReplyOutcome,
    Signal,
)
from amends.contracts.payloads import Done, Notice
from amends.coordinator import Saga
from amends.coordinator.core import (
    Phase,
    Policy,
    RunStatus,
    Snapshot,
    Transition,
    Verdict,
    encode_state,
    start,
    transition,
)
from amends.coordinator.core.effects import Effect, Notify, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import (
    Answered,
    AnyInput,
    Cancel,
    EventReceived,
    Pause,
    ResolveStep,
    Resume,
    RetryStep,
    RolledBack,
    SignalReceived,
    SkipStep,
    TimersFired,
)
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Recording, StepRun, decode_snapshot, encode_snapshot
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.retry import Retry

T0 = datetime(2026, 1, 1, tzinfo=UTC)

POLICY = Policy(
    command_ttl=timedelta(seconds=100),
    resend=Retry(attempts=None, delay=10, max_delay=40, jitter=0),
    retry=Retry(attempts=3, delay=1, jitter=0),
    retriable=Retry(attempts=None, delay=1, jitter=0),
    undo_retry=Retry(attempts=3, delay=1, jitter=0),
    settle_retry=Retry(attempts=3, delay=1, jitter=0),
    buffer_limit=3,
)
"""Waits without jitter, so that tests can say when something is due."""


class Reserved(Reply):
    number: int = 1


class SoldOut(Rejection):
    left: int = 0


class Reserve(Command[Reserved, SoldOut], service="stock"):
    item: str = "lamp"


class Release(Compensation[Reserve]):
    item: str = "lamp"


class Packed(Reply):
    pass


class Pack(Command[Packed], service="stock"):
    """Names no rejection: it may be refused with any."""


class Unpack(Compensation[Pack]):
    pass


class Charged(Reply):
    receipt: str = "r1"


class Declined(Rejection):
    reason: str = "no money"


class Charge(Command[Charged, Declined], service="bank"):
    amount: int = 10


class Rated(Reply):
    pass


class Rate(Command[Rated], service="rating"):
    pass


class NoRoute(Rejection):
    pass


class Ship(Command[None, NoRoute], service="post"):
    pass


class Paid(Event):
    order: str
    amount: int = 0


class Placed(Event):
    order: str


class Approve(Signal):
    by: str = "ada"


def recording(message: Message | Failure | Done) -> Recording:
    return Recording(type(message).__tag__, JSON.encode(message))


_SAID: dict[ReplyOutcome, Message | Failure | Done] = {
    ReplyOutcome.FAILED: Failure("Broken", "it broke"),
    ReplyOutcome.UNDO_FAILED: Failure("Broken", "it broke"),
}


class Play:
    """One saga on the core, told one input after the other.

    Every snapshot goes through its stored form. `verdict`, `detail`, `effects` and `entries` are those of the last
    transition. Answers are to the last message about their run, unless told otherwise.
    """

    def __init__(self, saga: Saga, *, policy: Policy = POLICY, reply_to: str | None = None) -> None:
        self.policy, self.now = policy, T0
        self.definition: Definition = definition_of(type(saga))
        self._commits = self._words = 0
        self.all_entries: list[tuple[What, str]] = []
        begun = start(
            self.definition,
            "order-1",
            encode_state(saga),
            T0,
            self._commit_id(),
            policy,
            cause="start-1",
            reply_to=reply_to,
        )
        assert begun.snapshot is not None
        self.snapshot: Snapshot = begun.snapshot
        self._take(begun)

    def _commit_id(self) -> str:
        self._commits += 1
        return f"commit-{self._commits}"

    def _take(self, result: Transition) -> Transition:
        self.result = result
        self.verdict, self.detail = result.verdict, result.detail
        self.effects: tuple[Effect, ...] = result.effects
        self.entries = () if result.record is None else result.record.entries
        self.all_entries += [(entry.what, entry.step) for entry in self.entries]
        if result.snapshot is not None:
            self.snapshot = decode_snapshot(encode_snapshot(result.snapshot))
            assert self.snapshot == result.snapshot
        return result

    def tell(self, message: AnyInput) -> Verdict:
        return self._take(
            transition(self.definition, self.snapshot, message, self.now, self._commit_id(), self.policy)
        ).verdict

    def id(self) -> str:
        self._words += 1
        return f"word-{self._words}"

    # time

    def wait(self, seconds: float) -> Play:
        """Time passes; nothing fires by itself."""
        self.now += timedelta(seconds=seconds)
        return self

    def fire(self) -> Verdict:
        """The saga's timers fire, now."""
        return self.tell(TimersFired(message_id=self.id(), incarnation=self.snapshot.incarnation))

    def fire_next(self) -> Verdict:
        """Time passes until something is due, and the timers fire."""
        assert self.snapshot.wake_at is not None, "nothing is due"
        self.now = max(self.now, self.snapshot.wake_at)
        return self.fire()

    @property
    def due_s(self) -> float | None:
        """In how many seconds from now something is due."""
        return None if self.snapshot.wake_at is None else (self.snapshot.wake_at - self.now).total_seconds()

    # participants

    def answer(
        self,
        step: str,
        outcome: ReplyOutcome,
        said: Message | Failure | Done | Recording | None = None,
        *,
        attempt: int | None = None,
        revision: int | None = None,
        incarnation: str | None = None,
    ) -> Verdict:
        run = self.snapshot.runs.get(f"{step}#0")
        said = said or _SAID.get(outcome, Done())
        return self.tell(
            Answered(
                message_id=self.id(),
                run=f"{step}#0",
                incarnation=incarnation or self.snapshot.incarnation,
                outcome=outcome,
                recording=said if isinstance(said, Recording) else recording(said),
                revision=(run.revision if run else 0) if revision is None else revision,
                attempt=(run.sent if run else 1) if attempt is None else attempt,
            )
        )

    def done(self, step: str, reply: Message | Done | Recording | None = None, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.DONE, reply, **about)

    def rejected(self, step: str, rejection: Message, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.REJECTED, rejection, **about)

    def failed(self, step: str, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.FAILED, **about)

    def closed(self, step: str, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.CLOSED, **about)

    def in_doubt(self, step: str, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.IN_DOUBT, **about)

    def undone(self, step: str, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.UNDONE, **about)

    def undo_failed(self, step: str, **about: Any) -> Verdict:
        return self.answer(step, ReplyOutcome.UNDO_FAILED, **about)

    # words

    def signal(self, signal: Signal | Recording, *, id: str | None = None, reply_to: str | None = None) -> Verdict:
        said = signal if isinstance(signal, Recording) else recording(signal)
        return self.tell(SignalReceived(message_id=id or self.id(), recording=said, reply_to=reply_to))

    def event(self, event: Event | Recording, *, id: str | None = None) -> Verdict:
        said = event if isinstance(event, Recording) else recording(event)
        return self.tell(EventReceived(message_id=id or self.id(), recording=said))

    def cancel(self, reason: str = "no more", *, id: str | None = None, reply_to: str | None = None) -> Verdict:
        return self.tell(Cancel(message_id=id or self.id(), reason=reason, by="ada", reply_to=reply_to))

    def pause(self, *, id: str | None = None) -> Verdict:
        return self.tell(Pause(message_id=id or self.id(), reason="look", by="ada"))

    def resume(self, *, id: str | None = None) -> Verdict:
        return self.tell(Resume(message_id=id or self.id(), by="ada"))

    def retry(self, step: str | None = None, *, version: int | None = None, id: str | None = None) -> Verdict:
        return self.tell(RetryStep(message_id=id or self.id(), step=step, by="ada", expected_version=version))

    def skip(self, step: str, *, version: int | None = None) -> Verdict:
        return self.tell(
            SkipStep(message_id=self.id(), step=step, reason="never mind", by="ada", expected_version=version)
        )

    def forward(self, step: str, reply: Message | Recording | None = None, *, version: int | None = None) -> Verdict:
        said = reply if isinstance(reply, Recording | None) else recording(reply)
        return self.tell(
            ResolveStep(
                message_id=self.id(),
                step=step,
                direction="forward",
                reason="I saw it",
                reply=said,
                by="ada",
                expected_version=version,
            )
        )

    def back(self, step: str, *, version: int | None = None) -> Verdict:
        return self.tell(
            ResolveStep(
                message_id=self.id(), step=step, direction="back", reason="I saw", by="ada", expected_version=version
            )
        )

    # the store

    def roll_back(self, to: Snapshot | None = None, *, epoch: str = "new") -> Verdict:
        """The store is as it was at `to` (or has lost nothing), in another life; the next message shows it."""
        self.snapshot = to or self.snapshot
        return self.tell(RolledBack(message_id=self.id(), why="it was failed over", epoch=epoch))

    # what is to be seen

    def run(self, step: str) -> StepRun:
        return self.snapshot.runs[f"{step}#0"]

    def phase(self) -> Phase:
        return self.snapshot.phase

    def problem(self, step: str) -> str:
        """What the failure of a step says."""
        failure = self.run(step).failure
        assert failure is not None
        return failure.message

    @property
    def statuses(self) -> dict[str, RunStatus]:
        return {run.step: run.status for run in self.snapshot.runs.values()}

    @property
    def state(self) -> Any:
        return self.definition.decoder.decode(self.snapshot.state)

    @property
    def sent(self) -> list[str]:
        """What the last transition sent to participants, as `ask reserve`, `undo reserve`, `settle reserve`."""
        verbs: Sequence[tuple[type[SendCommand | SendUndo | SendSettle], str]] = (
            (SendCommand, "ask"),
            (SendUndo, "undo"),
            (SendSettle, "settle"),
        )
        return [
            f"{verb} {effect.run.partition('#')[0]}"
            for effect in self.effects
            for kind, verb in verbs
            if isinstance(effect, kind)
        ]

    def effect(self, kind: type[Effect]) -> Any:
        """The one effect of this kind of the last transition."""
        (found,) = [effect for effect in self.effects if isinstance(effect, kind)]
        return found

    @property
    def notice(self) -> Notice:
        """The one notice of the last transition."""
        (found,) = [effect.notice for effect in self.effects if isinstance(effect, Notify)]
        return found

    @property
    def told(self) -> list[What]:
        """What the journal says of the last transition."""
        return [entry.what for entry in self.entries]
