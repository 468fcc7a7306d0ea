"""Signals and events: who gets them, what is kept, and which events a saga wants to be told of."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.core.kit import (
    POLICY,
    Approve,
    Charge,
    Charged,
    Paid,
    Placed,
    Play,
    Release,
    Reserve,
    Reserved,
    recording,
)

from amends.contracts import MSGPACK, DecodeError, TerminalError
from amends.coordinator import Saga, Skip, WaitFor, step
from amends.coordinator.core import Phase, RunStatus, Verdict, interests
from amends.coordinator.core.journal import What
from amends.coordinator.core.matching import fields_of, matches
from amends.coordinator.core.snapshot import Awaits, Recording


class Waits(Saga):
    """reserve -> approve (signal) -> paid (event, named by the reservation)."""

    order: str = ""
    heard: list[str] = []

    @step
    def reserve(self) -> Reserve:
        return Reserve()

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.order = f"o-{reply.number}"

    @reserve.compensation
    def release(self) -> Release:
        return Release()

    @step
    def approve(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @approve.on_success
    def approved(self, word: Approve) -> None:
        self.heard.append(word.by)

    @step(timeout=60)
    def paid(self) -> WaitFor[Paid]:
        if not self.order:
            raise ValueError("no order yet")
        return WaitFor(Paid, where={"order": self.order})

    @paid.on_success
    def was_paid(self, event: Paid) -> None:
        self.heard.append(f"{event.amount}")

    @paid.on_timeout
    def never_paid(self) -> None:
        self.heard.append("never")


def waiting() -> Play:
    play = Play(Waits())
    play.done("reserve", Reserved(number=1))
    return play


def test_a_signal_goes_to_the_step_that_awaits_it() -> None:
    play = waiting()
    assert play.run("approve").status is RunStatus.AWAITING
    assert play.snapshot.wake_at is None
    assert play.signal(Approve(by="ada"), reply_to="client:1") is Verdict.APPLIED
    assert play.told == [What.SIGNAL_RECEIVED, What.STEP_DONE, What.STEP_AWAITING]
    assert play.notice.what == "accepted"
    assert play.state.heard == ["ada"]


def test_an_event_goes_to_the_step_whose_conditions_it_meets() -> None:
    play = waiting()
    play.signal(Approve())
    assert play.event(Paid(order="o-2", amount=5)) is Verdict.REFUSED
    assert play.event(Paid(order="o-1", amount=7)) is Verdict.APPLIED
    assert play.told == [What.EVENT_RECEIVED, What.STEP_DONE, What.COMPLETED]
    assert play.state.heard == ["ada", "7"]


def test_a_wait_that_times_out_goes_back() -> None:
    play = waiting()
    play.signal(Approve())
    assert play.due_s == 60
    play.fire_next()
    assert play.state.heard == ["ada", "never"]
    assert play.run("paid").status is RunStatus.FAILED
    assert play.sent == ["undo reserve"]


def test_a_signal_nobody_will_ever_await_is_refused_and_its_sender_told() -> None:
    class Deaf(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

    play = Play(Deaf())
    assert play.signal(Approve(), reply_to="client:1") is Verdict.REFUSED
    assert (play.notice.what, play.notice.problem) == ("refused", play.detail)
    assert play.detail.endswith(f"does not await {Approve.__tag__}: no step ever does; its steps await nothing")


@pytest.mark.parametrize(
    "unreadable",
    [
        Recording(Approve.__tag__, b"not json"),
        Recording(Approve.__tag__, b'{"by": 5}'),
        Recording(Approve.__tag__, b"{}", "application/x-strange"),
    ],
    ids=["no json", "another field", "no codec"],
)
def test_a_signal_that_cannot_be_read_is_no_signal(unreadable: Recording) -> None:
    # kept for later, it would be the answer of a participant that meets it, and pays for it
    early, due = Play(Waits()), waiting()
    for play in (early, due):
        before = play.snapshot
        with pytest.raises(TerminalError):
            play.signal(unreadable)
        assert play.snapshot == before
    early.done("reserve", Reserved(number=1))
    assert early.statuses["approve"] is RunStatus.AWAITING
    due.signal(Approve())
    assert due.state.heard == ["ada"]


def test_a_signal_that_cannot_be_read_during_a_pause_is_noted_at_the_resume() -> None:
    play = waiting()
    play.pause()
    assert play.signal(Recording(Approve.__tag__, b"not json")) is Verdict.HELD
    assert play.signal(Approve(by="bob")) is Verdict.HELD
    assert play.resume() is Verdict.APPLIED
    assert What.LATE in play.told
    assert play.state.heard == ["bob"]


def test_a_signal_that_is_refused_at_the_resume_is_noted() -> None:
    play = waiting()
    play.pause()
    play.signal(Approve(by="ada"))
    play.signal(Approve(by="bob"))
    play.resume()
    (late,) = [entry.detail for entry in play.entries if entry.what is What.LATE]
    assert "kept during the pause" in late
    assert "none of its steps awaits it any more" in late
    assert play.state.heard == ["ada"]


def test_a_signal_awaited_by_two_steps_goes_to_one_of_them() -> None:
    class Two(Saga):
        @step
        def first(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

        @step(after=())
        def second(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

    play = Play(Two())
    play.signal(Approve())
    assert play.statuses == {"first": RunStatus.DONE, "second": RunStatus.AWAITING}
    play.signal(Approve())
    assert play.phase() is Phase.COMPLETED


def test_signals_that_came_early_are_taken_in_the_order_they_came() -> None:
    class Two(Saga):
        heard: list[str] = []

        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step
        def first(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

        @first.on_success
        def one(self, word: Approve) -> None:
            self.heard.append(word.by)

        @step
        def second(self) -> WaitFor[Approve]:
            return WaitFor(Approve)

        @second.on_success
        def two(self, word: Approve) -> None:
            self.heard.append(word.by)

    play = Play(Two())
    play.signal(Approve(by="ada"))
    play.signal(Approve(by="bob"))
    play.done("reserve", Reserved())
    assert play.state.heard == ["ada", "bob"]
    assert play.phase() is Phase.COMPLETED


def test_a_wait_for_something_else_than_annotated_is_stuck_not_silent() -> None:
    # nobody would ever tell the saga of such an event
    class Lying(Saga):
        @step
        def paid(self) -> WaitFor[Paid]:
            return WaitFor(Placed)  # type: ignore[arg-type]

    play = Play(Lying())
    assert play.run("paid").stuck_on == "act"
    assert "returned WaitFor(Placed), its annotation says WaitFor[Paid]" in play.problem("paid")


# what a saga wants to be told of


def test_a_saga_is_interested_in_what_its_steps_await_or_would_await() -> None:
    play = Play(Waits())
    assert interests(play.definition, play.snapshot, POLICY) == ()
    play.done("reserve", Reserved(number=1))
    wanted = (Awaits(Paid.__tag__, (("order", b'"o-1"'),)),)
    assert interests(play.definition, play.snapshot, POLICY) == wanted
    play.signal(Approve())
    assert interests(play.definition, play.snapshot, POLICY) == wanted
    play.event(Paid(order="o-1"))
    assert interests(play.definition, play.snapshot, POLICY) == ()


def test_asking_for_interests_changes_nothing() -> None:
    class Counting(Saga):
        asked: int = 0

        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.compensation
        def release(self) -> Release:
            return Release()

        @step
        def paid(self) -> WaitFor[Paid] | Skip:
            self.asked += 1
            return WaitFor(Paid, where={"order": f"{self.asked}"})

    play = Play(Counting())
    for _ in range(3):
        assert interests(play.definition, play.snapshot, POLICY) == (Awaits(Paid.__tag__, (("order", b'"1"'),)),)
    assert play.state.asked == 0


def test_a_saga_that_goes_back_is_interested_in_nothing() -> None:
    play = waiting()
    play.cancel()
    assert interests(play.definition, play.snapshot, POLICY) == ()


def test_a_saga_stays_interested_in_what_a_stuck_step_may_still_await() -> None:
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
    assert [awaits.type for awaits in interests(play.definition, play.snapshot, POLICY)] == [Paid.__tag__]


# matching


def test_a_message_matches_by_its_type_and_the_values_of_its_fields() -> None:
    paid = recording(Paid(order="o-1", amount=5))
    assert matches(Awaits(Paid.__tag__), paid)
    assert matches(Awaits(Paid.__tag__, (("order", b'"o-1"'), ("amount", b"5"))), paid)
    assert not matches(Awaits(Placed.__tag__), paid)
    assert not matches(Awaits(Paid.__tag__, (("order", b'"o-2"'),)), paid)
    assert not matches(Awaits(Paid.__tag__, (("order", b'"o-1"'), ("amount", b"6"))), paid)
    assert not matches(Awaits(Paid.__tag__, (("no-such-field", b"null"),)), paid)


def test_the_fields_of_a_message_do_not_depend_on_its_codec() -> None:
    paid = Paid(order="o-1", amount=5)
    packed = Recording(Paid.__tag__, MSGPACK.encode(paid), MSGPACK.content_type)
    assert fields_of(packed) == fields_of(recording(paid))
    with pytest.raises(DecodeError):
        fields_of(Recording(Paid.__tag__, b"[]"))
