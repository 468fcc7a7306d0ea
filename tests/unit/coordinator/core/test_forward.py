"""Going forward: what each answer, timer and result of a step leads to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.coordinator.core.kit import (
    T0,
    Charge,
    Charged,
    Declined,
    Pack,
    Packed,
    Placed,
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

from amends.contracts import Failure, Rejection, ReplyOutcome
from amends.coordinator import Compensate, Publish, Saga, Skip, Sleep, step
from amends.coordinator.core import Phase, RunStatus, Verdict
from amends.coordinator.core.effects import End, Notify, PublishEvent, SendCommand
from amends.coordinator.core.inputs import Watch
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Recording
from amends.coordinator.retry import Retry


class Order(Saga):
    """reserve -> charge (pivot) -> ship, and what the saga heard of it."""

    log: list[str] = []

    @step(timeout=100)
    def reserve(self) -> Reserve:
        return Reserve(item="chair")

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.log.append(f"reserved {reply.number}")

    @reserve.on_rejection
    def sold_out(self, no: SoldOut) -> Compensate:
        self.log.append(f"left {no.left}")
        return Compensate(f"only {no.left} left")

    @reserve.on_failure
    def broken(self, failure: Failure) -> Compensate:
        self.log.append(failure.error)
        return Compensate("the stock is broken")

    @reserve.on_timeout
    def silent(self) -> Compensate:
        self.log.append("silent")
        return Compensate("the stock is silent")

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge()

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()

    @ship.on_success
    def shipped(self, reply: None) -> None:
        self.log.append(f"shipped {reply}")


# the common path


def test_a_start_asks_for_the_first_step() -> None:
    play = Play(Order())
    assert play.phase() is Phase.RUNNING
    assert play.effects == (
        SendCommand(
            run="reserve#0",
            service="stock",
            command=recording(Reserve(item="chair")),
            revision=0,
            attempt=1,
            issued_at=T0,
            not_after=T0 + timedelta(seconds=100),
        ),
    )
    assert play.told == [What.STARTED, What.STEP_ISSUED]
    assert play.snapshot.started_at == play.snapshot.clock == T0


def test_the_one_who_starts_is_told_and_hears_of_the_end() -> None:
    play = Play(Order(), reply_to="client:1")
    assert (play.notice.what, play.notice.version) == ("accepted", 1)
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.done("ship")
    assert play.effects[0] == End(Phase.COMPLETED)
    notify = play.effect(Notify)
    assert (notify.reply_to, notify.notice.what, notify.notice.version) == ("client:1", "ended", play.snapshot.version)
    assert (notify.notice.status, notify.notice.code, notify.notice.problem) == ("completed", "", "")


def test_each_reply_is_given_to_the_saga_and_lets_the_next_step_go() -> None:
    play = Play(Order())
    play.done("reserve", Reserved(number=7))
    assert play.sent == ["ask charge"]
    assert play.told == [What.STEP_DONE, What.STEP_ISSUED]
    play.done("charge", Charged())
    assert play.sent == ["ask ship"]
    play.wait(5).done("ship")
    assert play.state.log == ["reserved 7", "shipped None"]
    assert play.told == [What.STEP_DONE, What.COMPLETED]
    assert play.phase() is Phase.COMPLETED
    assert play.snapshot.ended_at == play.now
    assert play.snapshot.wake_at is None


def test_the_journal_keeps_the_state_only_where_it_changed() -> None:
    play = Play(Order())
    assert play.result.record is not None
    assert play.result.record.state == play.snapshot.state
    play.done("reserve", Reserved())
    assert play.result.record.state == play.snapshot.state
    play.done("charge", Charged())
    assert play.result.record.state is None


def test_independent_steps_go_out_together_and_a_join_waits_for_all() -> None:
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

        @step(readonly=True, after=(reserve, pack))
        def rate(self) -> Rate:
            return Rate()

    play = Play(Fan())
    assert play.sent == ["ask reserve", "ask pack"]
    play.done("pack", Packed())
    assert play.sent == []
    play.done("reserve", Reserved())
    assert play.sent == ["ask rate"]


# rejections


def test_a_rejection_takes_the_saga_back_with_the_reason_of_its_handler() -> None:
    play = Play(Order())
    play.rejected("reserve", SoldOut(left=2))
    assert play.statuses == {"reserve": RunStatus.REJECTED}
    assert play.state.log == ["left 2"]
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure == Failure(SoldOut.__tag__, "only 2 left")
    assert play.told == [What.STEP_REJECTED, What.COMPENSATION_STARTED, What.COMPENSATED]
    assert play.sent == []


def test_a_rejection_without_a_handler_is_the_reason_itself() -> None:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.rejected("charge", Declined(reason="no money"))
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == Declined.__tag__
    assert "no money" in play.snapshot.failure.message
    assert play.sent == ["undo reserve"]


def test_a_rejection_that_no_contract_names_is_heard_of_all_the_same() -> None:
    class Open(Saga):
        refusals: int = 0

        @step(readonly=True)
        def rate(self) -> Rate:
            return Rate()

        @rate.on_rejection
        def refused(self, no: Rejection) -> None:
            self.refusals += 1

    play = Play(Open())
    play.rejected("rate", SoldOut())
    assert play.state.refusals == 1
    assert play.phase() is Phase.COMPENSATED


def test_a_rejection_other_than_the_contract_names_takes_the_saga_back_without_its_handler() -> None:
    play = Play(Order())
    play.rejected("reserve", Declined())
    assert play.state.log == []
    assert play.phase() is Phase.COMPENSATED


def test_a_rejection_that_cannot_be_read_takes_the_saga_back_without_its_handler() -> None:
    play = Play(Order())
    play.answer("reserve", ReplyOutcome.REJECTED, Recording(SoldOut.__tag__, b'{"left": "many"}'))
    assert play.state.log == []
    assert play.told[:2] == [What.STEP_REJECTED, What.STEP_FAILED]
    assert play.phase() is Phase.COMPENSATED


def test_a_rejection_of_an_earlier_wording_is_late() -> None:
    play = Play(Order())
    assert play.rejected("reserve", SoldOut(), revision=1) is Verdict.LATE
    assert play.statuses == {"reserve": RunStatus.ISSUED}


# failures and retries


def test_a_failure_is_retried_after_its_backoff_and_then_given_up() -> None:
    play = Play(Order())
    play.failed("reserve")
    assert play.run("reserve").status is RunStatus.RETRYING
    assert (play.due_s, play.run("reserve").failures) == (1, 1)
    assert play.sent == []
    play.fire_next()
    assert play.sent == ["ask reserve"]
    assert play.effect(SendCommand).attempt == 2
    play.failed("reserve")
    assert play.due_s == 2
    play.fire_next()
    play.failed("reserve")
    assert play.sent == ["undo reserve"]
    assert play.state.log == ["Broken"]
    assert play.snapshot.failure == Failure("Broken", "the stock is broken")


def test_a_step_has_its_own_retry_policy() -> None:
    class Once(Saga):
        @step(readonly=True, retry=Retry(attempts=1))
        def rate(self) -> Rate:
            return Rate()

    play = Play(Once())
    play.failed("rate")
    assert play.statuses == {"rate": RunStatus.FAILED}
    assert play.phase() is Phase.COMPENSATED


def test_a_success_while_the_retry_waits_is_taken() -> None:
    play = Play(Order())
    play.failed("reserve")
    play.done("reserve", Reserved(), attempt=1)
    assert play.sent == ["ask charge"]


def test_a_failure_heard_twice_counts_once() -> None:
    play = Play(Order())
    play.failed("reserve", attempt=1)
    assert play.failed("reserve", attempt=1) is Verdict.DUPLICATE
    play.fire_next()
    assert play.failed("reserve", attempt=1) is Verdict.DUPLICATE
    assert play.run("reserve").failures == 1


def test_a_failure_that_comes_after_the_resend_counts_all_the_same() -> None:
    # an action that takes longer than the waits before resends fails, and fails: that must come to an end
    play = Play(Order())
    for attempt in (1, 2):
        play.fire_next()
        assert play.run("reserve").attempt == attempt + 1
        assert play.failed("reserve", attempt=attempt) is Verdict.APPLIED
        assert play.run("reserve").failures == attempt
    play.failed("reserve", attempt=3)
    assert play.sent == ["undo reserve"]


def test_a_failure_without_a_readable_reason_keeps_its_raw_text() -> None:
    play = Play(Order())
    for _ in range(3):
        play.answer("reserve", ReplyOutcome.FAILED, Recording("strange.v1", b"boom"))
        if play.run("reserve").status is RunStatus.RETRYING:
            play.fire_next()
    assert play.run("reserve").failure == Failure("strange.v1", "the stock is broken")


# timeouts


def test_a_step_that_times_out_goes_back_with_the_reason_of_its_handler() -> None:
    play = Play(Order())
    play.wait(100).fire()
    assert play.state.log == ["silent"]
    assert play.snapshot.failure == Failure("timeout", "the stock is silent")
    assert play.sent == ["undo reserve"]


def test_a_timeout_also_ends_the_retries() -> None:
    play = Play(Order())
    for _ in range(2):
        play.failed("reserve")
        play.wait(49).fire()
    assert play.run("reserve").status is RunStatus.ISSUED
    assert play.due_s == 2
    play.fire_next()
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == "timeout"


def test_a_timeout_comes_before_a_retry_that_would_wait_longer() -> None:
    class Slow(Saga):
        @step(readonly=True, timeout=20, retry=Retry(attempts=None, delay=50))
        def rate(self) -> Rate:
            return Rate()

    play = Play(Slow())
    play.failed("rate")
    assert play.run("rate").status is RunStatus.RETRYING
    assert play.due_s == 20
    play.fire_next()
    assert play.snapshot.failure == Failure("timeout", "rate#0: no answer of rating within 0:00:20")


def test_a_step_in_doubt_is_given_up() -> None:
    play = Play(Order())
    play.in_doubt("reserve")
    assert play.sent == ["undo reserve"]
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == "in-doubt"


def test_a_step_that_its_participant_closed_takes_the_saga_back() -> None:
    play = Play(Order())
    play.closed("reserve")
    assert play.statuses == {"reserve": RunStatus.CLOSED}
    assert play.phase() is Phase.COMPENSATED


# what a step may return


def test_a_sleep_ends_by_its_timer() -> None:
    class Sleeper(Saga):
        @step
        def nap(self) -> Sleep:
            return Sleep(timedelta(minutes=5))

        @step(readonly=True)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Sleeper())
    assert play.statuses == {"nap": RunStatus.SLEEPING}
    assert play.due_s == 300
    assert play.wait(299).fire() is Verdict.DUPLICATE
    play.fire_next()
    assert play.sent == ["ask rate"]


def test_a_sleep_beyond_the_calendar_is_a_sleep_until_its_end() -> None:
    class Sleeper(Saga):
        @step
        def nap(self) -> Sleep:
            return Sleep(timedelta.max)

    play = Play(Sleeper())
    assert play.statuses == {"nap": RunStatus.SLEEPING}
    play.pause()
    play.wait(10).resume()
    assert play.snapshot.wake_at is not None
    assert play.snapshot.wake_at.year == 9999


def test_waits_beyond_the_calendar_end_with_it() -> None:
    class Patient(Saga, deadline=timedelta.max):
        @step(readonly=True, timeout=timedelta.max)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Patient())
    assert play.snapshot.deadline is not None
    play.pause()
    play.wait(10).resume()
    assert play.run("rate").timeout_at == play.snapshot.deadline
    play.done("rate", Rated())
    assert play.phase() is Phase.COMPLETED


def test_events_are_published_in_order_and_numbered() -> None:
    class Teller(Saga):
        @step
        def first(self) -> Publish:
            return Publish(Placed(order="a"))

        @step
        def second(self) -> Publish:
            return Publish(Placed(order="b"))

    play = Play(Teller())
    assert play.effects == (
        PublishEvent(recording(Placed(order="a")), 1, "first#0"),
        PublishEvent(recording(Placed(order="b")), 2, "second#0"),
        End(Phase.COMPLETED),
    )
    assert play.snapshot.sequence == 2


def test_a_local_step_changes_the_state_and_is_done() -> None:
    class Local(Saga):
        count: int = 0

        @step
        def bump(self) -> None:
            self.count += 1

        @step
        def bump_again(self) -> None:
            self.count += 10

    play = Play(Local())
    assert play.state.count == 11
    assert play.phase() is Phase.COMPLETED


def test_a_skipped_step_lets_the_next_one_go_and_is_not_undone() -> None:
    class Skipping(Saga):
        @step
        def reserve(self) -> Reserve | Skip:
            return Skip("nothing to reserve")

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step(when=lambda saga: False)
        def pack(self) -> Pack:
            return Pack()

        @pack.compensation
        def unpack(self) -> Unpack:
            return Unpack()

        @step(readonly=True)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Skipping())
    assert play.statuses == {
        "reserve": RunStatus.SKIPPED,
        "pack": RunStatus.SKIPPED,
        "rate": RunStatus.ISSUED,
    }
    assert play.run("reserve").note == "nothing to reserve"
    play.cancel()
    assert play.sent == []
    assert play.phase() is Phase.COMPENSATED


def test_a_skipped_pivot_is_a_pivot_that_is_through() -> None:
    class Free(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step(pivot=True)
        def charge(self) -> Charge | Skip:
            return Skip("free of charge")

        @step(retriable=True)
        def ship(self) -> Ship:
            return Ship()

    play = Play(Free())
    play.done("reserve", Reserved())
    assert play.sent == ["ask ship"]
    assert play.cancel() is Verdict.REFUSED


def test_a_condition_sees_the_state_at_its_turn() -> None:
    class Conditional(Saga):
        wanted: bool = False

        @step
        def want(self) -> None:
            self.wanted = True

        @step(readonly=True, when=lambda saga: saga.wanted)
        def rate(self) -> Rate:
            return Rate()

    assert Play(Conditional()).sent == ["ask rate"]


# answers that are late, doubled or strange


@pytest.mark.parametrize("outcome", list(ReplyOutcome))
def test_no_answer_to_a_step_that_is_done_changes_anything(outcome: ReplyOutcome) -> None:
    play = Play(Order())
    play.done("reserve", Reserved(number=1))
    before = play.snapshot
    strange = outcome in (ReplyOutcome.UNDONE, ReplyOutcome.UNDO_FAILED)
    assert play.answer("reserve", outcome, Reserved(number=2)) is (Verdict.UNEXPECTED if strange else Verdict.LATE)
    assert (play.snapshot, play.effects, play.entries) == (before, (), ())


@pytest.mark.parametrize("outcome", [ReplyOutcome.UNDONE, ReplyOutcome.UNDO_FAILED])
def test_an_answer_to_an_undo_that_nobody_asked_for_is_unexpected(outcome: ReplyOutcome) -> None:
    play = Play(Order())
    assert play.answer("reserve", outcome) is Verdict.UNEXPECTED
    assert play.statuses == {"reserve": RunStatus.ISSUED}


def test_an_answer_about_a_step_that_was_never_sent_is_unexpected() -> None:
    play = Play(Order())
    assert play.done("ship") is Verdict.UNEXPECTED
    assert play.done("no-such-step") is Verdict.UNEXPECTED


def test_a_step_that_was_refused_and_is_done_all_the_same_is_unexpected() -> None:
    # a participant that breaks its word must be seen: what it did is not undone
    play = Play(Order())
    play.done("reserve", Reserved())
    play.rejected("charge", Declined())
    assert play.done("charge", Charged()) is Verdict.UNEXPECTED
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED
    assert play.done("charge", Charged()) is Verdict.UNEXPECTED


def test_answers_after_the_end_are_late_or_unexpected() -> None:
    play = Play(Order())
    play.rejected("reserve", SoldOut())
    assert play.rejected("reserve", SoldOut()) is Verdict.LATE
    assert play.rejected("reserve", SoldOut(), incarnation="another") is Verdict.UNEXPECTED
    assert play.done("charge", Charged()) is Verdict.UNEXPECTED
    assert play.fire() is Verdict.LATE
    assert play.effects == ()


# stuck behind the pivot


def past_the_pivot() -> Play:
    play = Play(Order())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    return play


def test_a_step_that_its_participant_closed_behind_the_pivot_is_stuck() -> None:
    play = past_the_pivot()
    play.closed("ship")
    assert play.run("ship").status is RunStatus.STUCK
    assert play.closed("ship") is Verdict.DUPLICATE
    assert play.failed("ship") is Verdict.LATE
    assert play.in_doubt("ship") is Verdict.LATE


def test_a_success_that_comes_when_the_step_is_stuck_is_taken() -> None:
    play = past_the_pivot()
    play.rejected("ship", SoldOut())
    assert play.rejected("ship", SoldOut()) is Verdict.DUPLICATE
    play.done("ship")
    assert play.phase() is Phase.COMPLETED
    assert play.run("ship").failure is None


def test_a_refusal_of_before_the_retry_does_not_stop_it() -> None:
    play = past_the_pivot()
    play.rejected("ship", SoldOut(), attempt=1)
    play.retry("ship")
    assert play.rejected("ship", SoldOut(), attempt=1) is Verdict.DUPLICATE
    assert play.closed("ship", attempt=1) is Verdict.DUPLICATE
    assert play.run("ship").status is RunStatus.ISSUED
    play.rejected("ship", SoldOut(), attempt=2)
    assert play.run("ship").status is RunStatus.STUCK


def test_a_timeout_behind_the_pivot_is_stuck_and_its_handler_is_not_asked() -> None:
    class Late(Saga):
        log: list[str] = []

        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

        @step(retriable=True, timeout=5)
        def ship(self) -> Ship:
            return Ship()

        @ship.on_timeout
        def silent(self) -> None:
            self.log.append("silent")

    play = Play(Late())
    play.done("charge", Charged())
    play.wait(5).fire()
    assert play.run("ship").status is RunStatus.STUCK
    assert play.state.log == []
    play.retry("ship")
    assert play.run("ship").timeout_at == play.now + timedelta(seconds=5)


# who is told


def test_watchers_are_told_of_the_end_and_only_once_each() -> None:
    play = Play(Order())
    assert play.tell(Watch(message_id="w1", reply_to="client:1")) is Verdict.APPLIED
    assert play.tell(Watch(message_id="w2", reply_to="client:1")) is Verdict.DUPLICATE
    play.rejected("reserve", SoldOut())
    assert play.effect(Notify).reply_to == "client:1"
    assert play.tell(Watch(message_id="w3", reply_to="client:2")) is Verdict.DUPLICATE
    assert (play.notice.what, play.effect(Notify).reply_to) == ("ended", "client:2")


def test_who_watches_is_told_how_it_ended_and_why() -> None:
    play = Play(Order(), reply_to="client:1")
    play.rejected("reserve", SoldOut(left=2))
    first = play.notice
    assert (first.status, first.code, first.problem) == ("compensated", "sold-out.v1", "only 2 left")
    play.tell(Watch(message_id="w1", reply_to="client:2"))
    assert play.notice == first


def test_the_oldest_watchers_give_way() -> None:
    play = Play(Order())
    for number in range(20):
        play.tell(Watch(message_id=f"w{number}", reply_to=f"client:{number}"))
    assert play.snapshot.watchers == tuple(f"client:{number}" for number in range(4, 20))


def test_a_word_is_answered_with_the_version_it_made() -> None:
    play = Play(Order())
    play.cancel(reply_to="client:1", id="c1")
    assert (play.notice.what, play.notice.existing, play.notice.version) == ("accepted", False, play.snapshot.version)
    play.cancel(reply_to="client:1", id="c1")
    assert (play.notice.what, play.notice.existing, play.notice.version) == ("accepted", True, play.snapshot.version)
