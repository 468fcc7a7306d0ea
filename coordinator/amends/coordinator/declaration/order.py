"""The order of steps: a directed graph without cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush


def topological(after: Mapping[str, Sequence[str]]) -> list[str]:
    """The names in an order in which each comes after all it waits for, else as they were given.

    Those in a cycle, and those that wait for one, are left out. Every name in a value must be a key.
    """
    place = {name: index for index, name in enumerate(after)}
    names = list(after)
    open_count = {name: len(set(before)) for name, before in after.items()}
    followers: dict[str, list[str]] = {name: [] for name in after}
    for name, before in after.items():
        for one in set(before):
            followers[one].append(name)
    ready = [place[name] for name, count in open_count.items() if not count]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heappop(ready)]
        order.append(name)
        for follower in followers[name]:
            open_count[follower] -= 1
            if not open_count[follower]:
                heappush(ready, place[follower])
    return order


def cycle(after: Mapping[str, Sequence[str]]) -> list[str]:
    """The names along one cycle, each waiting for the next, the first repeated at the end; empty if there is none."""
    through = set(topological(after))
    at = next((name for name in after if name not in through), None)
    if at is None:
        return []
    walked: list[str] = []
    while at not in walked:
        walked.append(at)
        at = next(one for one in after[at] if one not in through)
    return [*walked[walked.index(at) :], at]


def ancestors(after: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, frozenset[str]]:
    """All that each name comes after, transitively. `order` is a topological one."""
    found: dict[str, frozenset[str]] = {}
    for name in order:
        found[name] = frozenset(after[name]).union(*(found[one] for one in after[name]))
    return found


def descendants(above: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """All that comes after each name, from what `ancestors` gave."""
    below: dict[str, set[str]] = {name: set() for name in above}
    for name, names in above.items():
        for one in names:
            below[one].add(name)
    return {name: frozenset(names) for name, names in below.items()}
