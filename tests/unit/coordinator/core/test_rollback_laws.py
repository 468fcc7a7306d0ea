"""Laws of a store that loses commits: what comes of it is a legal history all the same.

Random sagas lose random numbers of commits at random moments; participants decide as real ones do, and keep what they
did. See tests/support/rollbacks.py.
"""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.support.oracle import violations
from tests.support.rollbacks import ForgetfulWorld, asking
from tests.support.worlds import Choose, one
from tests.unit.coordinator.core.test_laws import LAW, choices


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
