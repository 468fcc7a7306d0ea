"""A world around one saga on the pure core: participants that keep the protocol, and a network that keeps no order.

Participants have an idempotent inbox by effect: what was done, rejected or closed is said again, an undo without its
action closes it, a settle gets a final answer or "in doubt". Whether an action succeeds, is refused, fails before or
after it took effect, hangs, or loses its answer is up to `Choose`. The network loses no message for ever, but delays,
reorders and duplicates all of them, timers included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from msgspec import Struct
from tests.support.oracle import Did, Graph, Mark, Node, Undid, ancestors

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
    TerminalError,
)
from amends.contracts.payloads import Done
from amends.coordinator.core import (
    Phase,
    Policy,
    RunStatus,
    Snapshot,
    Transition,
    Verdict,
    encode_state,
    interests,
    start,
    transition,
)
from amends.coordinator.core.effects import Effect, PublishEvent, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import (
    Answered,
    AnyInput,
    Cancel,
    EventReceived,
    Pause,
    ResolveStep,
    Resume,
    RetryStep,
    SignalReceived,
    SkipStep,
    TimersFired,
    Watch,
)
from amends.coordinator.core.snapshot import Recording, decode_snapshot, encode_snapshot
from amends.coordinator.declaration.definition import Definition, Plan, StepKind
from amends.coordinator.declaration.results import Publish, Skip, Sleep, WaitFor
from amends.coordinator.declaration.saga import Saga
from amends.coordinator.retry import Retry

T = TypeVar("T")

T0 = datetime(2026, 1, 1, tzinfo=UTC)

Choose = Callable[[int], int]
"""Decides all that is left open: gives a number from 0 to below `n`. Lower numbers should be the plainer choices."""


def one(choose: Choose, options: Sequence[T]) -> T:
    return options[choose(len(options))]


# what the services of the world say to each other


class Acted(Reply):
    step: str


class Refused(Rejection):
    step: str


class Act(Command[Acted, Refused], service="world"):
    step: str


class Unact(Compensation[Act]):
    step: str


class Happened(Event):
    step: str
    undone: bool = False


class News(Event):
    of: str


class Word(Signal):
    of: str


class Journey(Saga, abstract=True):
    """The state of every random saga: what its local steps did, and which answers it was given."""

    marks: list[str] = []
    told: list[str] = []


# random sagas


Does = Literal["ask", "event", "signal", "sleep", "publish", "local", "skip"]


class Spec(Struct, frozen=True):
    """One step of a random saga. `raises` names the methods that raise until the saga's code is mended."""

    name: str
    kind: StepKind
    does: Does = "ask"
    after: tuple[str, ...] = ()
    timeout_s: float | None = None
    attempts: int | None = None
    raises: frozenset[str] = frozenset()


POLICY = Policy(
    command_ttl=timedelta(seconds=60),
    resend=Retry(attempts=None, delay=10, max_delay=40),
    retry=Retry(attempts=2, delay=1),
    retriable=Retry(attempts=4, delay=1, max_delay=20),
    undo_retry=Retry(attempts=3, delay=1),
    settle_retry=Retry(attempts=3, delay=1),
    buffer_limit=5,
)

_DOES: dict[StepKind, tuple[Does, ...]] = {
    StepKind.COMPENSATABLE: ("ask", "ask", "ask", "ask", "publish", "local", "skip"),
    StepKind.PIVOT: ("ask", "ask", "ask", "ask", "ask", "signal", "local", "skip"),
    StepKind.RETRIABLE: ("ask", "ask", "ask", "event", "skip"),
    StepKind.READONLY: ("ask",),
    StepKind.NEUTRAL: ("signal", "event", "sleep", "publish", "local", "skip"),
}


