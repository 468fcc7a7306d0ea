"""The shape of a saga: what a snapshot of it must fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from amends.coordinator.declaration.definition import Plan


def shape_of(name: str, version: int, plans: Iterable[Plan]) -> str:
    """A hash of what a running instance relies on: the first 16 hex digits of the SHA-256 of a canonical JSON text.

    It covers the name and version of the saga, and of each step its name, kind, predecessors, and the tags of what it
    asks for, gets back, waits for, and is undone by. The order of declaration is in it only as far as it makes an
    order of execution. Fields of the state are not in it: one that is added with a default fits older snapshots, and
    one that does not fit is found when the snapshot is read. Nor are timeouts, retries, conditions and handlers, which
    may change while instances run.
    """
    steps = sorted(
        [
            plan.name,
            str(plan.kind),
            sorted(plan.after),
            _tags(plan.commands),
            sorted(plan.replies),
            sorted(plan.awaits),
            _tags(plan.undos),
        ]
        for plan in plans
    )
    return hashlib.sha256(msgspec.json.encode([name, version, steps])).hexdigest()[:16]


def _tags(types: Iterable[Any]) -> list[str]:
    return sorted(type.__tag__ for type in types)
