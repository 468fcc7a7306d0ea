"""What a saga does when the store may have lost commits of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.coordinator.core.kit import (
    Approve,
    Charge,
    Charged,
    Pack,
    Packed,
    Paid,
    Play,
    Rate,
    Release,
    Reserve,
    Reserved,
    Ship,
    Unpack,
    recording,
)

from amends.contracts import Kind, ReplyOutcome
from amends.contracts.payloads import Done
from amends.coordinator import Publish, Saga, WaitFor, step
from amends.coordinator.core import Phase, RunStatus, Verdict, sign_of_loss
from amends.coordinator.core.effects import SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import Answered, AnyInput, Cancel
from amends.coordinator.core.journal import What
from amends.coordinator.wire import outgoing

DONE, STUCK, CHECKING = RunStatus.DONE, RunStatus.STUCK, RunStatus.CHECKING


class Order(Saga):
    """Reserve, pack, charge, ship."""

    number: int | None = None
    packed: int = 0

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.number = reply.number

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(timeout=timedelta(seconds=30))
    def pack(self) -> Pack:
        if self.number is None:
            raise LookupError("nothing is reserved")
        return Pack()

    @pack.on_success
    def has_packed(self, reply: Packed) -> None:
        self.packed += 1

    @pack.compensation
    def unpack(self) -> Unpack:
        return Unpack()

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge()

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()


class Approval(Saga):
    """Reserve, wait for the word that is the pivot, ship."""

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True)
    def approve(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()


def packing() -> Play:
    """Reserved; the pack is on its way."""
    play = Play(Order())
    play.done("reserve", Reserved())
    return play


# what is asked


def test_what_is_in_flight_is_sent_again_and_of_what_is_done_it_is_asked_whether_it_still_is() -> None:
    play = packing()
    before = play.run("pack")
    assert play.roll_back() is Verdict.RECONCILING
    assert play.sent == ["settle reserve", "ask pack"]
    assert play.statuses == {"reserve": CHECKING, "pack": RunStatus.ISSUED}
    assert play.effect(SendCommand).attempt > before.sent + 900
    assert play.told == [What.ROLLED_BACK, What.STEP_SETTLING, What.STEP_RESENT]


def test_nothing_new_is_begun_before_it_is_known_that_what_was_done_still_is() -> None:
    play = packing()
    play.roll_back()
    play.done("pack", Packed())
    assert play.sent == []
    play.done("reserve", Reserved())
    assert play.told == [What.RECONCILED, What.STEP_ISSUED]
    assert play.sent == ["ask charge"]
    assert play.statuses["reserve"] is DONE


def test_a_store_that_has_lost_nothing_undoes_nothing_and_tells_no_handler_twice() -> None:
    play = packing()
    play.roll_back()
    play.done("reserve", Reserved(number=99))
    for step_name, reply in (("pack", Packed()), ("charge", Charged()), ("ship", None)):
        play.done(step_name, reply)
    assert play.phase() is Phase.COMPLETED
    assert (play.state.number, play.state.packed) == (1, 1)


def test_the_time_for_an_answer_begins_anew() -> None:
    play = packing().wait(1000)
    play.roll_back()
    assert play.run("pack").timeout_at == play.now + timedelta(seconds=30)
    assert play.fire() is Verdict.DUPLICATE


def test_the_question_whether_it_is_done_is_asked_until_it_is_answered() -> None:
    play = packing()
    play.roll_back()
    first = play.effect(SendSettle)
    play.done("pack", Packed())
    play.fire_next()
    assert play.sent == ["settle reserve"]
    assert play.effect(SendSettle).attempt == first.attempt + 1


def test_the_epoch_is_written_down_and_the_version_leaps_past_what_may_be_lost() -> None:
    play = packing()
    version = play.snapshot.version
    play.roll_back(epoch="second")
    assert play.snapshot.epoch == "second"
    assert play.snapshot.version >= version + 1000
    assert play.snapshot.suspect is not None
    assert play.snapshot.suspect.why == "it was failed over"
    play.done("reserve", Reserved())
    assert play.snapshot.epoch == "second"


def test_behind_the_pivot_only_what_is_in_flight_is_asked_again() -> None:
    play = packing()
    play.done("pack", Packed())
    play.done("charge", Charged())
    play.roll_back()
    assert play.sent == ["ask ship"]
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_a_saga_that_goes_back_goes_on_going_back() -> None:
    play = packing()
    play.cancel()
    undoing = play.run("pack")
    assert play.roll_back() is Verdict.RECONCILING
    assert play.sent == []
    play.fire_next()
    assert play.sent == ["undo pack"]
    assert play.effect(SendUndo).attempt > undoing.sent + 900


def test_an_ended_saga_stays_ended() -> None:
    play = packing()
    play.cancel()
    play.undone("pack")
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert play.roll_back() is Verdict.LATE
    assert sign_of_loss(play.definition, play.snapshot, Cancel(message_id="c", reason=""), "new") is None


def test_a_paused_saga_asks_when_it_is_resumed() -> None:
    play = packing()
    play.pause()
    play.roll_back()
    assert play.sent == []
    play.wait(100).resume()
    assert play.due_s == 0
    play.fire()
    assert play.sent == ["settle reserve", "ask pack"]


# what the answers mean


def test_an_undo_that_is_found_turns_the_saga_back() -> None:
    play = packing()
    play.roll_back()
    play.undone("reserve")
    assert play.run("reserve").status is RunStatus.UNDONE
    assert play.sent == ["settle charge"]
    play.closed("charge")
    assert play.phase() is Phase.COMPENSATING
    assert play.sent == ["undo pack"]
    play.closed("pack")
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == "lost-commit"


@pytest.mark.parametrize("outcome", [ReplyOutcome.CLOSED, ReplyOutcome.REJECTED])
def test_what_was_done_and_is_said_never_to_have_been_is_undone_with_its_reply(outcome: ReplyOutcome) -> None:
    play = packing()
    play.roll_back()
    play.answer("reserve", outcome)
    play.closed("charge")
    play.closed("pack")
    assert play.sent == ["undo reserve"]
    assert play.effect(SendUndo).reply == recording(Reserved())


def test_an_undo_that_has_failed_is_found_and_tried_again() -> None:
    play = packing()
    play.roll_back()
    play.undo_failed("reserve")
    play.closed("charge")
    play.closed("pack")
    assert play.sent == ["undo reserve"]


def test_a_step_in_flight_that_turns_out_undone_turns_the_saga_back() -> None:
    play = packing()
    play.roll_back()
    play.undone("pack")
    play.closed("charge")
    assert play.phase() is Phase.COMPENSATING
    assert play.sent == ["undo reserve"]


def test_an_undo_found_behind_the_pivot_is_stuck_and_seen() -> None:
    play = packing()
    play.done("pack", Packed())
    play.done("charge", Charged())
    play.roll_back()
    play.undone("reserve")
    assert play.run("reserve").status is STUCK
    assert "turned back in a lost commit" in play.problem("reserve")
    play.done("ship")
    assert play.phase() is Phase.RUNNING


def test_answers_to_questions_from_before_are_not_believed_as_they_were_asked_again() -> None:
    play = Play(Order())
    old = play.run("reserve").sent
    play.roll_back()
    assert play.done("reserve", Reserved(), attempt=old) is Verdict.LATE
    assert play.failed("reserve", attempt=old) is Verdict.LATE
    assert play.undone("reserve", attempt=old) is Verdict.APPLIED
    assert play.run("reserve").status is RunStatus.UNDONE


def test_a_participant_that_numbers_no_answers_is_believed() -> None:
    play = Play(Order())
    play.roll_back()
    assert play.done("reserve", Reserved(), attempt=0) is Verdict.APPLIED


def in_doubt() -> Play:
    play = packing()
    play.roll_back()
    play.in_doubt("reserve")
    while play.run("reserve").status is CHECKING:
        play.fire_next()
        play.in_doubt("reserve")
    return play


def test_lasting_doubt_is_stuck_and_holds_everything_up() -> None:
    play = in_doubt()
    assert play.run("reserve").stuck_on == "check"
    assert "cannot say whether reserve#0, which was done, still is" in play.problem("reserve")
    play.done("pack", Packed())
    assert play.sent == []
    play.retry("reserve")
    assert play.sent == ["settle reserve"]
    play.done("reserve", Reserved())
    assert play.sent == ["ask charge"]


def test_an_operator_who_says_that_it_still_is_done_needs_no_reply_and_calls_no_handler() -> None:
    play = in_doubt()
    play.done("pack", Packed())
    play.forward("reserve")
    assert play.run("reserve").status is DONE
    assert play.sent == ["ask charge"]
    play.roll_back(epoch="third")  # what an operator said is not asked of a participant who does not know it
    assert play.sent == ["settle pack", "ask charge"]


def test_a_cancel_undoes_what_is_in_doubt() -> None:
    play = in_doubt()
    play.done("pack", Packed())
    play.cancel()
    play.closed("charge")
    play.undone("pack")
    assert play.sent == ["undo reserve"]


def test_a_pivot_waits_with_its_word_until_all_is_known() -> None:
    play = Play(Approval())
    play.done("reserve", Reserved())
    play.roll_back()
    play.signal(Approve())
    assert play.told == [What.BUFFERED]
    play.undone("reserve")
    play.closed("ship")
    assert play.phase() is Phase.COMPENSATED

    play = Play(Approval())
    play.done("reserve", Reserved())
    play.roll_back()
    play.signal(Approve())
    play.done("reserve", Reserved())
    assert play.sent == ["ask ship"]


# what lost commits may have issued


def test_before_it_goes_back_the_pivot_that_may_have_happened_is_found_out_and_if_so_it_goes_forward() -> None:
    play = packing()
    play.roll_back()
    play.done("reserve", Reserved())
    play.cancel()
    assert play.sent == ["settle charge"]
    assert play.phase() is Phase.RUNNING
    play.done("charge", Charged())
    assert What.CANCEL_TOO_LATE in play.told
    assert play.snapshot.committed
    play.done("pack", Packed())
    assert play.sent == ["ask charge"]
    play.done("charge", Charged())
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_then_what_may_be_done_is_closed_or_found_and_undone() -> None:
    start = Play(Order())
    early = start.snapshot
    start.roll_back(early)
    start.cancel()
    start.closed("charge")
    assert start.sent == ["settle pack"]
    start.closed("pack")
    assert start.phase() is Phase.COMPENSATING
    assert start.sent == ["undo reserve"]
    start.undone("reserve")
    assert start.phase() is Phase.COMPENSATED


def test_a_lost_step_that_was_done_is_undone_with_its_reply_and_what_its_method_says_now() -> None:
    play = Play(Order())
    play.roll_back()
    play.done("reserve", Reserved())
    del play.snapshot.runs["pack#0"]  # as if the commit that issued it were lost
    play.cancel()
    play.closed("charge")
    assert play.effect(SendSettle).issued_at == play.snapshot.suspect.since  # type: ignore[union-attr]
    play.done("pack", Packed())
    undo = play.effect(SendUndo)
    assert (undo.command, undo.reply) == (recording(Pack()), recording(Packed()))
    assert play.state.packed == 1


def test_a_lost_step_whose_wording_nobody_knows_is_stuck_and_seen() -> None:
    play = Play(Order())
    play.roll_back()
    play.cancel()
    play.closed("charge")
    play.done("pack", Packed())
    assert play.run("pack").status is RunStatus.UNDO_STUCK
    assert "the commit that issued it is lost" in play.problem("pack")
    assert "nothing is reserved" in play.problem("pack")


def test_a_lost_step_in_doubt_is_undone_like_any_other() -> None:
    play = Play(Order())
    play.roll_back()
    play.done("reserve", Reserved())
    del play.snapshot.runs["pack#0"]
    play.cancel()
    play.closed("charge")
    play.in_doubt("pack")
    assert play.sent == ["undo pack"]
    assert play.effect(SendUndo).reply is None


def test_behind_a_pivot_that_asks_nobody_what_comes_after_it_tells_whether_it_was_passed() -> None:
    play = Play(Approval())
    play.done("reserve", Reserved())
    play.roll_back()
    play.done("reserve", Reserved())
    play.cancel()
    assert play.sent == ["settle ship"]
    assert play.signal(Approve()) is Verdict.REFUSED
    play.done("ship")
    assert play.snapshot.committed
    assert play.statuses["approve"] is RunStatus.AWAITING
    play.signal(Approve())
    assert play.sent == ["ask ship"]
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_an_answer_about_a_step_that_was_never_issued_says_whether_there_is_a_way_back() -> None:
    play = packing()
    assert play.done("charge", Charged()) is Verdict.UNEXPECTED
    play.roll_back()
    assert play.closed("charge") is Verdict.LATE
    play.done("charge", Charged())
    assert play.snapshot.committed
    assert play.cancel() is Verdict.REFUSED

    play = Play(Order())
    play.roll_back()
    play.undone("pack")
    assert play.sent == ["settle charge"]
    assert play.done("nobody") is Verdict.UNEXPECTED


class Anybody(Saga):
    """A step that asks one of two services."""

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True)
    def either(self) -> Charge | Rate:
        return Charge()


def test_a_lost_step_of_which_it_is_not_known_whom_it_asked_needs_an_operator() -> None:
    play = Play(Anybody())
    play.roll_back()
    play.cancel()
    assert play.run("either").status is STUCK
    assert "to bank or rating: look there, then resolve it" in play.problem("either")
    play.retry("either")
    assert play.run("either").status is STUCK
    play.back("either")
    assert play.sent == ["undo reserve"]


def test_an_operator_may_say_that_a_lost_pivot_happened() -> None:
    play = Play(Anybody())
    play.roll_back()
    play.cancel()
    play.forward("either")
    assert play.snapshot.committed
    play.done("reserve", Reserved())
    assert play.sent == ["ask either"]


class Telling(Saga):
    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step
    def tell(self) -> Publish:
        return Publish(Paid(order="1"))

    @tell.compensation
    def take_back(self) -> Publish:
        return Publish(Paid(order="1", amount=-1))


def test_of_an_event_that_may_have_been_published_the_journal_warns() -> None:
    play = Play(Telling())
    play.roll_back()
    play.cancel()
    assert (What.ROLLED_BACK, "tell") in play.all_entries


def test_an_event_that_is_published_again_has_the_id_that_it_had() -> None:
    play = Play(Telling())
    early = play.snapshot
    play.done("reserve", Reserved())
    lost = outgoing(play.snapshot, play.effects, "a")[0].envelope
    play.roll_back(early)
    play.done("reserve", Reserved())
    again = outgoing(play.snapshot, play.effects, "b")[0].envelope
    assert (lost.kind, lost.id) == (again.kind, again.id) == (Kind.EVENT, f"{early.incarnation}.tell#0")
    assert lost.version != again.version


# how it is noticed


def answer(play: Play, step_name: str, outcome: ReplyOutcome = ReplyOutcome.DONE, **fields: object) -> AnyInput:
    known: dict[str, object] = {"attempt": 1, "version": 1, "commit_id": "", "incarnation": play.snapshot.incarnation}
    return Answered(
        message_id="a", run=f"{step_name}#0", outcome=outcome, recording=recording(Done()), **known | fields
    )  # type: ignore[arg-type]


def test_a_commit_that_the_store_does_not_have_is_a_sign() -> None:
    play = packing()
    now = play.snapshot

    def why(message: AnyInput, epoch: str = "") -> str:
        sign = sign_of_loss(play.definition, play.snapshot, message, epoch)
        return "" if sign is None else sign.why

    assert why(answer(play, "pack")) == ""
    assert why(answer(play, "pack", version=now.version, commit_id=now.commit_id)) == ""
    assert "names version 3, the store has 2" in why(answer(play, "pack", version=3))
    assert "another version 2 than the store has" in why(answer(play, "pack", version=2, commit_id="c9"))
    assert "is to message 2 about pack#0, the store knows of 1" in why(answer(play, "pack", attempt=2))
    assert "does not know that it was issued" in why(answer(play, "charge"))
    assert "reserve#0 is undone, and the saga goes forward" in why(answer(play, "reserve", ReplyOutcome.UNDONE))
    assert why(answer(play, "nobody")) == ""
    assert why(answer(play, "pack", version=9, incarnation="another")) == ""
    assert "was restarted, failed over or restored" in why(answer(play, "pack"), "new")
    play.roll_back()
    assert why(answer(play, "pack"), "new") == ""
    assert why(answer(play, "charge")) == ""


def test_what_showed_it_shows_nothing_any_more_once_it_is_heeded() -> None:
    play = packing()
    message = answer(play, "pack", version=70_000, attempt=70_000)
    noticed = sign_of_loss(play.definition, play.snapshot, message, "")
    assert noticed is not None
    play.tell(noticed)
    assert sign_of_loss(play.definition, play.snapshot, message, "") is None
    assert play.tell(message) is Verdict.LATE