def specs(choose: Choose, *, most: int = 7, faults: bool = True) -> tuple[Spec, ...]:
    """A random legal saga of 1 to `most` steps."""
    names = [f"s{number}" for number in range(1 + choose(most))]
    after = {name: _after(choose, names[:number]) for number, name in enumerate(names)}
    pivot = one(choose, [names[-1], *names, None])
    graph = {name: Node("neutral", before) for name, before in after.items()}
    if pivot is not None and choose(3):
        # a pivot that nothing else runs beside is the common case
        after[pivot] = tuple(names[: names.index(pivot)])
        graph[pivot] = Node("pivot", after[pivot])
    above = {name: ancestors(graph, name) for name in names}
    made = []
    for name in names:
        kind = one(choose, _kinds(name, pivot, above))
        does = one(choose, _DOES[kind])
        waits = does in ("ask", "event", "signal")
        methods = ("act", "on_success", "compensation") if kind is StepKind.COMPENSATABLE else ("act", "on_success")
        made.append(
            Spec(
                name=name,
                kind=kind,
                does=does,
                after=after[name],
                timeout_s=one(choose, (None, None, 30.0, 120.0, 3.0)) if waits else None,
                attempts=one(choose, (None, None, 1, 3)) if does == "ask" else None,
                raises=frozenset({one(choose, methods)}) if faults and choose(12) == 11 else frozenset(),
            )
        )
    return tuple(made)


def _after(choose: Choose, earlier: list[str]) -> tuple[str, ...]:
    if not earlier:
        return ()
    match choose(4):
        case 0:
            return (earlier[-1],)
        case 1:
            return ()
        case 2:
            return tuple(earlier)
        case _:
            return tuple(name for name in earlier if choose(2))


def _kinds(name: str, pivot: str | None, above: dict[str, frozenset[str]]) -> tuple[StepKind, ...]:
    if name == pivot:
        return (StepKind.PIVOT,)
    if pivot is None or name in above[pivot]:
        return (*3 * (StepKind.COMPENSATABLE,), StepKind.READONLY, StepKind.NEUTRAL)
    if pivot in above[name]:
        return (*3 * (StepKind.RETRIABLE,), StepKind.READONLY, StepKind.NEUTRAL)
    return (StepKind.READONLY, StepKind.NEUTRAL)


def graph_of(steps: Sequence[Spec]) -> Graph:
    """The steps as the oracle sees them."""
    marks = ("ask", "publish", "local")
    return {spec.name: Node(spec.kind.value, spec.after, effect=spec.does in marks) for spec in steps}


def definition_of(steps: Sequence[Spec], *, deadline_s: float | None = None, mended: bool = False) -> Definition:
    """The saga of these steps; `mended`, none of its methods raises."""
    graph = graph_of(steps)
    above = {name: ancestors(graph, name) for name in graph}
    plans = {}
    for spec in steps:
        below = frozenset(name for name in graph if spec.name in above[name])
        raises = frozenset() if mended else spec.raises
        plans[spec.name] = _plan(spec, raises, above[spec.name], below)
    return Definition(
        name="journey",
        version=1,
        shape=f"journey of {len(plans)}",
        saga=Journey,
        steps=plans,
        pivot=next((plan for plan in plans.values() if plan.kind is StepKind.PIVOT), None),
        deadline=None if deadline_s is None else timedelta(seconds=deadline_s),
    )


_LOCAL = ("local", "publish")
"""What takes effect with the commit itself; the state keeps the order."""


def _plan(spec: Spec, raises: frozenset[str], above: frozenset[str], below: frozenset[str]) -> Plan:
    name = spec.name

    def fail_if(method: str) -> None:
        if method in raises:
            raise ZeroDivisionError(f"{method} of {name}")

    def act(saga: Journey) -> Any:
        saga.marks.append(f"did {name}")
        fail_if("act")
        if spec.does not in _LOCAL:
            saga.marks.pop()
        match spec.does:
            case "ask":
                return Act(step=name)
            case "event":
                return WaitFor(News, where={"of": name})
            case "signal":
                return WaitFor(Word)
            case "sleep":
                return Sleep(7)
            case "publish":
                return Publish(Happened(step=name))
            case "local":
                return None
            case "skip":
                return Skip("not this time")

    def on_success(saga: Journey, answer: Any) -> None:
        saga.told.append(name)
        fail_if("on_success")

    def compensation(saga: Journey) -> Any:
        saga.marks.append(f"undid {name}")
        fail_if("compensation")
        if spec.does not in _LOCAL:
            saga.marks.pop()
        if spec.does == "publish":
            return Publish(Happened(step=name, undone=True))
        return Unact(step=name) if spec.does == "ask" else None

    asks, undone = spec.does == "ask", spec.kind is StepKind.COMPENSATABLE
    return Plan(
        name=name,
        kind=spec.kind,
        act=act,
        after=spec.after,
        timeout=None if spec.timeout_s is None else timedelta(seconds=spec.timeout_s),
        retry=None if spec.attempts is None else Retry(attempts=spec.attempts, delay=1),
        on_success=on_success if spec.does in ("ask", "event", "signal") else None,
        compensation=compensation if undone else None,
        returns=(Act, WaitFor, Sleep, Publish, Skip),
        optional=True,
        commands=(Act,) if asks else (),
        undos=(Unact,) if asks and undone else (),
        replies={Acted.__tag__: Acted} if asks else {},
        rejections={Refused.__tag__: Refused} if asks else {},
        awaits={News.__tag__: News} if spec.does == "event" else {Word.__tag__: Word} if spec.does == "signal" else {},
        ancestors=above,
        descendants=below,
    )


