"""Words from outside: cancel, pause, resume, retry, skip and resolve."""

from __future__ import annotations

from tests.unit.coordinator.core.kit import (
    Charge,
    Charged,
    Declined,
    NoRoute,
    Pack,
    Packed,
    Play,
    Release,
    Reserve,
    Reserved,
    Ship,
    Unpack,
    recording,
)

from amends.contracts import Failure, ReplyOutcome
from amends.coordinator import Saga, step
from amends.coordinator.core import Phase, RunStatus, Verdict
from amends.coordinator.core.effects import SendCommand, SendSettle, SendUndo
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Recording


class Order(Saga):
    """reserve -> charge (pivot) -> ship -> pack again."""

    receipt: str = ""

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True, timeout=60)
    def charge(self) -> Charge:
        return Charge()

    @charge.on_success
    def charged(self, reply: Charged) -> None:
        self.receipt = reply.receipt

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()

    @step(retriable=True, after=charge)
    def pack(self) -> Pack:
        return Pack()


def in_doubt() -> Play:
    """The pivot is stuck: nobody can say whether it happened."""
    play = Play(Order())
    play.done("reserve", Reserved())
    play.wait(60).fire()
    for _ in range(2):
        play.in_doubt("charge")
        play.fire_next()
    play.in_doubt("charge")
    assert play.run("charge").status is RunStatus.STUCK
    return play


def behind() -> Play:
    """Both steps behind the pivot are stuck on a rejection."""
    play = Play(Order())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.rejected("ship", NoRoute())
    play.rejected("pack", NoRoute())
    return play


# retry


def test_a_retry_of_a_pivot_in_doubt_asks_again_and_counts_its_doubts_afresh() -> None:
    play = in_doubt()
    last = play.run("charge").sent
    assert play.retry("charge") is Verdict.APPLIED
    assert play.told == [What.OPERATOR, What.STEP_SETTLING]
    assert play.effect(SendSettle).attempt == last + 1
    assert play.in_doubt("charge", attempt=last) is Verdict.DUPLICATE
    for _ in range(2):
        play.in_doubt("charge")
        assert play.run("charge").status is RunStatus.SETTLING
        play.fire_next()
    play.in_doubt("charge")
    assert play.run("charge").status is RunStatus.STUCK


def test_a_retry_sends_a_stuck_command_again_and_counts_its_failures_afresh() -> None:
    play = behind()
    assert play.retry("ship") is Verdict.APPLIED
    assert play.sent == ["ask ship"]
    assert (play.run("ship").failures, play.run("ship").stuck_on) == (0, "")
    play.done("ship")
    assert play.run("pack").status is RunStatus.STUCK


def test_a_retry_of_what_was_refused_is_a_new_revision_since_the_refusal_of_the_old_one_is_recorded() -> None:
    play = behind()
    play.retry("ship")
    assert play.effect(SendCommand).revision == 1
    assert play.run("ship").reply is None
    assert play.rejected("ship", NoRoute(), revision=0) is Verdict.LATE
    assert play.rejected("ship", NoRoute()) is Verdict.APPLIED
    assert play.run("ship").status is RunStatus.STUCK
    play.retry("ship")
    assert play.effect(SendCommand).revision == 2
    play.done("ship")
    assert play.run("ship").status is RunStatus.DONE


def test_a_retry_of_what_failed_keeps_its_revision() -> None:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.in_doubt("ship")
    assert play.run("ship").status is RunStatus.STUCK
    play.retry("ship")
    assert play.effect(SendCommand).revision == 0


def test_a_retry_without_a_step_is_of_all_that_are_stuck() -> None:
    play = behind()
    assert play.retry() is Verdict.APPLIED
    assert play.sent == ["ask ship", "ask pack"]


def test_a_retry_of_a_stuck_undo_sends_it_again_and_counts_its_failures_afresh() -> None:
    play = Play(Order())
    play.cancel()
    for _ in range(3):
        play.undo_failed("reserve")
        if play.snapshot.wake_at:
            play.fire_next()
    last = play.run("reserve").sent
    assert play.retry("reserve") is Verdict.APPLIED
    assert play.effect(SendUndo).attempt == last + 1
    assert play.undo_failed("reserve", attempt=last) is Verdict.DUPLICATE
    play.undo_failed("reserve")
    assert play.run("reserve").status is RunStatus.UNDO_RETRYING


