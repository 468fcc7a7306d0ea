"""A world whose store now and then forgets: one saga, participants that decide as real ones do, and lost commits.

The participants keep their records by amends' own decisions (`amends.participants.decisions`); only what their handlers
do is made up. What the store forgets, they remember. A store that is rolled back gets a new epoch, as Redis does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from msgspec import Struct
from tests.support.oracle import Did, Undid
from tests.support.worlds import Acted, Choose, Refused, Spec, World, one, recording, specs

from amends.contracts import Failure, ReplyOutcome
from amends.contracts.payloads import Done
from amends.coordinator.core import RunStatus, Transition, sign_of_loss
from amends.coordinator.core.effects import Effect, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import Answered, AnyInput, Cancel, Pause, Resume, RetryStep, Watch
from amends.coordinator.core.snapshot import Recording, decode_snapshot, encode_snapshot
from amends.participants import rows as inbox
from amends.participants.decisions import closing, opening

LEASE = timedelta(days=1)
STORED_NOWHERE_ELSE = ("local", "publish")
"""What takes effect with a commit alone is gone with it, or published: a participant cannot tell of it."""


class Sent(Struct, frozen=True, eq=False):
    """A message to a participant, and the commit that sent it."""

    asked: SendCommand | SendUndo | SendSettle
    version: int
    commit_id: str


def asking(choose: Choose) -> tuple[Spec, ...]:
    """A random saga all of whose effects are at participants."""
    made = specs(choose, faults=False)
    return tuple(
        Spec(spec.name, spec.kind, "ask" if spec.does in STORED_NOWHERE_ELSE else spec.does, spec.after, spec.timeout_s)
        if spec.kind != "neutral" or spec.does not in STORED_NOWHERE_ELSE
        else Spec(spec.name, spec.kind, "sleep", spec.after)
        for spec in made
    )


class ForgetfulWorld(World):
    """`roll_back` takes the store to an earlier commit. `orderly`, no message overtakes an undo of the same effect."""

    def __init__(self, choose: Choose, steps: tuple[Spec, ...], *, orderly: bool = True, **options: Any) -> None:
        self.epoch = "epoch-0"
        self.orderly = orderly
        self.inbox: dict[str, inbox.Row] = {}
        self.lost = 0
        self._handlers: dict[str, tuple[Sent, int]] = {}
        self._backups: list[bytes] = []
        super().__init__(choose, steps, **options)
        self._backups.append(encode_snapshot(self.snapshot))

    # the store

    @property
    def commits(self) -> int:
        """How many the store has."""
        return len(self._backups)

    def roll_back(self, lost: int | None = None) -> None:
        """Forget the latest commits: so many, or some, or none."""
        kept = len(self._backups) - (self.choose(len(self._backups)) if lost is None else lost)
        self.lost += len(self._backups) - kept
        del self._backups[kept:]
        self.snapshot = decode_snapshot(self._backups[-1])
        self.epoch = f"epoch-{int(self.epoch.rpartition('-')[2]) + 1}"

    def tell(self, message: AnyInput) -> Transition | None:
        noticed = sign_of_loss(self.deployed, self.snapshot, message, self.epoch)
        if noticed is not None:
            self._tell(noticed)
            assert sign_of_loss(self.deployed, self.snapshot, message, self.epoch) is None
        return self._tell(message)

    def _tell(self, message: AnyInput) -> Transition | None:
        result = super().tell(message)
        if result is not None and result.snapshot is not None:
            self._backups.append(encode_snapshot(result.snapshot))
        return result

    def _effect(self, effect: Effect) -> None:
        if isinstance(effect, SendCommand | SendUndo | SendSettle):
            made_by: Any = self.begun.snapshot if not hasattr(self, "snapshot") else self.snapshot
            self.transit.append(Sent(effect, made_by.version, made_by.commit_id))  # type: ignore[arg-type]

    # the participants

    def deliver(self, index: int = 0) -> None:
        message: Any = self.transit[index]
        if self.orderly and isinstance(message, Sent):
            index = next(i for i, other in enumerate(self.transit) if i == index or _undo_of(other, message))
            message = self.transit[index]
        if self.calm or self.choose(6) != 5:
            del self.transit[index]
        if isinstance(message, Sent):
            self._ask(message)
        else:
            self.tell(message)

    def _ask(self, sent: Sent) -> None:
        asked = sent.asked
        row, answer = opening(self.inbox.get(asked.run), self._request(asked), self.now, None)
        if row is not None:
            self.inbox[asked.run] = row
        match answer:
            case inbox.Claimed():
                self._perform(sent, answer.fence)
            case inbox.Answered():
                self._say(sent, answer)
            case inbox.Busy():
                self.transit.insert(0, sent)  # type: ignore[arg-type]

    def _request(self, asked: SendCommand | SendUndo | SendSettle) -> inbox.Opening:
        about: dict[str, Any] = {"effect_key": asked.run, "revision": asked.revision, "issued_at": asked.issued_at}
        if isinstance(asked, SendSettle):
            return inbox.Settle(**about)
        about |= {"attempt": asked.attempt, "owner": "one", "lease": LEASE, "command": _row(asked.command)}
        if isinstance(asked, SendUndo):
            return inbox.BeginUndo(**about, reply=_row(asked.reply))
        return inbox.Begin(**about, start_before=asked.not_after, transactional=True)

    def _perform(self, sent: Sent, fence: int) -> None:
        if not self.calm and self.choose(5) == 4:
            self._handlers[sent.asked.run] = (sent, fence)
        else:
            self._end(sent, fence)

    @property
    def running(self) -> list[str]:
        return list(self._handlers)

    def finish(self, run: str) -> None:
        self._end(*self._handlers.pop(run))

    def _end(self, sent: Sent, fence: int) -> None:
        asked = sent.asked
        step = asked.run.partition("#")[0]
        undo = isinstance(asked, SendUndo)
        outcomes = (
            ("undone", "undone", "undone", "undo-failed") if undo else ("done", "done", "done", "failed", "rejected")
        )
        outcome = ReplyOutcome(outcomes[0] if self.calm else one(self.choose, outcomes))
        said = {"done": Acted(step=step), "rejected": Refused(step=step), "undone": Done()}.get(outcome)
        finish = inbox.Finish(
            effect_key=asked.run,
            fence=fence,
            outcome=outcome,
            recording=_row(recording(said or Failure("Broken", "it"))),
        )
        row, answer = closing(self.inbox.get(asked.run), finish, self.now)
        if row is not None:
            self.inbox[asked.run] = row
            if outcome in (ReplyOutcome.DONE, ReplyOutcome.UNDONE):
                self.history.append(Undid(step) if undo else Did(step))
        if isinstance(answer, inbox.Answered) and (self.calm or self.choose(4) != 3):
            self._say(sent, answer)

    def _say(self, sent: Sent, answer: inbox.Answered) -> None:
        asked, said = sent.asked, answer.recording
        self.transit.append(
            Answered(
                message_id=self.word_id(),
                run=asked.run,
                incarnation=self.snapshot.incarnation,
                outcome=answer.outcome,
                recording=recording(Done()) if said is None else Recording(said.type, said.data, said.content_type),
                revision=asked.revision,
                attempt=asked.attempt,
                version=sent.version,
                commit_id=sent.commit_id,
            )
        )

    # how it goes

    def meddle(self) -> AnyInput:
        step = one(self.choose, self.steps).name
        words: list[Callable[[], AnyInput]] = [
            lambda: self.signal(step),
            lambda: self.news(step),
            lambda: Cancel(message_id=self.word_id(), reason="no more"),
            lambda: Watch(message_id=self.word_id(), reply_to="client:0"),
            lambda: Pause(message_id=self.word_id(), reason="wait"),
            lambda: Resume(message_id=self.word_id()),
            lambda: Resume(message_id=self.word_id()),
            lambda: RetryStep(message_id=self.word_id()),
        ]
        return one(self.choose, words)()

    def storm(self, rounds: int) -> None:
        """Let anything happen for a while, and the store forget some of it twice."""
        for _ in range(2):
            super().storm(self.choose(rounds))
            self.go_smoothly(self.choose(rounds), cancelled=bool(self.choose(2)))
            self.roll_back()
        super().storm(self.choose(rounds))

    def go_smoothly(self, rounds: int, *, cancelled: bool) -> None:
        """Everything arrives and is answered well for a while, so that no message is left to tell of it later."""
        self.calm = True
        self.tell(Resume(message_id=self.word_id()))
        if cancelled:
            self.tell(Cancel(message_id=self.word_id(), reason="no more"))
        for _ in range(rounds):
            if self.running:
                self.finish(self.running[0])
            elif self.transit:
                self.deliver()
            elif not self._help() and self.snapshot.wake_at is not None:
                self.fire()
        self.calm = False

    def _help(self) -> bool:
        for run in self.snapshot.runs.values():
            if run.stuck_on == "check" and run.key in self._retried:
                self.tell(Cancel(message_id=self.word_id(), reason="nobody knows"))
                return True
            if run.status is RunStatus.CHECKING and not self.snapshot.paused:
                return False  # its timer asks again; words for a pivot would only be kept
        return super()._help()


def _undo_of(other: Any, message: Sent) -> bool:
    return isinstance(other, Sent) and isinstance(other.asked, SendUndo) and other.asked.run == message.asked.run


def _row(said: Recording | None) -> Any:
    return None if said is None else inbox.Recording(said.type, said.data, said.content_type)
