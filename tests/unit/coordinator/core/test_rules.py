"""The rules of the protocol that the core must keep, each with the schedule that breaks a design without it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.coordinator.core.kit import (
    POLICY,
    T0,
    Approve,
    Charge,
    Charged,
    Declined,
    NoRoute,
    Pack,
    Packed,
    Paid,
    Play,
    Rate,
    Rated,
    Release,
    Reserve,
    Reserved,
    Ship,
    SoldOut,
    Unpack,
    recording,
)

from amends.contracts import Failure, ReplyOutcome, UsageError
from amends.coordinator import Policy, Saga, Sleep, WaitFor, step
from amends.coordinator.core import Phase, RunStatus, Verdict, backward, encode_state, start
from amends.coordinator.core.effects import SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import TimersFired
from amends.coordinator.core.journal import What
from amends.coordinator.core.turn import Turn
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.retry import Retry


class Order(Saga):
    """reserve -> charge (pivot) -> ship."""

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True, timeout=60)
    def charge(self) -> Charge:
        return Charge()

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()


def at_charge() -> Play:
    play = Play(Order())
    play.done("reserve", Reserved())
    return play


def past_the_pivot() -> Play:
    play = at_charge()
    play.done("charge", Charged())
    return play


class Parallel(Saga):
    """reserve -> pack, beside weigh."""

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(after=reserve)
    def pack(self) -> Pack:
        return Pack()

    @pack.compensation
    def unpack(self) -> Unpack:
        return Unpack()

    @step(after=())
    def weigh(self) -> Pack:
        return Pack()

    @weigh.compensation
    def unweigh(self) -> Unpack:
        return Unpack()


# 1. identity


def test_rule_1_a_start_is_a_new_incarnation_named_by_its_commit() -> None:
    # without it: an id is used again after its retention, and an answer to the first life is taken for the second
    definition, state = definition_of(Order), encode_state(Order())
    first = start(definition, "order-1", state, T0, "commit-a", POLICY, cause="m1").snapshot
    second = start(definition, "order-1", state, T0, "commit-b", POLICY, cause="m1").snapshot
    assert first is not None
    assert second is not None
    assert (first.incarnation, first.commit_id, first.version) == ("commit-a", "commit-a", 1)
    assert (second.incarnation, second.commit_id, second.version) == ("commit-b", "commit-b", 1)


def test_rule_1_every_commit_has_its_own_id_and_stays_in_its_incarnation() -> None:
    # without it: two coordinators commit different versions 2, and nobody can tell them apart
    play = at_charge()
    assert (play.snapshot.version, play.snapshot.commit_id) == (2, "commit-2")
    assert play.snapshot.incarnation == "commit-1"
    assert play.result.record is not None
    assert (play.result.record.version, play.result.record.commit_id) == (2, "commit-2")


def test_rule_1_an_answer_to_an_earlier_life_of_the_id_is_not_taken() -> None:
    play = Play(Order())
    assert play.done("reserve", Reserved(), incarnation="an-earlier-one") is Verdict.LATE
    assert play.statuses == {"reserve": RunStatus.ISSUED}


# 2. keys


def test_rule_2_a_resend_is_a_new_attempt_of_the_same_effect_and_wording() -> None:
    play = Play(Order())
    first = play.effect(SendCommand)
    play.fire_next()
    again = play.effect(SendCommand)
    assert (first.run, first.revision, first.attempt) == ("reserve#0", 0, 1)
    assert (again.run, again.revision, again.attempt) == ("reserve#0", 0, 2)
    assert again.command == first.command
    assert again.issued_at == first.issued_at == T0


def test_rule_2_the_command_is_frozen_at_dispatch() -> None:
    # without it: the state has changed since, and the resend asks for something else under the same key

    class Moving(Saga):
        amount: int = 1

        @step
        def news(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

        @news.on_success
        def more(self, word: Approve) -> None:
            self.amount = 2

        @step(pivot=True, after=())
        def charge(self) -> Charge:
            return Charge(amount=self.amount)

    play = Play(Moving())
    first = play.effect(SendCommand).command
    play.signal(Approve())
    assert play.state.amount == 2
    play.fire_next()
    assert play.effect(SendCommand).command == first


def test_rule_2_an_undo_and_a_settle_address_the_effect_of_the_command() -> None:
    play = at_charge()
    asked = play.effect(SendCommand)
    play.cancel()
    settle = play.effect(SendSettle)
    assert (settle.run, settle.service, settle.command_type) == (asked.run, "bank", asked.command.type)
    play.closed("charge")
    undo = play.effect(SendUndo)
    assert (undo.run, undo.service) == ("reserve#0", "stock")


def test_rule_2_all_messages_about_an_effect_are_numbered_through_so_that_no_answer_is_taken_for_another() -> None:
    # without it: "in doubt" about attempt 1 of the command, heard again, counts as a doubt about settle 1, and so on
    play = at_charge()
    play.in_doubt("charge")
    assert play.sent == ["settle charge"]
    assert play.effect(SendSettle).attempt == 2
    for _ in range(5):
        assert play.in_doubt("charge", attempt=1) is Verdict.DUPLICATE
    assert play.run("charge").status is RunStatus.SETTLING
    assert play.in_doubt("charge", attempt=2) is Verdict.APPLIED
    for _ in range(5):
        assert play.in_doubt("charge", attempt=2) is Verdict.DUPLICATE
    assert play.run("charge").failures == 1


# 4. not-after and resends


def test_rule_4_a_command_has_a_fresh_not_after_at_each_send() -> None:
    # without it: the participant is away longer than the first not-after, and no resend is ever begun
    play = Play(Order())
    assert play.effect(SendCommand).not_after == T0 + timedelta(seconds=100)
    for _ in range(20):
        play.fire_next()
        assert play.effect(SendCommand).not_after == play.now + timedelta(seconds=100)
        assert play.effect(SendCommand).issued_at == T0


def test_rule_4_a_command_is_not_begun_after_the_step_has_timed_out() -> None:
    play = at_charge()
    assert play.effect(SendCommand).not_after == T0 + timedelta(seconds=60)


def test_rule_4_an_unanswered_command_is_sent_again_and_again() -> None:
    play = Play(Order())
    waits = []
    for _ in range(6):
        waits.append(play.due_s)
        play.fire_next()
        assert play.sent == ["ask reserve"]
    assert waits == [10, 20, 40, 40, 40, 40]


def test_rule_4_an_unanswered_undo_is_sent_again_and_again() -> None:
    play = Play(Order())
    play.cancel()
    waits = []
    for _ in range(5):
        assert play.sent == ["undo reserve"]
        waits.append(play.due_s)
        play.fire_next()
    assert waits == [10, 20, 40, 40, 40]


def test_rule_4_an_unanswered_settle_is_sent_again_and_again() -> None:
    play = at_charge()
    play.cancel()
    waits = []
    for _ in range(5):
        assert play.sent == ["settle charge"]
        waits.append(play.due_s)
        play.fire_next()
    assert waits == [10, 20, 40, 40, 40]


def test_rule_4_an_undo_carries_the_recorded_command_and_reply_and_no_expiry() -> None:
    # without it: the participant lost its row, or its handler needs what it was asked, and cannot undo
    play = at_charge()
    command, reply = play.run("reserve").command, recording(Reserved())
    play.rejected("charge", Declined())
    for _ in range(10):
        undo = play.effect(SendUndo)
        assert (undo.command, undo.reply, undo.issued_at) == (command, reply, T0)
        assert "not_after" not in undo.__struct_fields__
        play.fire_next()


def test_rule_4_a_reply_that_comes_while_the_undo_is_under_way_goes_with_its_resends() -> None:
    play = Play(Order())
    play.cancel()
    assert play.effect(SendUndo).reply is None
    play.done("reserve", Reserved(number=7), attempt=1)
    play.fire_next()
    assert play.effect(SendUndo).reply == recording(Reserved(number=7))


def test_rule_4_commands_that_expire_before_their_resend_are_refused_as_a_policy() -> None:
    with pytest.raises(UsageError, match="command_ttl longer"):
        Policy(command_ttl=timedelta(seconds=100), resend=Retry(attempts=None, delay=1, max_delay=100))
    with pytest.raises(UsageError, match="for ever"):
        Policy(resend=Retry(attempts=5, delay=1, max_delay=10))


# 5. settle


def test_rule_5_a_pivot_that_timed_out_is_settled_and_goes_forward_when_it_was_done() -> None:
    # without it: the money is taken, the replies are lost, and the saga ends "compensated"
    play = at_charge()
    play.wait(60).fire()
    assert play.told == [What.STEP_TIMED_OUT, What.STEP_SETTLING]
    assert play.sent == ["settle charge"]
    assert play.phase() is Phase.RUNNING
    play.done("charge", Charged())
    assert play.sent == ["ask ship"]
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_rule_5_a_pivot_that_timed_out_goes_back_when_it_is_closed() -> None:
    play = at_charge()
    play.wait(60).fire()
    play.closed("charge")
    assert play.statuses == {"reserve": RunStatus.UNDOING, "charge": RunStatus.CLOSED}
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == "timeout"


def test_rule_5_a_pivot_that_timed_out_goes_back_when_it_was_rejected() -> None:
    play = at_charge()
    play.wait(60).fire()
    play.rejected("charge", Declined())
    assert play.statuses == {"reserve": RunStatus.UNDOING, "charge": RunStatus.REJECTED}


def test_rule_5_a_pivot_in_lasting_doubt_is_stuck_and_nothing_is_undone() -> None:
    play = at_charge()
    play.wait(60).fire()
    for _ in range(2):
        play.in_doubt("charge")
        assert play.run("charge").status is RunStatus.SETTLING
        play.fire_next()
        assert play.sent == ["settle charge"]
    play.in_doubt("charge")
    assert play.run("charge").status is RunStatus.STUCK
    assert play.run("charge").stuck_on == "outcome"
    assert play.phase() is Phase.RUNNING
    assert play.snapshot.stuck
    assert What.UNDO_ISSUED not in [what for what, _ in play.all_entries]


def test_rule_5_a_pivot_whose_attempts_are_exhausted_is_settled_not_undone() -> None:
    play = at_charge()
    for _ in range(2):
        play.failed("charge")
        play.fire_next()
    play.failed("charge")
    assert play.sent == ["settle charge"]
    assert play.phase() is Phase.RUNNING


def test_rule_5_a_pivot_of_which_the_participant_is_in_doubt_is_settled() -> None:
    play = at_charge()
    play.in_doubt("charge")
    assert play.sent == ["settle charge"]


def test_rule_5_a_failure_of_the_command_is_no_answer_to_the_settle() -> None:
    # without it: "failed" of an early attempt comes late and is taken for "it did not happen"
    play = at_charge()
    play.wait(60).fire()
    assert play.failed("charge", attempt=1) is Verdict.LATE
    assert play.run("charge").status is RunStatus.SETTLING


def test_rule_5_a_doubt_about_the_command_is_no_doubt_about_the_settle() -> None:
    play = at_charge()
    play.cancel()
    assert play.in_doubt("charge", attempt=1) is Verdict.DUPLICATE
    assert (play.run("charge").failures, play.sent) == (0, [])


def test_rule_5_failures_of_the_command_are_no_doubts_about_the_settle() -> None:
    play = at_charge()
    play.failed("charge")
    play.cancel()
    for _ in range(2):
        play.in_doubt("charge")
        assert play.run("charge").status is RunStatus.SETTLING
        play.fire_next()
    play.in_doubt("charge")
    assert play.run("charge").status is RunStatus.STUCK


def test_rule_5_a_compensatable_step_that_timed_out_is_undone_without_a_settle() -> None:
    class Slow(Saga):
        @step(timeout=20)
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

    play = Play(Slow())
    play.wait(20).fire()
    assert play.sent == ["undo reserve"]
    assert play.effect(SendUndo).reply is None
    assert play.phase() is Phase.COMPENSATING
    play.closed("reserve")
    assert play.told == [What.NOTHING_TO_UNDO, What.COMPENSATED]


def test_rule_5_a_step_that_only_reads_needs_no_settle() -> None:
    class Reads(Saga):
        @step(readonly=True, timeout=20)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Reads())
    play.wait(20).fire()
    assert play.sent == []
    assert play.phase() is Phase.COMPENSATED


def test_rule_5_undone_is_proof_that_a_reply_was_no_mistake_and_closed_is_not() -> None:
    # a participant that lost its memory says "never happened" of what it had replied to: that is no undo
    play = at_charge()
    play.rejected("charge", Declined())
    for failures in (1, 2):
        play.closed("reserve")
        assert play.run("reserve").status is RunStatus.UNDO_RETRYING
        assert play.run("reserve").undo_failures == failures
        play.fire_next()
        assert play.effect(SendUndo).reply == recording(Reserved())
    play.closed("reserve")
    assert play.run("reserve").status is RunStatus.UNDO_STUCK
    assert play.phase() is Phase.COMPENSATING


# 8. the pivot


def test_rule_8_a_cancel_after_the_pivot_is_too_late() -> None:
    play = past_the_pivot()
    assert play.cancel(reply_to="client:1") is Verdict.REFUSED
    assert "too late" in play.detail
    assert (play.notice.what, play.notice.code) == ("refused", "refused")
    assert play.run("ship").status is RunStatus.ISSUED
    assert play.phase() is Phase.RUNNING


def test_rule_8_a_cancel_during_the_pivot_waits_for_what_became_of_it() -> None:
    play = at_charge()
    assert play.cancel() is Verdict.APPLIED
    assert play.sent == ["settle charge"]
    assert play.phase() is Phase.RUNNING
    assert play.snapshot.aborting is not None
    assert play.cancel() is Verdict.DUPLICATE
    play.closed("charge")
    assert play.sent == ["undo reserve"]
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure is not None
    assert (play.snapshot.failure.error, play.snapshot.failure.message) == ("cancelled", "no more")


@pytest.mark.parametrize("attempt", [1, 2], ids=["to the command", "to the settle"])
def test_rule_8_a_cancel_during_a_pivot_that_turns_out_done_is_too_late(attempt: int) -> None:
    play = at_charge()
    play.cancel()
    play.done("charge", Charged(), attempt=attempt)
    assert What.CANCEL_TOO_LATE in play.told
    assert play.sent == ["ask ship"]
    assert play.snapshot.aborting is None
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_rule_8_a_cancel_while_the_pivot_retries_settles_it_first() -> None:
    play = at_charge()
    play.failed("charge")
    assert play.run("charge").status is RunStatus.RETRYING
    play.cancel()
    assert play.sent == ["settle charge"]
    assert play.fire() is Verdict.DUPLICATE


def test_rule_8_a_cancel_of_a_pivot_that_is_stuck_in_doubt_asks_once_more() -> None:
    play = at_charge()
    play.wait(60).fire()
    for _ in range(2):
        play.in_doubt("charge")
        play.fire_next()
    play.in_doubt("charge")
    assert play.cancel() is Verdict.APPLIED
    assert play.sent == ["settle charge"]
    play.closed("charge")
    assert play.sent == ["undo reserve"]


def test_rule_8_nothing_new_begins_while_a_cancel_waits_for_the_pivot() -> None:
    class Beside(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

        @step(after=())
        def nap(self) -> Sleep:
            return Sleep(5)

        @step(readonly=True, after=nap)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Beside())
    play.cancel()
    play.wait(5).fire()
    assert play.statuses == {"charge": RunStatus.SETTLING, "nap": RunStatus.DONE}
    play.done("charge", Charged())
    assert play.sent == ["ask rate"]


def test_rule_8_a_rejection_after_the_pivot_is_stuck_not_compensated() -> None:
    # without it: what is paid is "compensated" as far as it can be, and the rest stays for ever
    play = past_the_pivot()
    play.rejected("ship", NoRoute())
    assert play.run("ship").status is RunStatus.STUCK
    assert (play.phase(), play.snapshot.stuck) == (Phase.RUNNING, True)
    assert play.sent == []


def test_rule_8_a_handler_is_not_asked_about_a_rejection_after_the_pivot() -> None:
    class Asking(Order):
        log: list[str] = []

        @step(retriable=True, after="charge")
        def ship(self) -> Ship:
            return Ship()

        @ship.on_rejection
        def no_route(self, no: NoRoute) -> None:
            self.log.append("asked")

    play = Play(Asking())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.rejected("ship", NoRoute())
    assert play.run("ship").status is RunStatus.STUCK
    assert play.state.log == []


def test_rule_8_whoever_wants_to_go_back_behind_the_pivot_is_told_that_it_is_too_late() -> None:
    play = past_the_pivot()
    turn = Turn(play.definition, play.snapshot, play.now, POLICY)
    assert not backward.go_back(turn, Failure("any"))
    assert (turn.phase, turn.aborting, turn.effects) == (Phase.RUNNING, None, [])


def test_rule_8_exhaustion_after_the_pivot_is_stuck_not_compensated() -> None:
    class Impatient(Order):
        @step(retriable=True, retry=Retry(attempts=2, delay=1), after="charge")
        def ship(self) -> Ship:
            return Ship()

    play = Play(Impatient())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.failed("ship")
    play.fire_next()
    play.failed("ship")
    assert play.run("ship").status is RunStatus.STUCK
    assert play.phase() is Phase.RUNNING


def test_rule_8_a_retriable_step_is_retried_for_ever_by_default() -> None:
    play = past_the_pivot()
    for _ in range(50):
        play.failed("ship")
        assert play.run("ship").status is RunStatus.RETRYING
        play.fire_next()
    play.done("ship")
    assert play.phase() is Phase.COMPLETED


def test_rule_8_what_fails_beside_the_pivot_waits_for_it_and_is_stuck_when_the_pivot_is_done() -> None:
    # without it: a parallel to pivot P: P succeeds, A is rejected, and no legal history exists

    class Beside(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

        @step(readonly=True, after=reserve)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Beside())
    play.done("reserve", Reserved())
    play.rejected("rate", SoldOut())
    assert play.sent == ["settle charge"]
    assert play.phase() is Phase.RUNNING
    play.done("charge", Charged())
    assert play.statuses == {
        "reserve": RunStatus.DONE,
        "charge": RunStatus.DONE,
        "rate": RunStatus.STUCK,
    }
    play.retry("rate")
    assert play.sent == ["ask rate"]
    play.done("rate", Rated())
    assert play.phase() is Phase.COMPLETED


def test_rule_8_what_fails_beside_a_pivot_that_did_not_happen_takes_the_saga_back() -> None:
    class Beside(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

        @step(readonly=True, after=())
        def rate(self) -> Rate:
            return Rate()

    play = Play(Beside())
    play.rejected("rate", SoldOut())
    play.closed("charge")
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == SoldOut.__tag__


def test_rule_8_the_deadline_turns_back_before_the_pivot_and_not_behind_it() -> None:
    class Timed(Order, deadline=50):
        pass

    early = Play(Timed())
    early.wait(50).fire()
    assert early.phase() is Phase.COMPENSATING
    assert early.snapshot.failure is not None
    assert early.snapshot.failure.error == "deadline"

    late = Play(Timed())
    late.done("reserve", Reserved())
    late.done("charge", Charged())
    late.wait(50).fire()
    assert [entry.detail for entry in late.entries if entry.what is What.DEADLINE_PASSED] == [
        "charge is done: going forward, late"
    ]
    assert late.phase() is Phase.RUNNING
    assert late.snapshot.deadline is None

    during = Play(Timed())
    during.done("reserve", Reserved())
    during.wait(50).fire()
    assert during.snapshot.aborting is not None
    assert "settle charge" in during.sent


# 9. what is in flight


def test_rule_9_what_is_in_flight_is_undone_at_once_and_its_ancestors_wait_for_it() -> None:
    # without it: reserve is undone first, and pack still happens on what is gone
    play = Play(Parallel())
    play.done("reserve", Reserved())
    assert play.statuses == {
        "reserve": RunStatus.DONE,
        "pack": RunStatus.ISSUED,
        "weigh": RunStatus.ISSUED,
    }
    play.cancel()
    assert sorted(play.sent) == ["undo pack", "undo weigh"]
    play.undone("weigh")
    assert play.sent == []
    play.closed("pack")
    assert play.sent == ["undo reserve"]
    assert play.phase() is Phase.COMPENSATING
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED


def test_rule_9_what_is_about_to_be_retried_may_have_happened_and_is_undone() -> None:
    play = Play(Order())
    play.failed("reserve")
    assert play.statuses == {"reserve": RunStatus.RETRYING}
    play.cancel()
    assert play.sent == ["undo reserve"]
    play.fire_next()
    assert play.sent == ["undo reserve"]


def test_rule_9_replies_that_come_after_the_turn_are_only_recorded() -> None:
    class Noting(Saga):
        numbers: list[int] = []

        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.on_success
        def reserved(self, reply: Reserved) -> None:
            self.numbers.append(reply.number)

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step
        def pack(self) -> Pack:
            return Pack()

        @pack.compensation
        def unpack(self) -> Unpack:
            return Unpack()

    play = Play(Noting())
    play.cancel()
    assert play.done("reserve", Reserved(number=7), attempt=1) is Verdict.APPLIED
    assert play.told == [What.LATE]
    assert play.sent == []
    assert play.state.numbers == []
    assert play.run("reserve").status is RunStatus.UNDOING
    assert play.run("reserve").reply == recording(Reserved(number=7))
    assert play.done("reserve", Reserved(number=7), attempt=1) is Verdict.DUPLICATE
    assert "pack" not in play.statuses


def test_rule_9_a_failure_or_rejection_that_comes_after_the_turn_changes_nothing() -> None:
    play = Play(Order())
    play.cancel()
    assert play.failed("reserve", attempt=1) is Verdict.LATE
    assert play.rejected("reserve", SoldOut(), attempt=1) is Verdict.LATE
    assert play.run("reserve").status is RunStatus.UNDOING


def test_rule_9_a_rejection_that_comes_before_the_undo_goes_out_spares_it() -> None:
    class Chain(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            raise ValueError("cannot say how")

    play = Play(Chain())
    play.cancel()
    assert play.run("reserve").status is RunStatus.UNDO_STUCK
    play.rejected("reserve", SoldOut(), attempt=1)
    assert play.run("reserve").status is RunStatus.REJECTED
    assert play.phase() is Phase.COMPENSATED


# 10. paused, stuck, waived


def test_rule_10_a_paused_saga_keeps_replies_and_dispatches_nothing() -> None:
    play = Play(Order())
    assert play.pause() is Verdict.APPLIED
    assert play.done("reserve", Reserved()) is Verdict.HELD
    assert play.effects == ()
    assert play.statuses == {"reserve": RunStatus.ISSUED}
    assert play.snapshot.wake_at is None
    assert play.wait(1000).fire() is Verdict.LATE
    assert play.effects == ()
    assert play.resume() is Verdict.APPLIED
    assert play.sent == ["ask charge"]
    assert play.snapshot.held == ()


def test_rule_10_a_reply_that_comes_twice_during_the_pause_is_kept_once() -> None:
    play = Play(Order())
    play.pause()
    play.signal(Approve(), id="word-a")
    assert play.signal(Approve(), id="word-a") is Verdict.DUPLICATE
    assert len(play.snapshot.held) == 1


def test_rule_10_replies_of_the_pause_are_applied_before_its_timeouts() -> None:
    # without it: the answer is there, and the step times out all the same
    play = at_charge()
    play.pause()
    play.wait(3600)
    play.done("charge", Charged())
    play.resume()
    assert play.run("charge").status is RunStatus.DONE
    play.fire()
    assert play.run("charge").status is RunStatus.DONE
    assert What.STEP_TIMED_OUT not in [what for what, _ in play.all_entries]


def test_rule_10_resume_rebases_the_timeouts_of_steps() -> None:
    # without it: a pause of an hour times out all that was in flight
    play = at_charge()
    play.wait(20).pause()
    play.wait(3600).resume()
    assert play.run("charge").timeout_at == play.now + timedelta(seconds=40)
    play.fire()
    assert play.sent == ["ask charge"]
    play.wait(39).fire()
    assert play.run("charge").status is RunStatus.ISSUED
    play.wait(1).fire()
    assert play.run("charge").status is RunStatus.SETTLING


def test_rule_10_resume_rebases_the_resends() -> None:
    play = Play(Order())
    play.wait(4).pause()
    play.wait(3600).resume()
    assert play.due_s == 6


def test_rule_10_resume_does_not_move_the_deadline_of_the_saga() -> None:
    class Timed(Order, deadline=100):
        pass

    play = Play(Timed())
    play.wait(20).pause()
    play.wait(1000).resume()
    assert play.snapshot.deadline == T0 + timedelta(seconds=100)
    play.fire()
    assert play.phase() is Phase.COMPENSATING


def test_rule_10_resume_does_not_move_the_end_of_a_sleep() -> None:
    class Sleeper(Saga):
        @step
        def nap(self) -> Sleep:
            return Sleep(50)

    play = Play(Sleeper())
    play.pause()
    play.wait(100).resume()
    play.fire()
    assert play.phase() is Phase.COMPLETED


def test_rule_10_a_stuck_undo_holds_up_what_rests_on_it_and_nothing_else() -> None:
    play = Play(Parallel())
    play.done("reserve", Reserved())
    play.done("pack", Packed())
    play.cancel()
    for _ in range(2):
        play.undo_failed("pack")
        assert play.run("pack").status is RunStatus.UNDO_RETRYING
        play.fire_next()
        assert "undo pack" in play.sent
    play.undo_failed("pack")
    assert play.run("pack").status is RunStatus.UNDO_STUCK
    play.undone("weigh")
    assert play.statuses == {
        "reserve": RunStatus.DONE,
        "pack": RunStatus.UNDO_STUCK,
        "weigh": RunStatus.UNDONE,
    }
    assert (play.phase(), play.snapshot.stuck) == (Phase.COMPENSATING, True)
    assert play.snapshot.wake_at is None


def test_rule_10_skipping_a_stuck_undo_lets_the_others_go_and_is_listed_as_waived() -> None:
    play = Play(Parallel())
    play.done("reserve", Reserved())
    play.cancel()
    play.closed("weigh")
    for _ in range(3):
        play.undo_failed("pack")
        if play.snapshot.wake_at:
            play.fire_next()
    assert play.skip("pack") is Verdict.APPLIED
    assert play.sent == ["undo reserve"]
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert [(w.step, w.reason, w.by) for w in play.snapshot.waived] == [("pack#0", "never mind", "ada")]
    assert play.run("pack").status is RunStatus.WAIVED


def test_rule_10_resolving_a_stuck_undo_back_is_listed_as_waived() -> None:
    play = Play(Order())
    play.cancel()
    for _ in range(3):
        play.undo_failed("reserve")
        if play.snapshot.wake_at:
            play.fire_next()
    assert play.forward("reserve", Reserved()) is Verdict.REFUSED
    assert play.back("reserve") is Verdict.APPLIED
    assert play.phase() is Phase.COMPENSATED
    assert [w.step for w in play.snapshot.waived] == ["reserve#0"]


def test_rule_10_skipping_a_step_that_is_stuck_behind_the_pivot_is_listed_as_waived() -> None:
    play = past_the_pivot()
    play.rejected("ship", NoRoute())
    assert play.skip("ship") is Verdict.APPLIED
    assert play.phase() is Phase.COMPLETED
    assert [w.step for w in play.snapshot.waived] == ["ship#0"]


@pytest.mark.parametrize("word", ["retry", "skip", "forward", "back"])
def test_rule_10_an_operator_who_saw_another_version_is_refused(word: str) -> None:
    # without it: two operators look at the same desk, and the second decides about what the first has changed
    play = past_the_pivot()
    play.rejected("ship", NoRoute())
    seen = play.snapshot
    verdict = getattr(play, word)("ship", version=seen.version - 1)
    assert verdict is Verdict.REFUSED
    assert f"from version {seen.version - 1} to {seen.version}" in play.detail
    assert play.snapshot == seen
    assert play.effects == ()
    assert play.retry("ship", version=seen.version) is Verdict.APPLIED


def test_rule_10_operators_are_told_to_resume_first() -> None:
    play = past_the_pivot()
    play.rejected("ship", NoRoute())
    play.pause()
    for word in (play.retry, play.skip, play.back):
        assert word("ship") is Verdict.REFUSED
        assert "resume it first" in play.detail


# 11. early signals and events


class Waits(Saga):
    """reserve -> approve (signal) -> paid (event) ."""

    order: str = "o-1"
    by: list[str] = []

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step
    def approve(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @approve.on_success
    def approved(self, word: Approve) -> None:
        self.by.append(word.by)

    @step
    def paid(self) -> WaitFor[Paid]:
        return WaitFor(Paid, where={"order": self.order})


def test_rule_11_a_signal_that_comes_before_its_step_is_kept_for_it() -> None:
    # without it: the approval arrives before the step that awaits it, and the saga waits for ever
    play = Play(Waits())
    assert play.signal(Approve(by="ada")) is Verdict.APPLIED
    assert play.told == [What.BUFFERED]
    play.done("reserve", Reserved())
    assert play.statuses == {
        "reserve": RunStatus.DONE,
        "approve": RunStatus.DONE,
        "paid": RunStatus.AWAITING,
    }
    assert play.state.by == ["ada"]
    assert play.snapshot.buffer == ()


def test_rule_11_an_event_that_comes_before_its_step_is_kept_and_must_match() -> None:
    play = Play(Waits())
    play.event(Paid(order="o-2"))
    play.event(Paid(order="o-1"))
    play.signal(Approve())
    play.done("reserve", Reserved())
    assert play.phase() is Phase.COMPLETED


def test_rule_11_signals_and_events_are_known_again_by_their_ids() -> None:
    play = Play(Waits())
    assert play.signal(Approve(by="ada"), id="s-1") is Verdict.APPLIED
    assert play.signal(Approve(by="ada"), id="s-1") is Verdict.DUPLICATE
    assert len(play.snapshot.buffer) == 1
    play.done("reserve", Reserved())
    assert play.signal(Approve(by="ada"), id="s-1") is Verdict.DUPLICATE
    assert play.state.by == ["ada"]
    assert play.event(Paid(order="o-1"), id="e-1") is Verdict.APPLIED
    assert play.phase() is Phase.COMPLETED
    # the event that ended the saga, delivered again after a crash: no dead letter
    assert play.event(Paid(order="o-1"), id="e-1") is Verdict.DUPLICATE
    assert play.event(Paid(order="o-1"), id="e-2") is Verdict.REFUSED


def test_rule_11_the_buffer_has_a_bound_and_says_so() -> None:
    play = Play(Waits())
    for _ in range(3):
        assert play.event(Paid(order="o-2")) is Verdict.APPLIED
    assert play.signal(Approve(), id="s-1") is Verdict.REFUSED
    assert "no room" in play.detail
    assert len(play.snapshot.buffer) == 3


def test_rule_11_what_no_step_awaits_any_more_is_refused() -> None:
    play = Play(Waits())
    play.done("reserve", Reserved())
    play.signal(Approve())
    assert play.signal(Approve()) is Verdict.REFUSED
    assert "any more" in play.detail


def test_rule_11_a_signal_for_a_step_that_is_stuck_unbegun_is_kept_for_its_retry() -> None:
    # without it: the approval comes while the step's method still raises, and the mended step waits for ever

    class Broken(Saga):
        zero: int = 0

        @step
        def approve(self) -> WaitFor[Approve]:
            if not self.zero:
                raise ValueError("broken")
            return WaitFor(Approve)

        @step(after=())
        def mend(self) -> Pack:
            return Pack()

        @mend.on_success
        def mended(self, reply: Packed) -> None:
            self.zero = 1

        @mend.compensation
        def unmend(self) -> Unpack:
            return Unpack()

    play = Play(Broken())
    assert play.run("approve").status is RunStatus.STUCK
    assert play.signal(Approve()) is Verdict.APPLIED
    play.done("mend", Packed())
    play.retry("approve")
    assert play.phase() is Phase.COMPLETED


def test_rule_11_an_event_for_a_wait_that_timed_out_behind_the_pivot_is_kept_for_its_retry() -> None:
    class Late(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

        @step(timeout=5)
        def paid(self) -> WaitFor[Paid]:
            return WaitFor(Paid, where={"order": "o-1"})

    play = Play(Late())
    play.done("charge", Charged())
    play.wait(5).fire()
    assert play.run("paid").status is RunStatus.STUCK
    assert play.event(Paid(order="o-1")) is Verdict.APPLIED
    play.retry("paid")
    assert play.phase() is Phase.COMPLETED


def test_rule_11_the_buffer_is_dropped_when_the_saga_goes_back() -> None:
    play = Play(Waits())
    play.signal(Approve())
    play.cancel()
    assert play.snapshot.buffer == ()
    assert play.signal(Approve()) is Verdict.REFUSED


# 15. timers


def test_rule_15_a_timer_with_nothing_due_does_nothing() -> None:
    # without it: a sweep delivered twice, or after the reply, sends or times out once more
    play = Play(Order())
    before = play.snapshot
    assert play.fire() is Verdict.DUPLICATE
    assert play.effects == ()
    assert play.snapshot == before
    play.fire_next()
    assert play.fire() is Verdict.DUPLICATE


def test_rule_15_a_timer_of_another_incarnation_does_nothing() -> None:
    play = Play(Order())
    play.wait(1000)
    assert play.tell(TimersFired(message_id="t", incarnation="another")) is Verdict.LATE
    assert play.effects == ()


def test_rule_15_a_timer_behind_the_reply_it_waited_for_finds_nothing_due() -> None:
    play = at_charge()
    play.wait(60)
    play.done("charge", Charged())
    assert play.fire() is Verdict.DUPLICATE


def test_rule_15_time_never_runs_backwards_in_a_saga() -> None:
    # a store that was failed over is a minute behind
    play = Play(Order())
    play.wait(50).done("reserve", Reserved())
    latest = play.snapshot.clock
    play.wait(-60)
    play.failed("charge")
    assert play.snapshot.clock == latest
    assert play.run("charge").wake_at == latest + timedelta(seconds=1)
    play.fire()
    assert play.run("charge").status is RunStatus.RETRYING


def test_rule_15_all_that_is_due_is_done_by_one_timer() -> None:
    play = Play(Parallel())
    play.wait(30).fire()
    assert sorted(play.sent) == ["ask reserve", "ask weigh"]


def test_rule_15_a_step_that_times_out_turns_round_what_was_due_with_it() -> None:
    # without it: what is due for the second run is done although the first has changed what it is for

    class Both(Saga):
        @step(timeout=10)
        def weigh(self) -> Pack:
            return Pack()

        @weigh.compensation
        def unweigh(self) -> Unpack:
            return Unpack()

        @step(after=())
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

    play = Play(Both())
    play.wait(10).fire()
    assert play.phase() is Phase.COMPENSATING
    assert sorted(play.sent) == ["undo reserve", "undo weigh"]


# 19. what kills its process


FINAL = Failure("ProcessDied", "its handler was begun 5 times, and each time the process died", final=True)


def test_rule_19_a_failure_that_is_final_is_not_tried_again_but_undone() -> None:
    # without it: a command that kills its service is sent again, and kills again
    play = Play(Order())
    play.answer("reserve", ReplyOutcome.FAILED, FINAL)
    assert play.sent == ["undo reserve"]
    assert play.snapshot.failure == FINAL


def test_rule_19_a_final_failure_of_the_pivot_is_settled() -> None:
    play = at_charge()
    play.answer("charge", ReplyOutcome.FAILED, FINAL)
    assert play.sent == ["settle charge"]


def test_rule_19_a_final_failure_of_a_retriable_step_is_stuck_until_an_operator_tries_again() -> None:
    play = past_the_pivot()
    play.answer("ship", ReplyOutcome.FAILED, FINAL)
    assert play.run("ship").status is RunStatus.STUCK
    play.retry("ship")
    assert play.sent == ["ask ship"]


def test_rule_19_a_final_failure_of_an_undo_is_stuck_until_an_operator_tries_again() -> None:
    play = at_charge()
    play.cancel()
    play.closed("charge")
    play.answer("reserve", ReplyOutcome.UNDO_FAILED, FINAL)
    assert play.run("reserve").status is RunStatus.UNDO_STUCK
    play.retry("reserve")
    assert play.sent == ["undo reserve"]