# the participants


class Row(Struct):
    """What a participant knows of one effect.

    `attempt` is that of the last claim; `doubts` counts how often a settle will still get no answer.
    """

    status: Literal["running", "done", "rejected", "failed", "closed", "undo-failed", "undone"]
    attempt: int = 0
    happened: bool = False
    doubts: int = 0


def recording(message: Message | Failure | Done) -> Recording:
    return Recording(type(message).__tag__, JSON.encode(message))


Asked = SendCommand | SendUndo | SendSettle


class Happening(Struct, frozen=True):
    """One input and what came of it.

    `stored` is the snapshot as it was stored, `before` the same as it was given to the core. `definition` is the code
    that was deployed then.
    """

    stored: bytes
    before: Snapshot
    after: Snapshot
    definition: Definition
    message: AnyInput
    now: datetime
    commit_id: str
    result: Transition


Watcher = Callable[["World", Happening], None]


class World:
    """One saga, its participants and what is in flight between them.

    Each of `watchers` sees every happening. `fates` says what becomes of a step's action where that is not left to
    `choose`. While it is `calm`, participants answer at once and well, and nothing is repeated.
    """

    def __init__(
        self,
        choose: Choose,
        steps: Sequence[Spec],
        *,
        deadline_s: float | None = None,
        policy: Policy = POLICY,
        watchers: Sequence[Watcher] = (),
        fates: Mapping[str, str] | None = None,
    ) -> None:
        self.choose, self.steps, self.policy, self.watchers = choose, steps, policy, watchers
        self.fates = fates or {}
        self.graph = graph_of(steps)
        self.deployed = definition_of(steps, deadline_s=deadline_s)
        self._mistaken = self.deployed
        self._mended = definition_of(steps, deadline_s=deadline_s, mended=True)
        self.now = T0
        self.calm = False
        self.rows: dict[str, Row] = {}
        self.transit: list[Asked | AnyInput] = []
        self.history: list[Mark] = []
        self.published: list[Mark] = []
        self.happenings: list[Happening] = []
        self.applied: list[AnyInput] = []
        self.complaints: list[str] = []
        self._running: dict[str, SendCommand] = {}
        self._retried: set[str] = set()
        self._commits = self._words = 0
        self.begun = self.begin(self._commit_id())
        assert self.begun.snapshot is not None
        self.snapshot = self.begun.snapshot
        self._carry_out(None, self.begun)

    def _commit_id(self) -> str:
        self._commits += 1
        return f"c{self._commits}"

    def word_id(self) -> str:
        self._words += 1
        return f"w{self._words}"

    # the saga

    def begin(self, commit_id: str = "c1") -> Transition:
        """The transition that started the saga."""
        state = encode_state(Journey())
        return start(self._mistaken, "journey-1", state, T0, commit_id, self.policy, cause="test")

    def tell(self, message: AnyInput) -> Transition | None:
        """Give the saga an input, through the stored form of its snapshot. None if the input could not be read."""
        stored = encode_snapshot(self.snapshot)
        before = decode_snapshot(stored)
        commit_id, now = self._commit_id(), self.now
        if not self.calm and self.choose(8) == 7:
            now -= timedelta(seconds=self.choose(50))  # a store that was failed over may be behind
        try:
            result = transition(self.deployed, before, message, now, commit_id, self.policy)
        except TerminalError:
            assert encode_snapshot(before) == stored
            return None
        self.snapshot = result.snapshot or self.snapshot
        if result.verdict is Verdict.APPLIED:
            self.applied.append(message)
        self._carry_out(before, result)
        happening = Happening(stored, before, self.snapshot, self.deployed, message, now, commit_id, result)
        self.happenings.append(happening)
        for watcher in self.watchers:
            watcher(self, happening)
        interests(self.deployed, self.snapshot, self.policy)
        return result

    def mend(self) -> None:
        """Deploy the saga without its mistakes."""
        self.deployed = self._mended

    def _carry_out(self, before: Snapshot | None, result: Transition) -> None:
        for effect in result.effects:
            self._effect(effect)
        known = len(self._marks(before)) if before is not None else 0
        for mark in self._marks(self.snapshot)[known:]:
            verb, step = mark.split()
            self.history.append(Did(step) if verb == "did" else Undid(step))

    def _marks(self, snapshot: Snapshot) -> list[str]:
        journey: Journey = self.deployed.decoder.decode(snapshot.state)
        return journey.marks

    def _effect(self, effect: Effect) -> None:
        match effect:
            case SendCommand() | SendUndo() | SendSettle():
                self.transit.append(effect)
            case PublishEvent():
                happened = JSON.decode(effect.event.data, Happened)
                self.published.append(Undid(happened.step) if happened.undone else Did(happened.step))

    # the network

    def deliver(self, index: int = 0) -> None:
        """Let one message arrive."""
        again = not self.calm and self.choose(6) == 5
        message = self.transit[index] if again else self.transit.pop(index)
        match message:
            case SendCommand() | SendUndo() | SendSettle():
                self.serve(message)
            case _:
                self.tell(message)

    def fire(self, *, late_s: float = 0) -> None:
        """Let time pass until something is due, and send the saga its timer."""
        if self.snapshot.wake_at is not None:
            self.now = max(self.now, self.snapshot.wake_at) + timedelta(seconds=late_s)
        self.transit.append(TimersFired(message_id=self.word_id(), incarnation=self.snapshot.incarnation))

    # the participants

    def serve(self, asked: Asked) -> None:
        """A participant handles what it is asked."""
        match asked:
            case SendCommand():
                self._serve_command(asked)
            case SendUndo():
                self._serve_undo(asked)
            case SendSettle():
                self._serve_settle(asked)

    def _answer(self, asked: Asked, outcome: ReplyOutcome, attempt: int | None = None) -> None:
        match outcome:
            case ReplyOutcome.DONE:
                said = recording(Acted(step=_step(asked.run)))
            case ReplyOutcome.REJECTED:
                said = recording(Refused(step=_step(asked.run)))
            case ReplyOutcome.FAILED | ReplyOutcome.UNDO_FAILED:
                said = recording(Failure("Broken", "it broke"))
            case _:
                said = recording(Done())
        attempt = asked.attempt if attempt is None else attempt
        self.transit.append(
            Answered(
                message_id=f"{asked.run} {type(asked).__name__} {attempt} {outcome}",
                run=asked.run,
                incarnation=self.snapshot.incarnation,
                outcome=outcome,
                recording=said,
                revision=asked.revision,
                attempt=attempt,
            )
        )

    def _serve_command(self, asked: SendCommand) -> None:
        row = self.rows.get(asked.run)
        if row is None or (row.status == "failed" and asked.attempt > row.attempt):
            if self.now <= asked.not_after:
                self._act(asked, row or Row("running"))
            return
        match row.status:
            case "running":
                self.transit.append(asked)
            case "done":
                self._answer(asked, ReplyOutcome.DONE)
            case "rejected":
                self._answer(asked, ReplyOutcome.REJECTED)
            case "failed":
                self._answer(asked, ReplyOutcome.FAILED)
            case "closed":
                self._answer(asked, ReplyOutcome.CLOSED)
            case "undo-failed":
                self._answer(asked, ReplyOutcome.IN_DOUBT)
            case "undone":
                self._answer(asked, ReplyOutcome.UNDONE)

    def _act(self, asked: SendCommand, row: Row) -> None:
        self.rows[asked.run] = row
        row.attempt = asked.attempt
        if fate := self.fates.get(_step(asked.run), "done" if self.calm else ""):
            self._finish(asked, row, fate)
            return
        fates = ["done", "done", "done", "unsaid", "running", "rejected", "failed", "broken off", "doubtful", "lost"]
        if row.happened:
            fates.remove("rejected")
        self._finish(asked, row, one(self.choose, fates))

    def _finish(self, asked: SendCommand, row: Row, fate: str) -> None:
        match fate:
            case "done" | "unsaid":
                self._happen(asked.run, row)
                row.status = "done"
                if fate == "done":
                    self._answer(asked, ReplyOutcome.DONE)
            case "running":
                row.status = "running"
                self._running[asked.run] = asked
            case "rejected":
                row.status = "rejected"
                self._answer(asked, ReplyOutcome.REJECTED)
            case "lost":
                row.status, row.doubts = "failed", 1
                self._answer(asked, ReplyOutcome.IN_DOUBT)
            case "failed" | "broken off" | "doubtful":
                if fate != "failed":
                    self._happen(asked.run, row)
                row.status, row.doubts = "failed", 5 if fate == "doubtful" else self.choose(2)
                self._answer(asked, ReplyOutcome.FAILED)

    def _happen(self, run: str, row: Row) -> None:
        if not row.happened:
            row.happened = True
            self.history.append(Did(_step(run)))

    @property
    def running(self) -> list[str]:
        """The runs whose action hangs at its participant."""
        return [run for run, row in self.rows.items() if row.status == "running"]

    def finish(self, run: str) -> None:
        """An action that hung comes to its end."""
        row = self.rows[run]
        fates = ["done", "failed", "broken off"] if row.happened else ["done", "rejected", "failed", "broken off"]
        self._finish(self._running.pop(run), row, "done" if self.calm else one(self.choose, fates))

    def _serve_undo(self, asked: SendUndo) -> None:
        row = self.rows.setdefault(asked.run, Row("closed"))
        match row.status:
            case "closed" | "rejected":
                if asked.reply is not None:
                    self.complaints.append(f"{asked.run} never happened, and yet its undo carries a reply")
                row.status = "closed"
                self._answer(asked, ReplyOutcome.CLOSED)
            case "running":
                self.transit.append(asked)
            case "undone":
                self._answer(asked, ReplyOutcome.UNDONE)
            case "undo-failed" if asked.attempt <= row.attempt:
                self._answer(asked, ReplyOutcome.UNDO_FAILED)
            case _:
                row.attempt = asked.attempt
                fate = "undone" if self.calm else one(self.choose, ("undone", "undone", "unsaid", "undo-failed"))
                if fate == "undo-failed":
                    row.status = "undo-failed"
                    self._answer(asked, ReplyOutcome.UNDO_FAILED)
                    return
                row.status = "undone"
                if row.happened:
                    self.history.append(Undid(_step(asked.run)))
                if fate == "undone":
                    self._answer(asked, ReplyOutcome.UNDONE)

    def _serve_settle(self, asked: SendSettle) -> None:
        row = self.rows.setdefault(asked.run, Row("closed"))
        if row.status == "running" or (row.status == "failed" and row.doubts):
            row.doubts = 0 if self.calm else max(0, row.doubts - 1)
            self._answer(asked, ReplyOutcome.IN_DOUBT)
            return
        match row.status:
            case "failed" | "done":
                row.status = "done" if row.happened else "closed"
                self._answer(asked, ReplyOutcome.DONE if row.happened else ReplyOutcome.CLOSED)
            case "rejected" | "closed":
                self._answer(asked, ReplyOutcome.REJECTED if row.status == "rejected" else ReplyOutcome.CLOSED)
                row.status = "closed"
            case _:
                self.complaints.append(f"{asked.run} is {row.status}, and yet it is to be settled")

    # words from outside

    def signal(self, step: str) -> SignalReceived:
        return SignalReceived(message_id=self.word_id(), recording=recording(Word(of=step)))

    def news(self, step: str) -> EventReceived:
        return EventReceived(message_id=self.word_id(), recording=recording(News(of=step)))

    def meddle(self) -> AnyInput:
        """A word that somebody may say at any time."""
        step = one(self.choose, self.steps).name
        seen = self.snapshot.version - self.choose(2) if self.choose(2) else None
        words: list[Callable[[], AnyInput]] = [
            lambda: self.signal(step),
            lambda: self.news(step),
            lambda: Watch(message_id=self.word_id(), reply_to=f"client:{self.choose(3)}"),
            lambda: Cancel(message_id=self.word_id(), reason="no more", reply_to="client:0"),
            lambda: Pause(message_id=self.word_id(), reason="wait"),
            lambda: Resume(message_id=self.word_id()),
            lambda: Resume(message_id=self.word_id()),
            lambda: RetryStep(message_id=self.word_id(), step=one(self.choose, (None, step)), expected_version=seen),
            lambda: self.resolution(step, seen) or Resume(message_id=self.word_id()),
            lambda: SkipStep(message_id=self.word_id(), step=step, reason="leave it", expected_version=seen),
            lambda: EventReceived(message_id=self.word_id(), recording=Recording(News.__tag__, b"not json")),
        ]
        return one(self.choose, words)()

    def resolution(self, step: str, seen: int | None = None) -> ResolveStep | None:
        """What an honest operator says became of a step, after a look at the participant; None if that is unclear."""
        run = f"{step}#0"
        row = self.rows.get(run)
        if row is None or row.status in ("closed", "rejected") or (row.status == "failed" and not row.happened):
            status = self.snapshot.runs[run].status if run in self.snapshot.runs else None
            if status is not RunStatus.STUCK or self.snapshot.runs[run].stuck_on != "outcome":
                return None
            self.rows[run] = Row("closed")  # the operator sees to it that it stays so
            return ResolveStep(
                message_id=self.word_id(), step=step, direction="back", reason="seen", expected_version=seen
            )
        if row.status in ("done", "failed"):
            reply = recording(Acted(step=step))
            row.status = "done"
            return ResolveStep(
                message_id=self.word_id(),
                step=step,
                direction="forward",
                reason="seen",
                reply=reply,
                expected_version=seen,
            )
        return None

    # how it goes

    def storm(self, rounds: int) -> None:
        """Let anything happen for a while."""
        for _ in range(rounds):
            moves: list[Callable[[], None]] = []
            if self.transit:
                moves += 4 * [lambda: self.deliver(self.choose(len(self.transit)))]
            if self.snapshot.wake_at is not None:
                moves += 2 * [lambda: self.fire(late_s=one(self.choose, (0, 0, 1, 100)))]
            if self.running:
                moves.append(lambda: self.finish(one(self.choose, self.running)))
            moves.append(lambda: self.transit.append(self.meddle()))
            if self.applied:
                moves.append(lambda: self.transit.append(one(self.choose, self.applied)))
            one(self.choose, moves)()

    def settle_down(self, *, helped: bool = True) -> bool:
        """Let all messages arrive and all timers fire until the saga ends. Gives whether it did.

        `helped`, somebody resumes it, says what it waits for, and sees to what is stuck; else it may stop before.
        """
        self.calm = True
        for _ in range(2000):
            if self.running:
                self.finish(self.running[0])
            elif self.transit:
                self.deliver()
            elif self.snapshot.phase.ended:
                return True
            elif helped and self._help():
                continue
            elif self.snapshot.wake_at is not None:
                self.fire()
            else:
                return False
        raise AssertionError(f"it goes on for ever: {self.snapshot}")

    def _help(self) -> bool:
        snapshot = self.snapshot
        if snapshot.paused:
            self.tell(Resume(message_id=self.word_id()))
            return True
        for run in snapshot.runs.values():
            if run.status is RunStatus.AWAITING and run.awaits is not None:
                self.tell(self.signal(run.step) if run.awaits.type == Word.__tag__ else self.news(run.step))
                return True
        if not snapshot.stuck:
            return False
        stuck = next(r for r in snapshot.runs.values() if r.status in (RunStatus.STUCK, RunStatus.UNDO_STUCK))
        if self.deployed is not self._mended:
            self.mend()
            self.tell(RetryStep(message_id=self.word_id()))
        elif stuck.key not in self._retried:
            self._retried.add(stuck.key)
            self.tell(RetryStep(message_id=self.word_id(), step=stuck.step))
        else:
            self.tell(SkipStep(message_id=self.word_id(), step=stuck.step, reason="it will not do"))
        return True

    # what is to be seen

    @property
    def left_out(self) -> frozenset[str]:
        return frozenset(run.step for run in self.snapshot.runs.values() if run.status is RunStatus.SKIPPED)

    @property
    def waived(self) -> frozenset[str]:
        """What an operator left as it was. An honest "it never happened" excuses nothing."""
        return frozenset(_step(waived.step) for waived in self.snapshot.waived if waived.reason != "seen")

    @property
    def ending(self) -> Literal["open", "completed", "compensated"]:
        match self.snapshot.phase:
            case Phase.COMPLETED:
                return "completed"
            case Phase.COMPENSATED:
                return "compensated"
            case _:
                return "open"


def _step(run: str) -> str:
    return run.partition("#")[0]
