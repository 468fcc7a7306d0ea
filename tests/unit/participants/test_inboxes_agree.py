"""Any sequence of requests gets the same answers from both inboxes, and the answers keep the laws of the protocol."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule
from tests.contract.inbox import FAILURE, LEASE, REJECTION, REPLY, begin, settle, undo
from tests.support.timeline import Timeline

from amends.contracts import ReplyOutcome
from amends.participants import Inbox, MemoryInbox, SqliteInbox
from amends.participants.rows import (
    Answered,
    Begin,
    BeginUndo,
    Claimed,
    ClosingAnswer,
    Fenced,
    Finish,
    Kept,
    OpeningAnswer,
    Recording,
    Release,
    Renew,
    Settle,
)

T = TypeVar("T")

KEYS = st.sampled_from(["reserve#0", "charge#0"])
SMALL = st.integers(0, 2)
ENDS = st.sampled_from(
    [
        ReplyOutcome.DONE,
        ReplyOutcome.DONE,
        ReplyOutcome.REJECTED,
        ReplyOutcome.FAILED,
        ReplyOutcome.UNDONE,
        ReplyOutcome.UNDONE,
        ReplyOutcome.UNDO_FAILED,
    ]
)
UNDO_ENDS = (ReplyOutcome.UNDONE, ReplyOutcome.UNDO_FAILED)


class Effect:
    """What the answers have said of one effect so far."""

    def __init__(self) -> None:
        self.done: Recording | None = None
        self.undo_begun = False
        self.undone = False
        self.closed = False
        self.fence = 0
        self.ended: dict[int, Answered] = {}
        self.live_until: Any = None


class InboxesAgree(RuleBasedStateMachine):
    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.time = Timeline()
        self.issued_at = self.time.now()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.memory: Inbox = MemoryInbox(self.time)
        self.sqlite: Inbox = self.run(self._open_sqlite())
        self.effects: dict[str, Effect] = {}
        self.serial = 0
        self.incarnation = 0

    async def _open_sqlite(self) -> Inbox:
        return SqliteInbox.open(Path(self.folder.name, "inbox.db"), clock=self.time)

    def key_of(self, run: str) -> str:
        return f"order~{self.incarnation}/{run}"

    def run(self, coroutine: Any) -> Any:
        return self.loop.run(coroutine)

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.run(self.sqlite.close())
            self.loop.close()
            self.folder.cleanup()

    def ask(self, request: Begin | BeginUndo | Settle) -> OpeningAnswer:
        answer: OpeningAnswer
        (answer,) = self.run(self.memory.begin([request]))
        (other,) = self.run(self.sqlite.begin([request]))
        assert other == answer
        effect = self.effects.setdefault(request.effect_key, Effect())
        if isinstance(answer, Claimed):
            assert answer.fence > effect.fence, "a new claim has a new fence"
            assert effect.live_until is None or self.time.now() >= effect.live_until, "one live claim at a time"
            assert not effect.undone, "what is undone is never begun or undone again"
            effect.fence, effect.live_until = answer.fence, self.time.now() + LEASE
        elif isinstance(answer, Answered):
            self.check_answer(effect, answer)
        return answer

    def check_answer(self, effect: Effect, answer: Answered) -> None:
        if effect.done is not None and not effect.undo_begun:
            assert answer == Answered(ReplyOutcome.DONE, effect.done), "done is for ever, with its reply"
        if effect.undone:
            assert answer.outcome is ReplyOutcome.UNDONE
        match answer.outcome:
            case ReplyOutcome.CLOSED:
                assert effect.done is None, "what was done is not closed"
                effect.closed = True
            case ReplyOutcome.DONE:
                assert answer.recording == effect.done, "a reply is one that a handler gave"
            case ReplyOutcome.UNDONE:
                assert effect.undone

    def tell(self, request: Finish | Renew | Release) -> ClosingAnswer:
        answer: ClosingAnswer
        (answer,) = self.run(self.memory.finish([request]))
        (other,) = self.run(self.sqlite.finish([request]))
        assert other == answer
        return answer

    @rule(target=claims, run=KEYS, revision=SMALL, attempt=SMALL, transactional=st.booleans(), late=st.booleans())
    def command(self, run: str, revision: int, attempt: int, transactional: bool, late: bool) -> Any:
        key = self.key_of(run)
        request = begin(
            key,
            revision=revision,
            attempt=attempt,
            transactional=transactional,
            issued_at=self.issued_at,
            start_before=self.time.now() - timedelta(seconds=1) if late else None,
        )
        effect = self.effects.setdefault(key, Effect())
        never = effect.closed or effect.done is not None or effect.undo_begun or late
        answer = self.ask(request)
        assert not (never and isinstance(answer, Claimed)), "closed, done or undone: never started; and never too late"
        return (key, answer.fence, "action") if isinstance(answer, Claimed) else (key, 0, "action")

    @rule(target=claims, run=KEYS, attempt=SMALL, carries_reply=st.booleans())
    def undo(self, run: str, attempt: int, carries_reply: bool) -> Any:
        key = self.key_of(run)
        effect = self.effects.setdefault(key, Effect())
        reply = effect.done if carries_reply else None
        answer = self.ask(undo(key, attempt=attempt, issued_at=self.issued_at, reply=reply))
        if not isinstance(answer, Claimed):
            return (key, 0, "undo")
        assert answer.reply == effect.done, "the compensation is told the reply if there is one, and none if not"
        assert not effect.closed, "there is nothing to undo of what is closed"
        effect.undo_begun = True
        return (key, answer.fence, "undo")

    @rule(run=KEYS, revision=SMALL)
    def settle(self, run: str, revision: int) -> None:
        key = self.key_of(run)
        answer = self.ask(settle(key, revision=revision, issued_at=self.issued_at))
        assert isinstance(answer, Answered)
        assert answer.outcome not in (ReplyOutcome.FAILED, ReplyOutcome.UNDO_FAILED)
        if answer.outcome is ReplyOutcome.REJECTED:
            self.effects[key].closed = True

    @rule(claim=claims, outcome=ENDS)
    def finish(self, claim: tuple[str, int, str], outcome: ReplyOutcome) -> None:
        key, fence, direction = claim
        self.serial += 1
        recording = {
            ReplyOutcome.DONE: Recording(REPLY.type, b"%d" % self.serial, REPLY.content_type),
            ReplyOutcome.REJECTED: REJECTION,
            ReplyOutcome.UNDONE: None,
        }.get(outcome, FAILURE)
        answer = self.tell(Finish(effect_key=key, fence=fence, outcome=outcome, recording=recording))
        effect = self.effects[key]
        if isinstance(answer, Fenced):
            return
        assert isinstance(answer, Answered)
        assert fence == effect.fence, "only the newest claim may finish"
        assert (outcome in UNDO_ENDS) == (direction == "undo")
        if fence in effect.ended:
            assert answer == effect.ended[fence], "one claim ends once"
            return
        effect.ended[fence], effect.live_until = answer, None
        if outcome is ReplyOutcome.DONE:
            assert effect.done is None, "an action is done once"
            effect.done = recording
        if outcome is ReplyOutcome.UNDONE:
            assert not effect.undone, "an action is undone once"
            effect.undone = True

    @rule(claim=claims)
    def renew(self, claim: tuple[str, int, str]) -> None:
        key, fence, _ = claim
        if self.tell(Renew(effect_key=key, fence=fence, lease=LEASE)) == Kept():
            assert fence == self.effects[key].fence
            assert fence not in self.effects[key].ended
            self.effects[key].live_until = self.time.now() + LEASE

    @rule(claim=consumes(claims))
    def release(self, claim: tuple[str, int, str]) -> None:
        key, fence, _ = claim
        if self.tell(Release(effect_key=key, fence=fence)) == Kept():
            assert fence == self.effects[key].fence
            self.effects[key].live_until = None

    @rule(seconds=st.sampled_from([1, 29, 31, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.time.advance(seconds)

    @rule(run=KEYS)
    def forget(self, run: str) -> None:
        """Effects are forgotten, and every missing row is in doubt from then on."""
        self.time.advance(3600)
        before = self.time.now() - timedelta(seconds=60)
        assert self.run(self.memory.purge(before)) == self.run(self.sqlite.purge(before))
        assert self.run(self.memory.low_water_mark()) == self.run(self.sqlite.low_water_mark()) == before
        old = begin(self.key_of(run), issued_at=self.issued_at, revision=2, attempt=2)
        for inbox in (self.memory, self.sqlite):
            assert list(self.run(inbox.begin([old]))) == [Answered(ReplyOutcome.IN_DOUBT)]
        self.incarnation += 1
        self.issued_at = self.time.now()


InboxesAgree.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestInboxesAgree = InboxesAgree.TestCase
