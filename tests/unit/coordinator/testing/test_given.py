"""The given/expect test of one saga."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.rig import Approve, Charge, Charged, Order, Refused, Release, Reserve, Reserved

from amends.contracts.payloads import Control
from amends.coordinator import Saga, WaitFor, step
from amends.coordinator.core import Verdict
from amends.coordinator.testing import given


class Approved(Saga):
    @step(timeout=timedelta(days=2))
    def approval(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @step(pivot=True, timeout=timedelta(seconds=30))
    def charge(self) -> Charge:
        return Charge(amount=1)


def test_a_saga_that_completes() -> None:
    saga = given(Order(sku="a"))
    saga.expect(Reserve(sku="a")).succeeds(Reserved(reservation="r1"))
    saga.expect(Charge(amount=3)).succeeds(Charged())
    assert saga.expect_completed().state.reservation == "r1"


def test_a_saga_that_makes_amends() -> None:
    saga = given(Order(sku="a"))
    saga.expect(Reserve(sku="a")).succeeds(Reserved(reservation="r1"))
    saga.expect(Charge(amount=3)).rejects(Refused())
    saga.expect_undo(Release()).undone()
    saga.expect_compensated()


def test_a_pivot_without_an_answer_is_settled() -> None:
    saga = given(Approved()).signal(Approve(by="ada"))
    saga.expect(Charge(amount=1)).unanswered().after(30)
    saga.expect_settle("charge").in_doubt().after(timedelta(minutes=5))
    saga.expect_settle("charge").done(Charged())
    saga.expect_completed()


def test_a_wait_that_times_out_sends_the_saga_back() -> None:
    given(Approved()).after(timedelta(days=2)).expect_compensated()


def test_a_failed_expectation_tells_what_there_is_instead() -> None:
    saga = given(Order(sku="a"))
    with pytest.raises(AssertionError, match=r"shop\.reserve\.v1 .*\"sku\":\"a\"") as error:
        saga.expect(Reserve(sku="b"))
    assert "step-issued reserve#0" in str(error.value)


def test_what_is_left_over_fails_the_expectation_of_an_end() -> None:
    saga = given(Order(sku="a"))
    with pytest.raises(AssertionError, match="expected it to be completed"):
        saga.expect_completed()
    with pytest.raises(AssertionError, match="nothing more"):
        saga.expect_nothing()


def test_a_signal_nobody_awaits_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="nobody awaits"):
        given(Order()).signal(Approve(by="ada"))


def test_cancel_after_the_pivot_fails_the_test() -> None:
    saga = given(Order())
    saga.expect(Reserve(sku="a")).succeeds(Reserved(reservation="r"))
    saga.expect(Charge(amount=3)).succeeds(Charged())
    with pytest.raises(AssertionError, match="too late"):
        saga.cancel()


def test_an_undo_that_keeps_failing_leaves_it_stuck_and_an_operator_waives_it() -> None:
    saga = given(Order())
    saga.expect(Reserve(sku="a")).succeeds(Reserved(reservation="r"))
    saga.expect(Charge(amount=3)).rejects(Refused())
    while not saga.snapshot.stuck:
        saga.expect_undo(Release()).fails("OSError", "disk").after(timedelta(minutes=6))
    assert saga.control(Control(action="skip", step="reserve", reason="counted by hand", by="ada")) is Verdict.APPLIED
    saga.expect_compensated()
    assert [(w.step, w.by) for w in saga.snapshot.waived] == [("reserve#0", "ada")]