def test_a_failure_of_an_undo_from_before_the_retry_does_not_count() -> None:
    play = Play(Order())
    play.cancel()
    for _ in range(3):
        attempt = play.run("reserve").sent
        play.fire_next()
        play.undo_failed("reserve", attempt=attempt)
    resent = play.run("reserve").sent
    assert (play.run("reserve").status, resent) == (RunStatus.UNDO_STUCK, attempt + 1)
    play.retry("reserve")
    assert play.undo_failed("reserve", attempt=resent) is Verdict.DUPLICATE


def test_a_retry_by_the_name_of_the_run_is_of_its_step() -> None:
    play = behind()
    assert play.retry("ship#0") is Verdict.APPLIED
    assert play.sent == ["ask ship"]


def test_nothing_stuck_is_nothing_to_retry_and_says_what_is() -> None:
    play = Play(Order())
    assert play.retry() is Verdict.REFUSED
    assert play.detail == "no step is stuck; stuck steps: none"
    play = behind()
    assert play.retry("reserve") is Verdict.REFUSED
    assert play.detail == "step 'reserve' is not stuck; stuck steps: ship, pack"
    assert play.effects == ()


# skip


def test_a_skipped_step_lets_those_behind_it_go() -> None:
    play = behind()
    play.skip("ship")
    assert play.run("ship").status is RunStatus.WAIVED
    assert play.phase() is Phase.RUNNING
    play.skip("pack")
    assert play.phase() is Phase.COMPLETED
    assert [w.step for w in play.snapshot.waived] == ["ship#0", "pack#0"]


def test_a_step_that_is_not_behind_the_pivot_is_not_skipped() -> None:
    play = in_doubt()
    assert play.skip("charge") is Verdict.REFUSED
    assert play.detail == "charge#0 is not behind the pivot: retry or resolve it, or cancel the saga"
    assert play.snapshot.waived == ()


# resolve


def test_a_pivot_resolved_forward_is_done_with_the_reply_of_the_operator() -> None:
    play = in_doubt()
    assert play.forward("charge", Charged(receipt="found")) is Verdict.APPLIED
    assert play.state.receipt == "found"
    assert play.sent == ["ask ship", "ask pack"]
    assert play.cancel() is Verdict.REFUSED


def test_a_pivot_resolved_forward_while_a_cancel_waits_makes_it_too_late() -> None:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.cancel()
    for _ in range(3):
        play.in_doubt("charge")
        if play.snapshot.wake_at:
            play.fire_next()
    assert play.snapshot.aborting is not None
    play.forward("charge", Charged())
    assert What.CANCEL_TOO_LATE in play.told
    assert play.snapshot.aborting is None
    assert play.sent == ["ask ship", "ask pack"]


def test_a_pivot_resolved_back_takes_the_saga_back_and_is_listed() -> None:
    play = in_doubt()
    assert play.back("charge") is Verdict.APPLIED
    assert play.sent == ["undo reserve"]
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert [(w.step, w.reason) for w in play.snapshot.waived] == [("charge#0", "I saw")]
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == "in-doubt"


def test_resolving_forward_needs_the_reply_that_was_promised() -> None:
    play = in_doubt()
    before = play.snapshot
    assert play.forward("charge") is Verdict.REFUSED
    assert "needs the reply" in play.detail
    assert play.forward("charge", Packed()) is Verdict.REFUSED
    assert play.forward("charge", Recording(Charged.__tag__, b'{"receipt": 5}')) is Verdict.REFUSED
    assert "$.receipt" in play.detail
    assert play.snapshot == before


def test_the_rejection_that_a_step_is_stuck_on_is_not_its_reply() -> None:
    play = behind()
    assert play.forward("pack") is Verdict.REFUSED
    assert play.run("pack").status is RunStatus.STUCK


def test_resolving_forward_a_step_that_promises_no_reply_needs_none() -> None:
    play = behind()
    assert play.forward("ship") is Verdict.APPLIED
    assert play.run("ship").status is RunStatus.DONE


def test_a_step_behind_the_pivot_is_not_resolved_back() -> None:
    play = behind()
    assert play.back("ship") is Verdict.REFUSED
    assert "resolve it forward, retry it, or skip it" in play.detail


