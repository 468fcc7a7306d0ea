"""What is to be done to a run, and when: made from a seed alone, so that it can be done again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple


class Kind(StrEnum):
    """A disturbance, in the words of the summary."""

    KILL_COORDINATOR = "coordinator: kill -9"
    PAUSE_COORDINATOR = "coordinator: paused past a fail-over"
    RESTART_COORDINATOR = "coordinator: restarted"
    KILL_PARTICIPANT = "participant: kill -9"
    PAUSE_PARTICIPANT = "participant: paused past its lease"
    RESTART_PARTICIPANT = "participant: restarted"
    KILL_ALL = "all processes: kill -9"
    KILL_CUSTOMERS = "customers: kill -9"
    KILL_BROKER = "broker: kill -9"
    RESTART_BROKER = "broker: restarted"
    HANG_BROKER = "broker: hangs"
    KILL_STORE = "Redis: kill -9"
    RESTART_STORE = "Redis: restarted"
    HANG_STORE = "Redis: hangs"


OF_COORDINATORS = frozenset({Kind.KILL_COORDINATOR, Kind.PAUSE_COORDINATOR, Kind.RESTART_COORDINATOR})
OF_PARTICIPANTS = frozenset({Kind.KILL_PARTICIPANT, Kind.PAUSE_PARTICIPANT, Kind.RESTART_PARTICIPANT})
OF_BROKERS = frozenset({Kind.KILL_BROKER, Kind.RESTART_BROKER, Kind.HANG_BROKER})
OF_STORES = frozenset({Kind.KILL_STORE, Kind.RESTART_STORE, Kind.HANG_STORE})

ESSENTIAL = (
    Kind.KILL_COORDINATOR,
    Kind.KILL_PARTICIPANT,
    Kind.KILL_BROKER,
    Kind.RESTART_BROKER,
    Kind.KILL_STORE,
    Kind.PAUSE_COORDINATOR,
    Kind.RESTART_COORDINATOR,
    Kind.KILL_CUSTOMERS,
)
"""What a short run has time for."""


class Disturbance(NamedTuple):
    """One thing that goes wrong, once `after` orders are at rest. `who` are the processes it happens to.

    When a server is killed or restarted, they are killed while it is away, and come back after it.
    """

    after: int
    kind: Kind
    who: tuple[str, ...] = ()


def plan(
    seed: int,
    orders: int,
    count: int,
    kinds: Sequence[Kind],
    coordinators: Sequence[str],
    participants: Sequence[str],
) -> list[Disturbance]:
    """So many disturbances, spread over the orders: each kind comes once before any comes twice."""
    random = Random(seed)
    return [
        Disturbance((number + 1) * orders // (count + 1), kind, _who(random, kind, coordinators, participants))
        for number, kind in zip(range(count), _shuffled(random, kinds), strict=False)
    ]


def _shuffled(random: Random, kinds: Collection[Kind]) -> Iterator[Kind]:
    while True:
        yield from random.sample(sorted(kinds), len(kinds))


def _who(random: Random, kind: Kind, coordinators: Sequence[str], participants: Sequence[str]) -> tuple[str, ...]:
    if kind in OF_COORDINATORS:
        return (random.choice(coordinators),)
    if kind in OF_PARTICIPANTS:
        return (random.choice(participants),)
    if kind is Kind.KILL_ALL:
        return (*coordinators, *participants)
    if kind in OF_BROKERS | OF_STORES and random.random() < 0.5:
        return (random.choice([*coordinators, *participants]),)
    return ()
