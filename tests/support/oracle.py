"""An oracle: is what happened at the participants a legal history of a saga?

Garcia-Molina and Salem (1987) allow T1…Tn, or T1…Tj Cj…C1; here for a graph of steps in the place of a line. This
module knows nothing of how amends decides: it only sees the graph and what happened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

Kind = Literal["compensatable", "pivot", "retriable", "readonly", "neutral"]
End = Literal["open", "completed", "compensated"]


class Node(Struct, frozen=True):
    """A step of the graph. `effect` says that something happens when it is done: waits and sleeps leave no mark."""

    kind: Kind
    after: tuple[str, ...] = ()
    effect: bool = True


class Did(Struct, frozen=True):
    """The action of a step took effect."""

    step: str


class Undid(Struct, frozen=True):
    """The action of a step was undone."""

    step: str


Mark = Did | Undid
Graph = Mapping[str, Node]


def ancestors(graph: Graph, step: str) -> frozenset[str]:
    """All that a step comes after, transitively."""
    found: set[str] = set()
    open_steps = list(graph[step].after)
    while open_steps:
        one = open_steps.pop()
        if one not in found:
            found.add(one)
            open_steps.extend(graph[one].after)
    return frozenset(found)


def violations(
    graph: Graph,
    history: Sequence[Mark],
    end: End,
    *,
    left_out: Collection[str] = (),
    waived: Collection[str] = (),
) -> list[str]:
    """What is wrong with a history, in words; empty when it is legal.

    `end` is the phase that the saga shows: while it is `open`, only what can never be made good counts. `left_out` are
    steps that were skipped, `waived` those that an operator answers for: they may be done or not, undone or not.
    """
    checks = (
        _once(history),
        _undone_after_done(history),
        _in_order(graph, history, {*left_out, *waived}),
        _pivot(graph, history, end, waived),
        _complete(graph, history, end, {*left_out, *waived}),
        _made_good(graph, history, end, waived),
        _nothing_left_out(history, left_out),
    )
    return [problem for check in checks for problem in check]


def _once(history: Sequence[Mark]) -> Iterable[str]:
    for mark in dict.fromkeys(history):
        if (times := history.count(mark)) > 1:
            yield f"{mark} {times} times"


def _undone_after_done(history: Sequence[Mark]) -> Iterable[str]:
    done: set[str] = set()
    undone: set[str] = set()
    for mark in history:
        match mark:
            case Did(step):
                if step in undone:
                    yield f"{step} happened after it had been undone"
                done.add(step)
            case Undid(step):
                if step not in done:
                    yield f"{step} was undone before, or without, having happened"
                undone.add(step)


def _in_order(graph: Graph, history: Sequence[Mark], excused: Collection[str]) -> Iterable[str]:
    """For each pair of an earlier and a later step: T(earlier) T(later) C(later) C(earlier), as far as they occur."""
    place = {mark: index for index, mark in enumerate(history)}
    for later in graph:
        for earlier in ancestors(graph, later):
            needed = graph[earlier].effect and earlier not in excused
            if needed and Did(later) in place and place.get(Did(earlier), len(history)) > place[Did(later)]:
                yield f"{later} happened before {earlier}, which it comes after"
            if Undid(earlier) in place:
                undone = place[Undid(earlier)]
                # what only reads may come too late: it changes nothing
                if graph[later].kind != "readonly" and place.get(Did(later), -1) > undone:
                    yield f"{later} happened after {earlier}, which it rests on, had been undone"
                if place.get(Undid(later), -1) > undone:
                    yield f"{earlier} was undone before {later}, which rests on it"


def _pivot(graph: Graph, history: Sequence[Mark], end: End, waived: Collection[str]) -> Iterable[str]:
    pivot = next((name for name, node in graph.items() if node.kind == "pivot"), None)
    if pivot is None or pivot in waived:
        return
    if Did(pivot) in history:
        if end == "compensated":
            yield f"the pivot {pivot} happened, and yet the saga is compensated"
        for mark in history:
            if isinstance(mark, Undid):
                yield f"{mark.step} was undone although the pivot {pivot} happened"
    elif graph[pivot].effect:
        for mark in history:
            if isinstance(mark, Did) and graph[mark.step].kind == "retriable":
                yield f"{mark.step} happened without the pivot {pivot}"


def _complete(graph: Graph, history: Sequence[Mark], end: End, excused: Collection[str]) -> Iterable[str]:
    if end != "completed":
        return
    for name, node in graph.items():
        if node.effect and name not in excused and Did(name) not in history:
            yield f"{name} never happened, and yet the saga is completed"
    for mark in history:
        if isinstance(mark, Undid):
            yield f"{mark.step} was undone, and yet the saga is completed"


def _made_good(graph: Graph, history: Sequence[Mark], end: End, waived: Collection[str]) -> Iterable[str]:
    if end != "compensated":
        return
    for mark in history:
        if not isinstance(mark, Did) or mark.step in waived:
            continue
        kind = graph[mark.step].kind
        if kind == "compensatable" and Undid(mark.step) not in history:
            yield f"{mark.step} happened and was never undone, and yet the saga is compensated"
        elif kind == "retriable":
            yield f"{mark.step} happened, which nothing undoes, and yet the saga is compensated"


def _nothing_left_out(history: Sequence[Mark], left_out: Collection[str]) -> Iterable[str]:
    for mark in history:
        if mark.step in left_out:
            yield f"{mark}, and yet the step was skipped"