def test_a_step_that_was_never_sent_is_not_resolved_forward() -> None:
    class Broken(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            raise ValueError("broken")

    play = Play(Broken())
    assert play.forward("charge", Charged()) is Verdict.REFUSED
    assert "never sent" in play.detail
    assert play.back("charge") is Verdict.APPLIED
    assert play.phase() is Phase.COMPENSATED


def test_what_is_not_stuck_is_neither_skipped_nor_resolved() -> None:
    play = Play(Order())
    for word in (play.skip, play.back, play.forward):
        assert word("reserve") is Verdict.REFUSED
        assert play.effects == ()


# cancel


def test_a_cancel_says_by_whom_and_why() -> None:
    play = Play(Order())
    assert play.cancel("wrong lamp") is Verdict.APPLIED
    assert play.snapshot.failure == Failure("cancelled", "wrong lamp")
    assert ("ada: wrong lamp") in [entry.detail for entry in play.entries if entry.what is What.CANCEL_REQUESTED]


def test_a_cancel_during_a_pause_waits_for_the_resume() -> None:
    play = Play(Order())
    play.pause()
    assert play.cancel() is Verdict.HELD
    assert play.phase() is Phase.RUNNING
    play.resume()
    assert play.sent == ["undo reserve"]


def test_what_came_in_during_a_pause_is_done_in_the_order_it_came() -> None:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.pause()
    play.done("charge", Charged())
    play.cancel()
    play.resume()
    assert play.phase() is Phase.RUNNING
    assert play.sent == ["ask ship", "ask pack"]
    assert any("too late" in entry.detail for entry in play.entries if entry.what is What.LATE)


# pause and resume


def test_a_pause_of_a_saga_that_goes_back_holds_its_undos() -> None:
    class Chain(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step
        def pack(self) -> Pack:
            return Pack()

        @pack.compensation
        def unpack(self) -> Unpack:
            return Unpack()

    play = Play(Chain())
    play.done("reserve", Reserved())
    play.cancel()
    play.pause()
    play.undone("pack")
    assert play.sent == []
    assert play.wait(1000).fire() is Verdict.LATE
    play.resume()
    assert play.sent == ["undo reserve"]


def test_pause_and_resume_said_twice_are_known() -> None:
    play = Play(Order())
    assert play.resume() is Verdict.DUPLICATE
    play.pause()
    assert play.pause() is Verdict.DUPLICATE
    play.resume()
    assert play.resume() is Verdict.DUPLICATE


def test_a_pause_delivered_again_after_the_resume_does_not_pause_again() -> None:
    # without it: the saga stands still, and nobody knows why
    play = Play(Order())
    play.pause(id="p-1")
    play.resume(id="r-1")
    assert play.pause(id="p-1") is Verdict.DUPLICATE
    assert not play.snapshot.paused
    play.pause(id="p-2")
    assert play.resume(id="r-1") is Verdict.DUPLICATE
    assert play.snapshot.paused


def test_a_retry_delivered_again_does_not_retry_again() -> None:
    play = behind()
    play.retry("ship", id="r-1")
    play.rejected("ship", NoRoute())
    assert play.retry("ship", id="r-1") is Verdict.DUPLICATE
    assert play.run("ship").status is RunStatus.STUCK


def test_words_after_the_end_are_refused_and_known_ones_are_duplicates() -> None:
    play = Play(Order())
    play.cancel(id="c-1")
    play.closed("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert play.cancel(id="c-1") is Verdict.DUPLICATE
    for word in (play.pause, play.resume, play.retry):
        assert word() is Verdict.REFUSED
        assert "has ended (compensated)" in play.detail


def test_a_saga_that_is_through_cannot_be_cancelled() -> None:
    class Short(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

    play = Play(Short())
    play.done("charge", Charged())
    assert play.cancel() is Verdict.REFUSED
    assert play.phase() is Phase.COMPLETED


def test_a_reply_to_a_rejected_step_is_still_held_during_a_pause_and_judged_after_it() -> None:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.rejected("charge", Declined())
    play.pause()
    assert play.answer("charge", ReplyOutcome.DONE, recording(Charged())) is Verdict.HELD
    play.resume()
    assert any("and yet bank says that it is done" in entry.detail for entry in play.entries)
