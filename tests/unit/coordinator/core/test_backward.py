"""Going back: undos, their answers, and the end."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.core.kit import (
    Approve,
    Charge,
    Declined,
    Pack,
    Packed,
    Placed,
    Play,
    Rate,
    Release,
    Reserve,
    Reserved,
    SoldOut,
    Unpack,
    recording,
)

from amends.contracts import ReplyOutcome
from amends.coordinator import Publish, Saga, Sleep, WaitFor, step
from amends.coordinator.core import Phase, RunStatus, Verdict
from amends.coordinator.core.effects import End, PublishEvent, SendUndo
from amends.coordinator.core.journal import What


class Trip(Saga):
    """reserve -> pack -> charge (pivot)."""

    reason: str = "none"

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.reason = f"number {reply.number}"

    @reserve.compensation
    def release(self) -> Release:
        return Release(item=self.reason)

    @step
    def pack(self) -> Pack:
        return Pack()

    @pack.compensation
    def unpack(self) -> Unpack:
        return Unpack()

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge()


def turned_back() -> Play:
    play = Play(Trip())
    play.done("reserve", Reserved(number=7))
    play.done("pack", Packed())
    play.rejected("charge", Declined())
    return play


def test_steps_are_undone_in_reverse_order_and_then_it_ends() -> None:
    play = turned_back()
    assert play.sent == ["undo pack"]
    assert play.told == [What.STEP_REJECTED, What.COMPENSATION_STARTED, What.UNDO_ISSUED]
    play.undone("pack")
    assert play.told == [What.STEP_UNDONE, What.UNDO_ISSUED]
    undo = play.effect(SendUndo)
    assert (undo.run, undo.service, undo.undo) == ("reserve#0", "stock", recording(Release(item="number 7")))
    play.undone("reserve")
    assert play.told == [What.STEP_UNDONE, What.COMPENSATED]
    assert play.effects == (End(Phase.COMPENSATED),)
    assert play.statuses == {
        "reserve": RunStatus.UNDONE,
        "pack": RunStatus.UNDONE,
        "charge": RunStatus.REJECTED,
    }
    assert play.snapshot.ended_at == play.now
    assert play.snapshot.wake_at is None


def test_a_saga_with_nothing_to_undo_ends_at_once() -> None:
    play = Play(Trip())
    play.rejected("reserve", SoldOut())
    assert play.effects == (End(Phase.COMPENSATED),)


def test_an_undo_is_retried_with_backoff_and_then_stuck() -> None:
    play = turned_back()
    play.undo_failed("pack")
    assert (play.run("pack").status, play.due_s) == (RunStatus.UNDO_RETRYING, 1)
    play.fire_next()
    assert play.sent == ["undo pack"]
    play.undo_failed("pack")
    assert play.due_s == 2
    play.fire_next()
    play.undo_failed("pack")
    assert play.run("pack").status is RunStatus.UNDO_STUCK
    assert play.run("pack").stuck_on == "undo"
    assert play.told == [What.UNDO_FAILED, What.UNDO_STUCK]
    assert play.snapshot.stuck
    assert play.snapshot.wake_at is None


def test_a_failed_undo_heard_twice_counts_once() -> None:
    play = turned_back()
    attempt = play.run("pack").sent
    assert play.undo_failed("pack", attempt=attempt) is Verdict.APPLIED
    assert play.undo_failed("pack", attempt=attempt) is Verdict.DUPLICATE
    play.fire_next()
    assert play.undo_failed("pack", attempt=attempt) is Verdict.DUPLICATE
    assert play.run("pack").undo_failures == 1


def test_a_failed_undo_that_comes_after_the_resend_counts_all_the_same() -> None:
    play = turned_back()
    for failures in (1, 2, 3):
        attempt = play.run("pack").sent
        play.fire_next()
        assert play.undo_failed("pack", attempt=attempt) is Verdict.APPLIED
        assert play.run("pack").undo_failures == failures
    assert play.run("pack").status is RunStatus.UNDO_STUCK


def test_an_undo_in_doubt_is_a_failed_one() -> None:
    play = turned_back()
    play.in_doubt("pack")
    assert play.run("pack").status is RunStatus.UNDO_RETRYING


def test_doubts_about_the_command_are_no_doubts_about_the_undo() -> None:
    play = Play(Trip())
    play.cancel()
    assert play.in_doubt("reserve", attempt=1) is Verdict.DUPLICATE
    assert play.run("reserve").status is RunStatus.UNDOING


def test_an_undo_that_succeeds_when_it_is_stuck_is_taken() -> None:
    play = turned_back()
    for _ in range(3):
        play.undo_failed("pack")
        if play.snapshot.wake_at:
            play.fire_next()
    assert play.undo_failed("pack") is Verdict.LATE
    play.undone("pack")
    assert play.sent == ["undo reserve"]
    assert not play.snapshot.stuck


@pytest.mark.parametrize("outcome", list(ReplyOutcome))
def test_no_answer_to_a_step_that_is_undone_changes_anything(outcome: ReplyOutcome) -> None:
    play = turned_back()
    play.undone("pack")
    before = play.snapshot
    assert play.answer("pack", outcome) is Verdict.LATE
    assert (play.snapshot, play.effects) == (before, ())


def test_undone_before_anybody_asked_is_unexpected() -> None:
    play = turned_back()
    assert play.run("reserve").status is RunStatus.DONE
    assert play.undone("reserve") is Verdict.UNEXPECTED
    assert play.run("reserve").status is RunStatus.DONE


def test_undone_while_the_undo_waits_for_others_is_unexpected() -> None:
    class Chain(Saga):
        @step(timeout=5)
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            raise ValueError("not yet")

    play = Play(Chain())
    play.wait(5).fire()
    assert play.run("reserve").status is RunStatus.UNDO_STUCK
    assert play.undone("reserve") is Verdict.UNEXPECTED
    assert play.undo_failed("reserve") is Verdict.LATE


def test_waits_and_sleeps_are_given_up_at_the_turn() -> None:
    class Waiting(Saga):
        @step
        def approve(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

        @step(after=())
        def nap(self) -> Sleep:
            return Sleep(100)

        @step(readonly=True, after=())
        def rate(self) -> Rate:
            return Rate()

    play = Play(Waiting())
    play.cancel()
    assert play.statuses == {
        "approve": RunStatus.CLOSED,
        "nap": RunStatus.CLOSED,
        "rate": RunStatus.FAILED,
    }
    assert play.phase() is Phase.COMPENSATED
    assert play.answer("rate", ReplyOutcome.DONE) is Verdict.LATE


def test_a_local_undo_and_a_published_one_are_done_on_the_spot_in_order() -> None:
    class Telling(Saga):
        log: list[str] = []

        @step
        def place(self) -> Publish:
            self.log.append("place")
            return Publish(Placed(order="a"))

        @place.compensation
        def withdraw(self) -> Publish:
            self.log.append("withdraw")
            return Publish(Placed(order="not a"))

        @step
        def book(self) -> None:
            self.log.append("book")

        @book.compensation
        def unbook(self) -> None:
            self.log.append("unbook")

        @step(readonly=True)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Telling())
    play.rejected("rate", SoldOut())
    assert play.state.log == ["place", "book", "unbook", "withdraw"]
    assert play.effects == (PublishEvent(recording(Placed(order="not a")), 2, "place#0.undone"), End(Phase.COMPENSATED))


def test_undos_of_independent_branches_go_out_together() -> None:
    class Fan(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step(after=())
        def pack(self) -> Pack:
            return Pack()

        @pack.compensation
        def unpack(self) -> Unpack:
            return Unpack()

        @step(pivot=True, after=(reserve, pack))
        def charge(self) -> Charge:
            return Charge()

    play = Play(Fan())
    play.done("reserve", Reserved())
    play.done("pack", Packed())
    play.rejected("charge", Declined())
    assert sorted(play.sent) == ["undo pack", "undo reserve"]


def test_a_cancel_of_a_saga_that_goes_back_is_a_duplicate() -> None:
    play = turned_back()
    assert play.cancel() is Verdict.DUPLICATE
    play.undone("pack")
    play.undone("reserve")
    assert play.cancel() is Verdict.DUPLICATE
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == Declined.__tag__
