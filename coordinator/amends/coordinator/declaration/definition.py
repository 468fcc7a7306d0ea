"""A saga as compiled from its class: what the core runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct

from amends.contracts import Command, Compensation, Event, Rejection, Reply, Signal
from amends.coordinator.declaration.state import decoder_of
from amends.coordinator.retry import Retry


class StepKind(StrEnum):
    COMPENSATABLE = "compensatable"
    """Can be undone: it has a compensation."""
    PIVOT = "pivot"
    """The go/no-go step: once it is done, the saga only goes forward."""
    RETRIABLE = "retriable"
    """Comes after the pivot and is repeated until it succeeds."""
    READONLY = "readonly"
    """Changes nothing, so there is nothing to undo."""
    NEUTRAL = "neutral"
    """Asks no participant: a wait, a sleep, a published event, a local step."""


class Plan(Struct, frozen=True, eq=False, kw_only=True):
    """One step as its saga has it.

    The callables take the saga's state first, as plain functions. `replies`, `rejections` and `awaits` map the tags
    that may come back to their classes; `commands` are the classes that the step may ask for, by annotation, and
    `undos` those that its compensation may return. A command without promised replies is answered by `Done`, and
    `on_success` then gets None; one without named rejections may be refused with any `Rejection`. `returns` are the
    classes that the method may return an instance of; `optional` says that it may also return None. `ancestors` and
    `descendants` are names, transitively.
    """

    name: str
    kind: StepKind
    act: Callable[..., Any]
    after: tuple[str, ...] = ()
    ancestors: frozenset[str] = frozenset()
    descendants: frozenset[str] = frozenset()
    timeout: timedelta | None = None
    retry: Retry | None = None
    when: Callable[[Any], bool] | None = None
    on_success: Callable[[Any, Any], None] | None = None
    on_rejection: Callable[[Any, Any], Any] | None = None
    on_failure: Callable[[Any, Any], Any] | None = None
    on_timeout: Callable[[Any], Any] | None = None
    compensation: Callable[[Any], Any] | None = None
    returns: tuple[type[Any], ...] = ()
    optional: bool = False
    commands: tuple[type[Command[Any, Any]], ...] = ()
    undos: tuple[type[Compensation[Any]], ...] = ()
    replies: Mapping[str, type[Reply]] = {}
    rejections: Mapping[str, type[Rejection]] = {}
    awaits: Mapping[str, type[Event] | type[Signal]] = {}
    line: int | None = None


class Definition(Struct, frozen=True, eq=False, kw_only=True, dict=True):
    """A saga class, compiled. `steps` are in an order in which each comes after all it depends on.

    `shape` is a hash of the structure: a snapshot made by another shape does not fit (see `shape_of`). `keys` are the
    fields that instances are found by; they may change from release to release.
    """

    name: str
    version: int
    shape: str
    saga: type[Any]
    steps: Mapping[str, Plan]
    pivot: Plan | None = None
    deadline: timedelta | None = None
    keys: tuple[str, ...] = ()

    @cached_property
    def decoder(self) -> msgspec.msgpack.Decoder[Any]:
        """Reads the state back from msgpack. Made at first use, since a state may name types that come after its class.

        Raises `SagaDefinitionError` if the state cannot be stored.
        """
        return decoder_of(self.saga)

    @cached_property
    def tag(self) -> str:
        return f"{self.name}.v{self.version}"

    def event_types(self) -> Mapping[str, type[Event]]:
        """The events that some step may wait for, by tag."""
        return {
            tag: type for plan in self.steps.values() for tag, type in plan.awaits.items() if issubclass(type, Event)
        }
