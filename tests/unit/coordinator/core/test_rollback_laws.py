"""Laws of a store that loses commits: what comes of it is a legal history all the same.

Random sagas lose random numbers of commits at random moments; participants decide as real ones do, and keep what they
did. See tests/support/rollbacks.py.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.oracle import violations
from tests.support.rollbacks import ForgetfulWorld, asking
from tests.support.worlds import Choose, Spec, one
from tests.unit.coordinator.core.test_laws import LAW, choices

from amends.coordinator.declaration.definition import StepKind


def world(choose: Choose, *, orderly: bool = True) -> ForgetfulWorld:
    deadline_s = one(choose, (None, None, 20.0, 300.0))
    made = ForgetfulWorld(choose, asking(choose), deadline_s=deadline_s, orderly=orderly)
    made.storm(one(choose, (8, 20, 40)))
    return made


def problems(seen: ForgetfulWorld) -> list[str]:
    return violations(seen.graph, seen.history, seen.ending, left_out=seen.left_out, waived=seen.waived)


@LAW
@given(st.data())
def test_whatever_commits_the_store_loses_the_history_is_legal_and_nothing_is_left_half_undone(
    data: st.DataObject,
) -> None:
    seen = world(choices(data))
    assert problems(seen) == [], seen.history
    assert seen.settle_down()
    assert problems(seen) == [], seen.history


@LAW
@given(st.data())
def test_an_undo_that_was_overtaken_by_the_question_about_it_is_made_good_or_seen_by_an_operator(
    data: st.DataObject,
) -> None:
    seen = world(choices(data), orderly=False)
    assert seen.settle_down()
    assert [problem for problem in problems(seen) if seen.waived.isdisjoint(problem.split())] == [], seen.history


def test_the_same_of_many_random_histories() -> None:
    lost = 0
    for seed in range(300):
        seen = world(Random(seed).randrange)
        assert seen.settle_down()
        assert problems(seen) == [], (seed, seen.history)
        lost += seen.lost
    assert lost > 1000


A, B, P, R = StepKind.COMPENSATABLE, StepKind.NEUTRAL, StepKind.PIVOT, StepKind.RETRIABLE
SMALL = {
    "asks one after the other": (
        Spec("a", A),
        Spec("b", A, after=("a",)),
        Spec("p", P, after=("b",)),
        Spec("r", R, after=("p",)),
    ),
    "waits before its pivot": (
        Spec("a", A),
        Spec("w", B, "signal", ("a",)),
        Spec("p", P, after=("w",)),
        Spec("r", R, after=("p",)),
    ),
    "has a word for a pivot": (Spec("a", A), Spec("p", P, "signal", ("a",)), Spec("r", R, after=("p",))),
    "asks side by side": (Spec("a", A), Spec("b", A), Spec("p", P, after=("a", "b")), Spec("r", R, after=("p",))),
    "has no pivot": (
        Spec("a", A),
        Spec("b", A, after=("a",)),
        Spec("w", B, "event", ("a",)),
        Spec("c", A, after=("b", "w")),
    ),
}


@pytest.mark.parametrize("steps", SMALL.values(), ids=SMALL)
def test_every_way_in_which_a_small_saga_can_lose_commits_is_made_good(steps: tuple[Spec, ...]) -> None:
    """It lives for a while, maybe is cancelled, lives on, loses some commits, and maybe is cancelled then."""
    ends = set()
    for lived in range(8):
        for cancelled in (False, True):
            for more in (1, 3, 6, 10):
                for lost in range(1, 13):
                    for cancelled_after in (False, True):
                        seen = ForgetfulWorld(lambda n: 0, steps)
                        seen.go_smoothly(lived, cancelled=False)
                        seen.go_smoothly(more, cancelled=cancelled)
                        if lost >= seen.commits:
                            continue
                        seen.roll_back(lost)
                        seen.go_smoothly(0, cancelled=cancelled_after)
                        assert seen.settle_down()
                        told = (lived, cancelled, more, lost, cancelled_after, seen.history)
                        assert problems(seen) == [], told
                        ends.add(seen.ending)
    assert ends == {"completed", "compensated"}
