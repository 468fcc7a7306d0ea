"""What every `Inbox` must do: subclass the contracts that it keeps, and say how to open one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.contract.handlings import count_for_each, count_many, forget_and_count_again
from tests.support.timeline import Timeline

from amends.contracts import ReplyOutcome, UsageError
from amends.participants import Inbox, Session, TransactionalInbox
from amends.participants.inbox import Performed, Raised, Work, WorkAnswer
from amends.participants.rows import (
    Answered,
    Begin,
    BeginUndo,
    Busy,
    Claimed,
    ClosingAnswer,
    Fenced,
    Finish,
    Ignored,
    Kept,
    OpeningAnswer,
    Recording,
    Release,
    Renew,
    Settle,
)

KEY = "order-1~i1/reserve#0"
LEASE_S = 30.0
LEASE = timedelta(seconds=LEASE_S)

COMMAND = Recording("inventory.reserve-stock.v1", b'{"sku":"lamp"}', "application/json")
OTHER_COMMAND = Recording("inventory.reserve-stock.v1", b'{"sku":"desk"}', "application/json")
REPLY = Recording("stock-reserved.v1", b'{"reservation_id":"r1"}', "application/json")
OTHER_REPLY = Recording("stock-reserved.v1", b'{"reservation_id":"r2"}', "application/json")
REJECTION = Recording("out-of-stock.v1", b'{"available":0}', "application/json")
FAILURE = Recording("amends.failure.v1", b'{"error":"OSError"}', "application/json")

DONE = Answered(ReplyOutcome.DONE, REPLY)
REJECTED = Answered(ReplyOutcome.REJECTED, REJECTION)
FAILED = Answered(ReplyOutcome.FAILED, FAILURE)
CLOSED = Answered(ReplyOutcome.CLOSED)
IN_DOUBT = Answered(ReplyOutcome.IN_DOUBT)
UNDONE = Answered(ReplyOutcome.UNDONE)
UNDO_FAILED = Answered(ReplyOutcome.UNDO_FAILED, FAILURE)


def begin(key: str = KEY, *, issued_at: datetime | None = None, **fields: Any) -> Begin:
    defaults: dict[str, Any] = {
        "revision": 0,
        "attempt": 1,
        "start_before": None,
        "transactional": False,
        "owner": "me",
        "lease": LEASE,
        "command": COMMAND,
    }
    return Begin(effect_key=key, issued_at=issued_at, **defaults | fields)


def undo(key: str = KEY, *, issued_at: datetime | None = None, **fields: Any) -> BeginUndo:
    defaults: dict[str, Any] = {"revision": 0, "attempt": 1, "owner": "me", "lease": LEASE, "command": COMMAND}
    return BeginUndo(effect_key=key, issued_at=issued_at, **defaults | fields)


def settle(key: str = KEY, *, revision: int = 0, issued_at: datetime | None = None) -> Settle:
    return Settle(effect_key=key, revision=revision, issued_at=issued_at)


RECORDINGS = {
    ReplyOutcome.DONE: REPLY,
    ReplyOutcome.REJECTED: REJECTION,
    ReplyOutcome.FAILED: FAILURE,
    ReplyOutcome.UNDONE: None,
    ReplyOutcome.UNDO_FAILED: FAILURE,
}


def finish(fence: int, outcome: ReplyOutcome, key: str = KEY, recording: Recording | None = None) -> Finish:
    return Finish(effect_key=key, fence=fence, outcome=outcome, recording=recording or RECORDINGS[outcome])


class InboxContract(ABC):
    """The suite of the port. Each test begins with no rows.

    `open` gives an inbox on the rows of the running test, which takes its time from `self.time`.
    """

    time: Timeline

    @abstractmethod
    async def open(self) -> Inbox: ...

    @pytest.fixture
    async def inbox(self) -> AsyncIterator[Inbox]:
        inbox = await self.open()
        yield inbox
        await inbox.close()

    async def ask(self, inbox: Inbox, request: Begin | BeginUndo | Settle) -> OpeningAnswer:
        (answer,) = await inbox.begin([request])
        return answer

    async def tell(self, inbox: Inbox, request: Finish | Renew | Release) -> ClosingAnswer:
        (answer,) = await inbox.finish([request])
        return answer

    async def claim(self, inbox: Inbox, request: Begin | BeginUndo) -> int:
        answer = await self.ask(inbox, request)
        assert isinstance(answer, Claimed), answer
        return answer.fence

    async def having(self, inbox: Inbox, outcome: ReplyOutcome, **fields: Any) -> int:
        """An action that ended so; the fence it had."""
        fence = await self.claim(inbox, begin(**fields))
        await self.tell(inbox, finish(fence, outcome))
        return fence

    async def having_undone(self, inbox: Inbox, outcome: ReplyOutcome = ReplyOutcome.UNDONE) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        await self.tell(inbox, finish(await self.claim(inbox, undo()), outcome))

    # actions

    async def test_new_command_is_claimed(self, inbox: Inbox) -> None:
        assert await self.ask(inbox, begin()) == Claimed(1, COMMAND)

    async def test_redelivered_command_gets_the_recorded_reply(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        assert await self.ask(inbox, begin()) == DONE
        assert await self.ask(inbox, begin(attempt=7)) == DONE

    async def test_done_effect_answers_a_newer_revision_with_its_reply(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        assert await self.ask(inbox, begin(revision=1, command=OTHER_COMMAND)) == DONE

    async def test_command_that_is_run_is_busy_until_the_lease_ends(self, inbox: Inbox) -> None:
        await self.claim(inbox, begin(owner="first"))
        assert await self.ask(inbox, begin(owner="second")) == Busy(self.time.now() + LEASE, "first")
        self.time.advance(LEASE_S)
        assert isinstance(await self.ask(inbox, begin(owner="second")), Claimed)

    async def test_result_of_a_claim_that_was_taken_over_is_refused(self, inbox: Inbox) -> None:
        old = await self.claim(inbox, begin())
        self.time.advance(LEASE_S)
        new = await self.claim(inbox, begin())
        assert new > old
        assert await self.tell(inbox, finish(old, ReplyOutcome.DONE, recording=OTHER_REPLY)) == Fenced()
        assert await self.tell(inbox, finish(new, ReplyOutcome.DONE)) == DONE
        assert await self.tell(inbox, finish(old, ReplyOutcome.FAILED)) == Fenced()
        assert await self.ask(inbox, begin()) == DONE

    async def test_late_result_counts_if_nobody_took_the_claim_over(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        self.time.advance(10 * LEASE_S)
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == DONE

    async def test_result_that_is_told_twice_is_recorded_once(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == DONE
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE, recording=OTHER_REPLY)) == DONE
        assert await self.ask(inbox, begin()) == DONE

    async def test_result_of_an_unknown_effect_is_refused(self, inbox: Inbox) -> None:
        assert await self.tell(inbox, finish(1, ReplyOutcome.DONE)) == Fenced()
        assert await self.ask(inbox, settle()) == CLOSED

    async def test_result_of_a_compensation_does_not_end_an_action(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        assert await self.tell(inbox, finish(fence, ReplyOutcome.UNDONE)) == Fenced()
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == DONE

    async def test_renewed_claim_stays_live(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        self.time.advance(LEASE_S - 1)
        assert await self.tell(inbox, Renew(effect_key=KEY, fence=fence, lease=LEASE)) == Kept()
        self.time.advance(LEASE_S - 1)
        assert isinstance(await self.ask(inbox, begin()), Busy)

    async def test_claim_that_was_taken_over_cannot_be_renewed_or_released(self, inbox: Inbox) -> None:
        old = await self.claim(inbox, begin())
        self.time.advance(LEASE_S)
        await self.claim(inbox, begin())
        assert await self.tell(inbox, Renew(effect_key=KEY, fence=old, lease=LEASE)) == Fenced()
        assert await self.tell(inbox, Release(effect_key=KEY, fence=old)) == Fenced()
        assert isinstance(await self.ask(inbox, begin()), Busy)

    async def test_finished_claim_cannot_be_renewed_or_released(self, inbox: Inbox) -> None:
        fence = await self.having(inbox, ReplyOutcome.DONE)
        assert await self.tell(inbox, Renew(effect_key=KEY, fence=fence, lease=LEASE)) == Fenced()
        assert await self.tell(inbox, Release(effect_key=KEY, fence=fence)) == Fenced()

    async def test_released_claim_may_be_taken_over_at_once(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        assert await self.tell(inbox, Release(effect_key=KEY, fence=fence)) == Kept()
        assert await self.ask(inbox, begin()) == Claimed(fence + 1, COMMAND)

    async def test_released_claim_may_have_happened(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        await self.tell(inbox, Release(effect_key=KEY, fence=fence))
        assert await self.ask(inbox, settle()) == IN_DOUBT
        assert await self.ask(inbox, undo()) == Claimed(fence + 1, COMMAND, None)

    async def test_rejection_is_repeated_for_its_revision_and_older_ones(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.REJECTED, revision=1)
        assert await self.ask(inbox, begin(revision=1, attempt=9)) == REJECTED
        assert await self.ask(inbox, begin(revision=0)) == REJECTED

    async def test_corrected_command_runs_after_a_rejection(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.REJECTED)
        assert await self.ask(inbox, begin(revision=1, command=OTHER_COMMAND)) == Claimed(2, OTHER_COMMAND)

    async def test_failure_is_repeated_for_the_attempt_that_failed(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED, attempt=2)
        assert await self.ask(inbox, begin(attempt=2)) == FAILED
        assert await self.ask(inbox, begin(attempt=1)) == FAILED

    async def test_failed_action_runs_again_for_the_next_attempt_or_revision(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED, attempt=2)
        fence = await self.claim(inbox, begin(attempt=3))
        await self.tell(inbox, finish(fence, ReplyOutcome.FAILED))
        assert isinstance(await self.ask(inbox, begin(revision=1, attempt=1)), Claimed)

    async def test_command_that_a_newer_revision_replaced_is_ignored(self, inbox: Inbox) -> None:
        await self.claim(inbox, begin(revision=1))
        assert await self.ask(inbox, begin(revision=0)) == Ignored("stale")
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, begin(revision=0)) == Ignored("stale")

    async def test_command_past_its_time_is_not_begun(self, inbox: Inbox) -> None:
        last = self.time.now()
        assert isinstance(await self.ask(inbox, begin("in-time", start_before=last)), Claimed)
        self.time.advance(0.001)
        assert await self.ask(inbox, begin(start_before=last)) == Ignored("expired")
        assert await self.ask(inbox, settle()) == CLOSED

    async def test_command_past_its_time_still_gets_the_recorded_reply(self, inbox: Inbox) -> None:
        last = self.time.now()
        await self.having(inbox, ReplyOutcome.DONE)
        self.time.advance(1)
        assert await self.ask(inbox, begin(start_before=last)) == DONE

    # undos

    async def test_undo_before_its_action_closes_it_for_ever(self, inbox: Inbox) -> None:
        assert await self.ask(inbox, undo()) == CLOSED
        self.time.advance(10 * LEASE_S)
        for late in (begin(), begin(attempt=2), begin(revision=5)):
            assert await self.ask(inbox, late) == CLOSED
        assert await self.ask(inbox, undo(attempt=2)) == CLOSED

    async def test_undo_of_a_done_action_is_told_its_command_and_reply(self, inbox: Inbox) -> None:
        fence = await self.having(inbox, ReplyOutcome.DONE)
        assert await self.ask(inbox, undo()) == Claimed(fence + 1, COMMAND, REPLY)

    async def test_undo_is_told_the_wording_that_was_run(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        answer = await self.ask(inbox, undo(revision=1, command=OTHER_COMMAND, reply=OTHER_REPLY))
        assert answer == Claimed(2, COMMAND, REPLY)

    async def test_action_is_undone_once_and_every_undo_says_so(self, inbox: Inbox) -> None:
        await self.having_undone(inbox)
        for again in (undo(), undo(attempt=2), undo(attempt=3, reply=REPLY)):
            assert await self.ask(inbox, again) == UNDONE

    async def test_command_after_its_undo_is_not_started(self, inbox: Inbox) -> None:
        await self.having_undone(inbox)
        assert await self.ask(inbox, begin(revision=3, attempt=9)) == UNDONE

    async def test_command_during_its_undo_is_in_doubt(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        await self.claim(inbox, undo())
        assert await self.ask(inbox, begin(revision=1)) == IN_DOUBT

    async def test_undo_waits_for_an_action_at_work(self, inbox: Inbox) -> None:
        await self.claim(inbox, begin(owner="first"))
        assert await self.ask(inbox, undo()) == Busy(self.time.now() + LEASE, "first")

    async def test_undo_takes_over_an_expired_claim_with_unknown_outcome(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin())
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, undo()) == Claimed(fence + 1, COMMAND, None)
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == Fenced()

    async def test_undo_of_a_rejected_action_closes_it(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.REJECTED)
        assert await self.ask(inbox, undo()) == CLOSED
        assert await self.ask(inbox, begin(revision=1)) == CLOSED

    async def test_undo_of_a_failed_action_has_unknown_outcome(self, inbox: Inbox) -> None:
        fence = await self.having(inbox, ReplyOutcome.FAILED)
        assert await self.ask(inbox, undo()) == Claimed(fence + 1, COMMAND, None)

    async def test_undo_of_a_failed_transactional_action_closes_it(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED, transactional=True)
        assert await self.ask(inbox, undo()) == CLOSED
        assert await self.ask(inbox, begin(attempt=2)) == CLOSED

    async def test_undo_of_an_expired_transactional_claim_closes_it(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin(transactional=True))
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, undo()) == CLOSED
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == Fenced()

    async def test_transactional_attempt_does_not_clear_what_others_may_have_left(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED, attempt=1, transactional=False)
        await self.having(inbox, ReplyOutcome.FAILED, attempt=2, transactional=True)
        assert await self.ask(inbox, settle()) == IN_DOUBT

    async def test_undo_that_carries_a_reply_is_done_although_the_row_is_lost(self, inbox: Inbox) -> None:
        assert await self.ask(inbox, undo(reply=REPLY)) == Claimed(1, COMMAND, REPLY)
        assert await self.tell(inbox, finish(1, ReplyOutcome.UNDONE)) == UNDONE
        assert await self.ask(inbox, undo()) == UNDONE

    @pytest.mark.parametrize("ended", [ReplyOutcome.REJECTED, ReplyOutcome.FAILED, ReplyOutcome.CLOSED])
    async def test_reply_that_an_undo_carries_is_proof_that_the_action_was_done(
        self, inbox: Inbox, ended: ReplyOutcome
    ) -> None:
        if ended is ReplyOutcome.CLOSED:
            await self.ask(inbox, settle())
        else:
            await self.having(inbox, ended, transactional=True)
        answer = await self.ask(inbox, undo(reply=REPLY))
        assert isinstance(answer, Claimed)
        assert answer.reply == REPLY

    async def test_undo_at_work_is_busy_and_may_be_taken_over(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        old = await self.claim(inbox, undo(owner="first"))
        assert await self.ask(inbox, undo(attempt=2)) == Busy(self.time.now() + LEASE, "first")
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, undo(attempt=2)) == Claimed(old + 1, COMMAND, REPLY)
        assert await self.tell(inbox, finish(old, ReplyOutcome.UNDONE)) == Fenced()

    async def test_failed_undo_is_repeated_for_its_attempt_and_run_again_for_the_next(self, inbox: Inbox) -> None:
        await self.having_undone(inbox, ReplyOutcome.UNDO_FAILED)
        assert await self.ask(inbox, undo(attempt=1)) == UNDO_FAILED
        assert await self.ask(inbox, undo(attempt=2)) == Claimed(3, COMMAND, REPLY)
        assert await self.tell(inbox, finish(3, ReplyOutcome.UNDONE)) == UNDONE

    async def test_failed_undo_does_not_let_the_action_start(self, inbox: Inbox) -> None:
        await self.having_undone(inbox, ReplyOutcome.UNDO_FAILED)
        assert await self.ask(inbox, begin(revision=1, attempt=9)) == IN_DOUBT

    # settling

    async def test_settle_of_a_missing_action_closes_it_for_ever(self, inbox: Inbox) -> None:
        assert await self.ask(inbox, settle()) == CLOSED
        assert await self.ask(inbox, begin(revision=5)) == CLOSED
        assert await self.ask(inbox, settle()) == CLOSED
        assert await self.ask(inbox, undo()) == CLOSED

    async def test_settle_of_a_done_action_gives_its_reply(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        assert await self.ask(inbox, settle()) == DONE
        assert await self.ask(inbox, settle(revision=3)) == DONE

    async def test_settle_that_says_rejected_shuts_the_door_on_newer_revisions(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.REJECTED)
        assert await self.ask(inbox, settle()) == REJECTED
        assert await self.ask(inbox, begin(revision=1)) == CLOSED
        assert await self.ask(inbox, settle()) == REJECTED

    async def test_settle_of_a_revision_that_never_came_says_closed(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.REJECTED)
        assert await self.ask(inbox, settle(revision=1)) == CLOSED
        assert await self.ask(inbox, begin(revision=1)) == CLOSED

    async def test_settle_of_an_action_at_work_is_in_doubt_and_changes_nothing(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin(transactional=True))
        assert await self.ask(inbox, settle()) == IN_DOUBT
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == DONE

    async def test_settle_of_an_expired_claim_is_in_doubt(self, inbox: Inbox) -> None:
        await self.claim(inbox, begin())
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, settle()) == IN_DOUBT

    async def test_settle_of_a_failed_action_is_in_doubt(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED)
        assert await self.ask(inbox, settle()) == IN_DOUBT

    async def test_settle_of_a_failed_transactional_action_closes_it(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.FAILED, transactional=True)
        assert await self.ask(inbox, settle()) == CLOSED
        assert await self.ask(inbox, begin(attempt=2)) == CLOSED

    async def test_settle_of_an_expired_transactional_claim_closes_it(self, inbox: Inbox) -> None:
        fence = await self.claim(inbox, begin(transactional=True))
        self.time.advance(LEASE_S)
        assert await self.ask(inbox, settle()) == CLOSED
        assert await self.tell(inbox, finish(fence, ReplyOutcome.DONE)) == Fenced()

    async def test_settle_of_an_undone_action_says_so(self, inbox: Inbox) -> None:
        await self.having_undone(inbox)
        assert await self.ask(inbox, settle()) == UNDONE

    async def test_settle_during_or_after_a_failed_undo_is_in_doubt(self, inbox: Inbox) -> None:
        await self.having(inbox, ReplyOutcome.DONE)
        fence = await self.claim(inbox, undo())
        assert await self.ask(inbox, settle()) == IN_DOUBT
        await self.tell(inbox, finish(fence, ReplyOutcome.UNDO_FAILED))
        assert await self.ask(inbox, settle()) == IN_DOUBT

    # forgetting

    async def test_inbox_that_forgot_nothing_has_no_low_water_mark(self, inbox: Inbox) -> None:
        assert await inbox.low_water_mark() is None

    @pytest.mark.parametrize("request_", [begin, undo, settle])
    async def test_missing_row_below_the_low_water_mark_is_in_doubt(self, inbox: Inbox, request_: Any) -> None:
        issued = self.time.now()
        await self.having(inbox, ReplyOutcome.DONE, issued_at=issued)
        self.time.advance(100)
        assert await inbox.purge(self.time.now()) == 1
        assert await inbox.low_water_mark() == self.time.now()
        assert await self.ask(inbox, request_(issued_at=issued)) == IN_DOUBT
        assert await self.ask(inbox, request_("never-seen", issued_at=issued)) == IN_DOUBT
        assert await self.ask(inbox, request_("no-issued-at")) == IN_DOUBT

    async def test_undo_below_the_low_water_mark_is_in_doubt_although_it_carries_a_reply(self, inbox: Inbox) -> None:
        issued = self.time.now()
        self.time.advance(100)
        await inbox.purge(self.time.now())
        assert await self.ask(inbox, undo(issued_at=issued, reply=REPLY)) == IN_DOUBT

    async def test_effects_issued_after_the_low_water_mark_are_as_ever(self, inbox: Inbox) -> None:
        await inbox.purge(self.time.now())
        issued = self.time.now()
        assert isinstance(await self.ask(inbox, begin(issued_at=issued)), Claimed)
        assert await self.ask(inbox, settle("other", issued_at=issued)) == CLOSED

    async def test_rows_touched_lately_are_not_forgotten(self, inbox: Inbox) -> None:
        issued = self.time.now()
        self.time.advance(100)
        mark = self.time.now()
        self.time.advance(100)
        await self.having(inbox, ReplyOutcome.DONE, issued_at=issued)
        assert await inbox.purge(mark) == 0
        assert await self.ask(inbox, begin(issued_at=issued)) == DONE

    async def test_rows_issued_by_a_clock_ahead_are_not_forgotten_too_early(self, inbox: Inbox) -> None:
        ahead = self.time.now() + timedelta(seconds=3)
        await self.having(inbox, ReplyOutcome.DONE, issued_at=ahead)
        self.time.advance(2)
        assert await inbox.purge(self.time.now()) == 0

    async def test_low_water_mark_never_sinks(self, inbox: Inbox) -> None:
        self.time.advance(100)
        mark = self.time.now()
        await inbox.purge(mark)
        await inbox.purge(mark - timedelta(seconds=50))
        assert await inbox.low_water_mark() == mark

    async def test_the_future_cannot_be_forgotten(self, inbox: Inbox) -> None:
        with pytest.raises(UsageError, match="lies ahead"):
            await inbox.purge(self.time.now() + timedelta(seconds=1))
        assert await inbox.low_water_mark() is None

    async def test_many_rows_are_forgotten_and_others_kept(self, inbox: Inbox) -> None:
        old = [f"old-{n:05}" for n in range(4500)]
        await inbox.begin([settle(key, issued_at=self.time.now()) for key in old])
        self.time.advance(100)
        mark = self.time.now()
        await inbox.begin([settle(f"new-{n}", issued_at=mark) for n in range(10)])
        assert await inbox.purge(mark) == 4500
        assert await inbox.purge(mark) == 0
        assert set(await inbox.begin([undo(f"new-{n}", issued_at=mark) for n in range(10)])) == {CLOSED}

    # batches

    async def test_requests_of_one_call_see_those_before_them(self, inbox: Inbox) -> None:
        asked = [settle(), begin(), begin("other"), begin("other", owner="second"), settle("third"), undo("third")]
        answers = await inbox.begin(asked)
        busy = Busy(self.time.now() + LEASE, "me")
        assert list(answers) == [CLOSED, CLOSED, Claimed(1, COMMAND), busy, CLOSED, CLOSED]

    async def test_refused_result_does_not_touch_the_others(self, inbox: Inbox) -> None:
        await inbox.begin([begin("a"), begin("b")])
        told = [finish(1, ReplyOutcome.DONE, "a"), finish(9, ReplyOutcome.DONE, "b"), finish(1, ReplyOutcome.DONE, "b")]
        assert list(await inbox.finish(told)) == [DONE, Fenced(), DONE]

    async def test_any_number_of_requests_fits_into_a_call(self, inbox: Inbox) -> None:
        for count in (0, 1, 7, 300):
            keys = [f"{count}-{n}" for n in range(count)]
            assert set(await inbox.begin([begin(key) for key in keys])) <= {Claimed(1, COMMAND)}
            assert list(await inbox.finish([finish(1, ReplyOutcome.DONE, key) for key in keys])) == [DONE] * count
            assert list(await inbox.begin([settle(key) for key in keys])) == [DONE] * count

    async def test_keys_are_told_apart_whatever_is_in_them(self, inbox: Inbox) -> None:
        keys = [
            "Größe~i/a#0",
            "größe~i/a#0",
            "o'brien~i/a#0",
            'say "hi"~i/a#0',
            "back\\slash~i/a#0",
            "日本~i/a#0",
            "%_",
        ]
        await inbox.begin([settle(key) for key in keys[::2]])
        closed = [await self.ask(inbox, begin(key)) == CLOSED for key in keys]
        assert closed == [n % 2 == 0 for n in range(len(keys))]

    # handlings

    async def test_forgotten_handlings_are_counted_from_the_beginning(self, inbox: Inbox) -> None:
        await forget_and_count_again(inbox)

    async def test_many_handlings_are_counted_in_one_call(self, inbox: Inbox) -> None:
        await count_many(inbox)


class SharedInboxContract(InboxContract):
    """The suite of inboxes that several processes see: a second `open` is on the same rows."""

    async def test_handlings_are_counted_for_each_name_and_seen_by_whoever_opens_the_inbox(self) -> None:
        one, other = await self.open(), await self.open()
        await count_for_each(one, other)
        await one.close()
        await other.close()

    async def test_shared_inbox_remembers_after_it_was_closed(self) -> None:
        inbox = await self.open()
        assert inbox.shared
        await self.having(inbox, ReplyOutcome.DONE)
        await inbox.purge(self.time.now())
        await inbox.close()
        again = await self.open()
        assert await self.ask(again, begin()) == DONE
        assert await again.low_water_mark() == self.time.now()
        await again.close()

    async def test_shared_inboxes_see_each_others_claims(self) -> None:
        one, other = await self.open(), await self.open()
        fence = await self.claim(one, begin())
        assert isinstance(await self.ask(other, begin()), Busy)
        await self.tell(one, finish(fence, ReplyOutcome.DONE))
        assert await self.ask(other, undo()) == Claimed(2, COMMAND, REPLY)
        await one.close()
        await other.close()


def work(request: Begin | BeginUndo, *statements: str, **ending: Any) -> Work:
    """A handler that runs statements, then ends with an outcome or raises an error."""

    def run(claimed: Claimed, session: Session) -> Performed:
        for statement in statements:
            session.execute(statement)
        if error := ending.get("error"):
            raise error
        outcome = ending.get("outcome", ReplyOutcome.DONE)
        return Performed(outcome, RECORDINGS[outcome])

    return Work(request, run)


def write(text: str) -> str:
    return f"INSERT INTO written VALUES ('{text}')"


class TransactionalInboxContract(InboxContract):
    """The suite of inboxes whose transaction handlers may share. `written` reads the table `written (text)`."""

    @abstractmethod
    async def open(self) -> TransactionalInbox: ...

    @abstractmethod
    async def written(self) -> list[str]: ...

    @pytest.fixture
    async def inbox(self) -> AsyncIterator[TransactionalInbox]:  # type: ignore[override]
        inbox = await self.open()
        yield inbox
        await inbox.close()

    async def transact(self, inbox: TransactionalInbox, *works: Work) -> list[WorkAnswer]:
        return list(await inbox.transact(works))

    async def test_handlers_writes_and_its_reply_are_recorded_together(self, inbox: TransactionalInbox) -> None:
        assert await self.transact(inbox, work(begin(), write("a"))) == [DONE]
        assert await self.written() == ["a"]
        assert await self.transact(inbox, work(begin(), write("b"))) == [DONE]
        assert await self.written() == ["a"]

    async def test_handler_that_raises_is_rolled_back_alone_and_leaves_no_row(self, inbox: TransactionalInbox) -> None:
        error = RuntimeError("no")
        first = work(begin("a"), write("a"))
        second = work(begin("b"), write("b"), error=error)
        third = work(begin("c"), write("c"))
        answers = await self.transact(inbox, first, second, third)
        assert (answers[0], answers[2]) == (DONE, DONE)
        assert isinstance(answers[1], Raised)
        assert answers[1].error is error
        assert await self.written() == ["a", "c"]
        assert await self.transact(inbox, work(begin("b"), write("again"))) == [DONE]
        assert await self.written() == ["a", "c", "again"]

    @pytest.mark.parametrize("outcome", [ReplyOutcome.REJECTED, ReplyOutcome.FAILED])
    async def test_what_a_handler_wrote_before_it_refused_is_rolled_back(
        self, inbox: TransactionalInbox, outcome: ReplyOutcome
    ) -> None:
        works = work(begin("a"), write("a"), outcome=outcome), work(begin("b"), write("b"))
        assert await self.transact(inbox, *works) == [Answered(outcome, RECORDINGS[outcome]), DONE]
        assert await self.written() == ["b"]

    async def test_statement_that_fails_is_the_handlers_own_error(self, inbox: TransactionalInbox) -> None:
        bad, good = work(begin("a"), "INSERT INTO nowhere VALUES (1)"), work(begin("b"), write("b"))
        answers = await self.transact(inbox, bad, good)
        assert isinstance(answers[0], Raised)
        assert answers[1] == DONE
        assert await self.written() == ["b"]

    async def test_failed_transactional_action_did_nothing_for_certain(self, inbox: TransactionalInbox) -> None:
        await self.transact(inbox, work(begin(transactional=True), outcome=ReplyOutcome.FAILED))
        assert await self.ask(inbox, settle()) == CLOSED

    async def test_action_and_undo_of_one_call_run_in_their_order(self, inbox: TransactionalInbox) -> None:
        works = [
            work(begin(), write("do")),
            work(undo(), write("undo"), outcome=ReplyOutcome.UNDONE),
            work(undo(), write("undo twice"), outcome=ReplyOutcome.UNDONE),
            work(begin(), write("do again")),
        ]
        assert await self.transact(inbox, *works) == [DONE, UNDONE, UNDONE, UNDONE]
        assert await self.written() == ["do", "undo"]

    async def test_undo_before_its_action_closes_it_in_a_transaction_too(self, inbox: TransactionalInbox) -> None:
        works = [work(undo(), write("undo"), outcome=ReplyOutcome.UNDONE), work(begin(), write("do"))]
        assert await self.transact(inbox, *works) == [CLOSED, CLOSED]
        assert await self.written() == []

    async def test_transactional_handler_waits_for_a_claim(self, inbox: TransactionalInbox) -> None:
        fence = await self.claim(inbox, begin())
        (answer,) = await self.transact(inbox, work(begin(), write("a")))
        assert isinstance(answer, Busy)
        await self.tell(inbox, finish(fence, ReplyOutcome.DONE))
        assert await self.transact(inbox, work(begin(), write("a"))) == [DONE]
        assert await self.written() == []

    @pytest.mark.parametrize("sql", ["COMMIT", "  commit;", "ROLLBACK", "end transaction", "BEGIN"])
    async def test_handler_cannot_end_the_inboxs_transaction(self, inbox: TransactionalInbox, sql: str) -> None:
        good, bad = work(begin("a"), write("a")), work(begin("b"), write("b"), sql)
        answers = await self.transact(inbox, good, bad)
        assert answers[0] == DONE
        assert isinstance(answers[1], Raised)
        assert isinstance(answers[1].error, UsageError)
        assert await self.written() == ["a"]

    async def test_handler_may_use_savepoints(self, inbox: TransactionalInbox) -> None:
        statements = [write("a"), "SAVEPOINT mine", write("b"), "ROLLBACK TO mine", "RELEASE mine", write("c")]
        assert await self.transact(inbox, work(begin(), *statements)) == [DONE]
        assert await self.written() == ["a", "c"]

    async def test_savepoint_that_a_handler_left_open_is_closed_with_it(self, inbox: TransactionalInbox) -> None:
        works = work(begin("a"), write("a"), "SAVEPOINT mine", write("b")), work(begin("b"), write("c"))
        assert await self.transact(inbox, *works) == [DONE, DONE]
        assert await self.written() == ["a", "b", "c"]
