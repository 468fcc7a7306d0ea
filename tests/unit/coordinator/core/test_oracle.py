"""The oracle itself: it must accept what is legal and say what is not, or the laws judged by it prove nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.oracle import Did, End, Graph, Mark, Node, Undid, ancestors, violations

A, B, P, R = Did("a"), Did("b"), Did("p"), Did("r")
CA, CB, CP = Undid("a"), Undid("b"), Undid("p")

LINE: Graph = {
    "a": Node("compensatable"),
    "b": Node("compensatable", ("a",)),
    "p": Node("pivot", ("b",)),
    "r": Node("retriable", ("p",)),
}
FORK: Graph = {
    "a": Node("compensatable"),
    "b": Node("compensatable"),
    "p": Node("pivot", ("a", "b")),
}


def test_ancestors_are_transitive() -> None:
    assert ancestors(LINE, "r") == {"a", "b", "p"}
    assert ancestors(FORK, "a") == frozenset()


@pytest.mark.parametrize(
    ("graph", "history", "end"),
    [
        (LINE, [A, B, P, R], "completed"),
        (LINE, [], "compensated"),
        (LINE, [A, CA], "compensated"),
        (LINE, [A, B, CB, CA], "compensated"),
        (LINE, [A, B, P], "open"),
        (LINE, [A, B, CB], "open"),
        (FORK, [B, A, P], "completed"),
        (FORK, [A, B, CA, CB], "compensated"),
        (FORK, [A, CA, B, CB], "compensated"),
    ],
)
def test_legal_histories_are_accepted(graph: Graph, history: Sequence[Mark], end: End) -> None:
    assert violations(graph, history, end) == []


@pytest.mark.parametrize(
    ("graph", "history", "end", "problem"),
    [
        (LINE, [A, A], "open", "2 times"),
        (LINE, [A, CA, CA], "open", "2 times"),
        (LINE, [CA], "open", "a was undone before, or without, having happened"),
        (LINE, [CA, A], "open", "a happened after it had been undone"),
        (LINE, [B], "open", "b happened before a, which it comes after"),
        (LINE, [B, A], "open", "b happened before a"),
        (LINE, [A, CA, B], "open", "b happened after a, which it rests on, had been undone"),
        (LINE, [A, B, CA, CB], "open", "a was undone before b, which rests on it"),
        (LINE, [A, B, P, CB], "open", "b was undone although the pivot p happened"),
        (LINE, [A, B, CB, P], "open", "b was undone although the pivot p happened"),
        (LINE, [A, B, P, CP], "open", "p was undone although the pivot p happened"),
        (LINE, [A, B, R], "open", "r happened without the pivot p"),
        (LINE, [A, B, P], "completed", "r never happened, and yet the saga is completed"),
        (FORK, [A, P], "completed", "b never happened"),
        (FORK, [A, B, CB], "completed", "b was undone, and yet the saga is completed"),
        (LINE, [A], "compensated", "a happened and was never undone, and yet the saga is compensated"),
        (LINE, [A, B, P], "compensated", "the pivot p happened, and yet the saga is compensated"),
        (LINE, [A, B, P, R], "compensated", "r happened, which nothing undoes"),
    ],
)
def test_illegal_histories_are_told(graph: Graph, history: Sequence[Mark], end: End, problem: str) -> None:
    assert any(problem in told for told in violations(graph, history, end))


def test_what_was_skipped_needs_not_happen_and_must_not() -> None:
    assert violations(LINE, [A, P, R], "completed", left_out={"b"}) == []
    assert violations(LINE, [A, B, P, R], "completed", left_out={"b"}) != []


def test_what_an_operator_answers_for_is_excused() -> None:
    assert violations(LINE, [A, B, P], "completed", waived={"r"}) == []
    assert violations(LINE, [A, B, CA], "compensated", waived={"b"}) == []
    assert violations(LINE, [A, B, CA], "compensated") != []


def test_what_leaves_no_mark_is_not_missed() -> None:
    graph: Graph = {"wait": Node("neutral", effect=False), "a": Node("compensatable", ("wait",))}
    assert violations(graph, [A], "completed") == []


def test_what_only_reads_may_happen_too_late() -> None:
    graph: Graph = {"a": Node("compensatable"), "look": Node("readonly", ("a",))}
    assert violations(graph, [A, CA, Did("look")], "compensated") == []
