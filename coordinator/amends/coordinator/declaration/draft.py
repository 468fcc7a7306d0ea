"""A step while its class is being read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amends.contracts import Command, Compensation, Event, Signal
from amends.coordinator.declaration.definition import StepKind
from amends.coordinator.declaration.step import Step


class Draft:
    """A step as one class has it: subclasses may give it other handlers. Filled in by one check after the other."""

    __slots__ = (
        "after", "ancestors", "asks", "awaits", "handlers", "kind", "lineage", "name", "optional", "returns", "step",
        "undos",
    )  # fmt: skip

    def __init__(self, step: Step[Any], lineage: set[Step[Any]]) -> None:
        self.name, self.step = step.name, step
        self.lineage = lineage
        """The step and those of the bases that it replaces."""
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.returns: tuple[type, ...] = ()
        self.optional = False
        self.asks: tuple[type[Command[Any, Any]], ...] = ()
        self.awaits: tuple[type[Event] | type[Signal], ...] = ()
        self.undos: tuple[type[Compensation[Any]], ...] = ()
        self.kind = StepKind.NEUTRAL
        self.after: tuple[str, ...] = ()
        self.ancestors: frozenset[str] = frozenset()
