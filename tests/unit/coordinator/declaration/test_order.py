"""Laws of the order of steps, on random graphs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends.coordinator.declaration import Saga, step
from amends.coordinator.declaration.order import ancestors, cycle, descendants, topological

Graph = dict[str, tuple[str, ...]]


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    """A graph without cycles, its names in any order."""
    names = [f"s{number}" for number in range(draw(st.integers(0, 9)))]
    edges: Graph = {}
    for place, name in enumerate(names):
        edges[name] = tuple(draw(st.lists(st.sampled_from(names[:place]), unique=True))) if place else ()
    return {name: edges[name] for name in draw(st.permutations(names))}


@st.composite
def any_graph(draw: st.DrawFn) -> Graph:
    names = [f"s{number}" for number in range(draw(st.integers(1, 6)))]
    return {name: tuple(draw(st.lists(st.sampled_from(names), unique=True))) for name in names}


def reachable(after: Graph, name: str) -> set[str]:
    """All that a name waits for, found by walking: the slow and obvious way."""
    found: set[str] = set()
    todo = list(after[name])
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += after[one]
    return found


@given(acyclic())
def test_each_comes_after_all_it_waits_for(after: Graph) -> None:
    order = topological(after)
    assert sorted(order) == sorted(after)
    for name, before in after.items():
        assert all(order.index(one) < order.index(name) for one in before)


@given(acyclic())
def test_what_could_come_next_comes_in_order_of_declaration(after: Graph) -> None:
    declared = list(after)
    left = set(declared)
    for name in topological(after):
        ready = [one for one in declared if one in left and left.isdisjoint(after[one])]
        assert name == ready[0]
        left.remove(name)


@given(acyclic())
def test_ancestors_and_descendants_are_what_can_be_reached(after: Graph) -> None:
    above = ancestors(after, topological(after))
    assert {name: set(names) for name, names in above.items()} == {name: reachable(after, name) for name in after}
    below = descendants(above)
    assert all((one in below[name]) == (name in above[one]) for name in after for one in after)


@given(any_graph())
def test_a_cycle_is_found_exactly_where_there_is_one(after: Graph) -> None:
    circle = cycle(after)
    assert bool(circle) == any(name in reachable(after, name) for name in after)
    if circle:
        assert circle[0] == circle[-1]
        assert len(set(circle)) == len(circle) - 1
        assert all(later in after[name] for name, later in pairwise(circle))


def test_a_step_waits_for_the_one_declared_before_it() -> None:
    class P(Saga):
        @step
        def one(self) -> None: ...
        @step
        def two(self) -> None: ...
        @step(after=())
        def three(self) -> None: ...
        @step
        def four(self) -> None: ...
        @step(after=(one, "two", one))
        def five(self) -> None: ...

    assert P.__definition__ is not None
    assert {name: plan.after for name, plan in P.__definition__.steps.items()} == {
        "one": (),
        "two": ("one",),
        "three": (),
        "four": ("three",),
        "five": ("one", "two"),
    }


@pytest.mark.parametrize("after", ["one", ["one"], ("one",)])
def test_names_may_come_before_what_they_name(after: str | list[str] | tuple[str, ...]) -> None:
    class P(Saga):
        @step(after=after)
        def two(self) -> None: ...
        @step(after=())
        def one(self) -> None: ...

    assert P.__definition__ is not None
    assert list(P.__definition__.steps) == ["one", "two"]
    assert P.__definition__.steps["two"].ancestors == {"one"}
    assert P.__definition__.steps["one"].descendants == {"two"}
