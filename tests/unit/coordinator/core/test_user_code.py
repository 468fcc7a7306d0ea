"""The saga's own methods: what they may do, and what their mistakes lead to. Always visible, never half done."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from tests.unit.coordinator.core.kit import (
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

from amends.contracts import MSGPACK, Failure, ReplyOutcome
from amends.coordinator import Compensate, Publish, Saga, Skip, Sleep, step
from amends.coordinator.core import DoesNotFit, Phase, RunStatus, Verdict
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Recording
from amends.coordinator.declaration.saga import definition_of

_broken: set[str] = set()
"""The methods that raise at present."""


@pytest.fixture(autouse=True)
def _nothing_broken() -> None:
    _broken.clear()


def broken(method: str) -> None:
    if method in _broken:
        raise ZeroDivisionError(f"{method} is broken")


class Fragile(Saga):
    """reserve -> charge (pivot) -> ship; each method notes that it ran, and then may raise."""

    log: list[str] = []

    @step(when=lambda saga: saga.wants("when"))
    def reserve(self) -> Reserve:
        self.note("act")
        return Reserve()

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.note("on_success")

    @reserve.on_rejection
    def sold_out(self, no: SoldOut) -> None:
        self.note("on_rejection")

    @reserve.on_failure
    def failed(self, failure: Failure) -> None:
        self.note("on_failure")

    @reserve.compensation
    def release(self) -> Release:
        self.note("compensation")
        return Release()

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge()

    @charge.on_success
    def charged(self, reply: Charged) -> None:
        self.note("charged")

    @step(retriable=True)
    def ship(self) -> Ship:
        return Ship()

    def note(self, method: str) -> None:
        self.log.append(method)
        broken(method)

    def wants(self, method: str) -> bool:
        self.note(method)
        return True


@pytest.mark.parametrize("method", ["when", "act"])
def test_a_step_method_that_raises_leaves_the_state_as_it_was_and_the_step_stuck(method: str) -> None:
    _broken.add(method)
    play = Play(Fragile())
    run = play.run("reserve")
    assert (run.status, run.stuck_on) == (RunStatus.STUCK, "act")
    assert run.failure is not None
    assert run.failure.error == "ZeroDivisionError"
    assert f"{method} is broken" in run.failure.message
    assert play.state.log == []
    assert (play.phase(), play.snapshot.stuck) == (Phase.RUNNING, True)
    assert play.effects == ()
    assert play.told == [What.STARTED, What.STEP_STUCK]
    # mended, an operator tries it again
    _broken.clear()
    assert play.retry("reserve") is Verdict.APPLIED
    assert play.sent == ["ask reserve"]
    assert play.state.log == ["when", "act"]


def test_a_step_method_that_still_raises_is_stuck_again() -> None:
    _broken.add("act")
    play = Play(Fragile())
    assert play.retry("reserve") is Verdict.APPLIED
    assert play.run("reserve").stuck_on == "act"
    assert play.state.log == []


def test_a_saga_whose_first_step_raises_can_be_cancelled() -> None:
    _broken.add("act")
    play = Play(Fragile())
    play.cancel()
    assert play.phase() is Phase.COMPENSATED
    assert play.statuses == {"reserve": RunStatus.CLOSED}


def test_a_handler_of_success_that_raises_leaves_the_state_and_keeps_the_reply() -> None:
    _broken.add("on_success")
    play = Play(Fragile())
    play.done("reserve", Reserved(number=7))
    run = play.run("reserve")
    assert (run.status, run.stuck_on, run.reply) == (RunStatus.STUCK, "answer", recording(Reserved(number=7)))
    assert play.state.log == ["when", "act"]
    assert play.sent == []
    assert play.done("reserve", Reserved(number=7)) is Verdict.LATE
    _broken.clear()
    play.retry("reserve")
    assert play.state.log == ["when", "act", "on_success"]
    assert play.sent == ["ask charge"]


def test_a_step_whose_handler_of_success_raises_has_happened_and_is_undone_with_its_reply() -> None:
    _broken.add("on_success")
    play = Play(Fragile())
    play.done("reserve", Reserved(number=7))
    play.cancel()
    assert play.sent == ["undo reserve"]
    assert play.run("reserve").reply == recording(Reserved(number=7))


def test_a_pivot_whose_handler_raises_is_through_all_the_same() -> None:
    _broken.add("charged")
    play = Play(Fragile())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    assert play.run("charge").stuck_on == "answer"
    assert play.cancel() is Verdict.REFUSED
    _broken.clear()
    play.retry()
    assert play.sent == ["ask ship"]


def test_a_cancel_that_waits_for_a_pivot_whose_handler_then_raises_is_too_late() -> None:
    _broken.add("charged")
    play = Play(Fragile())
    play.done("reserve", Reserved())
    play.cancel()
    play.done("charge", Charged())
    assert play.snapshot.aborting is None
    assert play.run("charge").stuck_on == "answer"
    assert What.CANCEL_TOO_LATE in play.told


@pytest.mark.parametrize(
    ("method", "outcome", "said"),
    [
        ("on_rejection", ReplyOutcome.REJECTED, SoldOut()),
        ("on_failure", ReplyOutcome.FAILED, Failure("Broken", "it broke")),
    ],
)
def test_a_handler_of_a_bad_outcome_that_raises_cannot_keep_the_saga_from_going_back(
    method: str, outcome: ReplyOutcome, said: Any
) -> None:
    _broken.add(method)
    play = Play(Fragile())
    for _ in range(3):
        play.answer("reserve", outcome, said)
        if play.run("reserve").status is not RunStatus.RETRYING:
            break
        play.fire_next()
    assert play.phase() in (Phase.COMPENSATING, Phase.COMPENSATED)
    assert method not in play.state.log
    assert any(f"{method} is broken" in entry.detail for entry in play.entries if entry.what is What.STEP_FAILED)


def test_a_compensation_method_that_raises_leaves_the_state_and_the_undo_stuck() -> None:
    _broken.add("compensation")
    play = Play(Fragile())
    play.done("reserve", Reserved())
    play.rejected("charge", Declined())
    run = play.run("reserve")
    assert (run.status, run.stuck_on) == (RunStatus.UNDO_STUCK, "compensation")
    assert "compensation" not in play.state.log
    assert (play.phase(), play.snapshot.stuck) == (Phase.COMPENSATING, True)
    play.retry()
    assert play.run("reserve").status is RunStatus.UNDO_STUCK
    _broken.clear()
    play.retry()
    assert play.sent == ["undo reserve"]
    assert play.state.log.count("compensation") == 1
    play.undone("reserve")
    assert play.phase() is Phase.COMPENSATED


def test_a_state_that_cannot_be_read_back_is_never_committed() -> None:
    class Careless(Saga):
        count: int = 0

        @step
        def spoil(self) -> None:
            self.count = "many"  # type: ignore[assignment]

    play = Play(Careless())
    assert play.run("spoil").stuck_on == "act"
    assert play.state.count == 0


# what cannot be sent


class Unsendable(Saga):
    amount: int = 10
    note: str = ""

    @step(pivot=True)
    def charge(self) -> Charge:
        self.note = "asked"
        return Charge(amount="ten")  # type: ignore[arg-type]


class Unwritable(Saga):
    amount: int = 10
    note: str = ""

    @step(pivot=True)
    def charge(self) -> Charge:
        self.note = "asked"
        return Charge(amount=object())  # type: ignore[arg-type]


class Unpublishable(Saga):
    note: str = ""

    @step
    def place(self) -> Publish:
        self.note = "asked"
        return Publish(Placed(order=None))  # type: ignore[arg-type]


class WrongCommand(Saga):
    note: str = ""

    @step(pivot=True)
    def charge(self) -> Charge:
        self.note = "asked"
        return Ship()  # type: ignore[return-value]


class WrongKind(Saga):
    note: str = ""

    @step
    def nap(self) -> Sleep:
        self.note = "asked"
        return Skip("no")  # type: ignore[return-value]


class Nothing(Saga):
    note: str = ""

    @step(pivot=True)
    def charge(self) -> Charge:
        self.note = "asked"
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("saga", "problem"),
    [
        (Unsendable, r"Unsendable: its Charge cannot be sent: Expected `int`, got `str` - at `\$\.amount`"),
        (Unwritable, r"Unwritable: its Charge cannot be sent: Encoding objects of type object is unsupported"),
        (Unpublishable, r"Unpublishable: its Placed cannot be sent: Expected `str`, got `null`"),
        (WrongCommand, r"WrongCommand\.charge returned Ship, its annotation says Charge"),
        (WrongKind, r"WrongKind\.nap returned Skip, its annotation says Sleep"),
        (Nothing, r"Nothing\.charge returned NoneType, its annotation says Charge"),
    ],
)
def test_a_step_that_cannot_be_done_as_it_says_is_stuck_and_leaves_no_trace(
    saga: Callable[[], Saga], problem: str
) -> None:
    # raised out of the transition, it would make a dead letter of an innocent reply, and the saga would be lost
    play = Play(saga())
    (run,) = play.snapshot.runs.values()
    assert (run.status, run.stuck_on, run.command) == (RunStatus.STUCK, "act", None)
    assert run.failure is not None
    assert re.search(problem, run.failure.message), run.failure.message
    assert play.state.note == ""
    assert play.effects == ()
    assert play.snapshot.sequence == 0


class Undoing(Saga, abstract=True):
    note: str = ""
    how: int = 0

    @step
    def reserve(self) -> Reserve | Pack:
        return Reserve()

    @reserve.compensation
    def undo(self) -> Release | Unpack | Publish | None:
        self.note = "asked"
        undoing: Release | Unpack | Publish | None = self.undoing()
        return undoing

    @step(pivot=True)
    def charge(self) -> Charge:
        return Charge()

    def undoing(self) -> Any:
        raise NotImplementedError


class UndoesAnother(Undoing):
    def undoing(self) -> Any:
        return Unpack()


class UndoesNothing(Undoing):
    def undoing(self) -> Any:
        return Charge()


class UndoUnsendable(Undoing):
    def undoing(self) -> Any:
        return Release(item=5)  # type: ignore[arg-type]


class UndoUnpublishable(Undoing):
    def undoing(self) -> Any:
        return Publish(Placed(order=5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("saga", "problem"),
    [
        (UndoesAnother, r"undo returned Unpack, which does not undo reserve#0: that asked for stock\.reserve\.v1"),
        (UndoesNothing, r"undo returned Charge, which does not undo reserve#0"),
        (UndoUnsendable, r"its Release cannot be sent: Expected `str`, got `int`"),
        (UndoUnpublishable, r"its Placed cannot be sent"),
    ],
)
def test_an_undo_that_cannot_be_done_is_stuck_and_leaves_no_trace(saga: Callable[[], Saga], problem: str) -> None:
    play = Play(saga())
    play.done("reserve", Reserved())
    play.rejected("charge", Declined())
    run = play.run("reserve")
    assert (run.status, run.stuck_on, run.undo) == (RunStatus.UNDO_STUCK, "compensation", None)
    assert run.failure is not None
    assert re.search(problem, run.failure.message), run.failure.message
    assert play.state.note == ""
    assert play.sent == []
    assert play.snapshot.stuck


def test_an_undo_of_a_local_step_asks_nobody() -> None:
    class Local(Saga):
        @step
        def book(self) -> None:
            pass

        @book.compensation
        def unbook(self) -> None:
            return Release()  # type: ignore[return-value]

        @step(readonly=True)
        def rate(self) -> Rate:
            return Rate()

    play = Play(Local())
    play.rejected("rate", SoldOut())
    assert play.run("book").status is RunStatus.UNDO_STUCK
    assert "that asked nobody" in play.problem("book")


# what cannot be read


@pytest.mark.parametrize(
    "reply",
    [
        Recording(Reserved.__tag__, b"not json"),
        Recording(Reserved.__tag__, b'{"number": "seven"}'),
        Recording(Reserved.__tag__, b"{}", "application/x-strange"),
        recording(Charged()),
        Recording("amends.done.v1", b"{}"),
    ],
    ids=["no json", "another field", "no codec", "another type", "done alone"],
)
def test_a_reply_that_cannot_be_read_leaves_the_step_stuck_with_it(reply: Recording) -> None:
    play = Play(Fragile())
    assert play.done("reserve", reply) is Verdict.APPLIED
    run = play.run("reserve")
    assert (run.status, run.stuck_on, run.reply) == (RunStatus.STUCK, "answer", reply)
    assert "on_success" not in play.state.log
    assert play.sent == []
    # an operator gives the reply that was meant
    assert play.forward("reserve", reply) is Verdict.REFUSED
    assert play.forward("reserve", Reserved()) is Verdict.APPLIED
    assert play.sent == ["ask charge"]


def test_a_command_without_promised_reply_is_answered_with_done_and_nothing_else() -> None:
    play = Play(Fragile())
    play.done("reserve", Reserved())
    play.done("charge", Charged())
    play.done("ship", Packed())
    assert play.run("ship").stuck_on == "answer"
    play.forward("ship", Recording("amends.done.v1", b"{}"))
    assert play.phase() is Phase.COMPLETED


def test_what_comes_back_is_read_by_its_own_codec() -> None:
    play = Play(Fragile())
    packed = Recording(Reserved.__tag__, MSGPACK.encode(Reserved(number=7)), MSGPACK.content_type)
    play.done("reserve", packed)
    assert play.sent == ["ask charge"]


# what methods are given


class Curious(Saga):
    ids: list[str] = []
    seen: list[str] = []
    when: datetime | None = None

    @step(readonly=True)
    def rate(self) -> Rate:
        self.ids += [str(self.run.uuid()), str(self.run.uuid())]
        self.when = self.run.now
        return Rate()

    @rate.on_success
    def rated(self, reply: Rated) -> None:
        self.ids.append(str(self.run.uuid()))
        self.seen.append(self.run.id)


def test_ids_are_fresh_at_each_call_and_the_same_when_the_transition_is_made_again() -> None:
    first, again = Play(Curious()), Play(Curious())
    for play in (first, again):
        play.done("rate", Rated())
    assert first.state == again.state
    assert len(set(first.state.ids)) == 3
    assert first.state.seen == ["order-1"]


def test_methods_see_the_time_of_the_transition() -> None:
    play = Play(Curious())
    assert play.state.when == play.snapshot.clock


def test_a_snapshot_of_another_shape_is_refused() -> None:
    play = Play(Fragile())
    play.definition = definition_of(Curious)
    with pytest.raises(DoesNotFit, match="Give the changed saga version=2"):
        play.cancel()


# what cannot be stored


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("file \udcff"), "file \\udcff"), (Mute(), "(its message cannot be read)")]
)
def test_an_exception_whose_text_cannot_be_stored_leaves_the_step_stuck(error: Exception, told: str) -> None:
    class Cursed(Saga):
        @step(readonly=True)
        def rate(self) -> Rate:
            raise error

    play = Play(Cursed())
    assert play.run("rate").status is RunStatus.STUCK
    assert play.problem("rate") == f"Cursed.rate: {told}"


@pytest.mark.parametrize("reason", [None, 5, "file \udcff"])
def test_a_skip_for_a_reason_that_cannot_be_stored_leaves_the_step_stuck(reason: Any) -> None:
    class Careless(Saga):
        @step(readonly=True)
        def rate(self) -> Rate | Skip:
            return Skip(reason)

    play = Play(Careless())
    assert play.run("rate").status is RunStatus.STUCK
    assert "the reason is no text that can be stored" in play.problem("rate")


@pytest.mark.parametrize("reason", [5, "file \udcff"])
def test_a_compensate_for_a_reason_that_cannot_be_stored_goes_back_without_it(reason: Any) -> None:
    class Careless(Saga):
        @step
        def reserve(self) -> Reserve:
            return Reserve()

        @reserve.on_rejection
        def sold_out(self, no: SoldOut) -> Compensate:
            return Compensate(reason)

        @reserve.compensation
        def release(self) -> Release:
            return Release()

    play = Play(Careless())
    play.rejected("reserve", SoldOut())
    assert play.phase() is Phase.COMPENSATED
    assert play.snapshot.failure is not None
    assert play.snapshot.failure.error == SoldOut.__tag__
