"""What a step may return, and what the handlers of its answer may decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Never, TypeAlias

import msgspec
from msgspec import Struct
from typing_extensions import TypeVar

from amends.contracts import Command, Duration, Event, Signal, UsageError, as_timedelta
from amends.contracts.annotations import shown
from amends.contracts.errors import writable

A_co = TypeVar("A_co", bound=Event | Signal, covariant=True)


class WaitFor(Generic[A_co]):
    """Wait until an event of this type is published, or a signal of this type is sent to this saga.

    `where` narrows an event by the values of its fields: only one that has all of them counts. The names are those of
    the event's class; they are kept under their names on the wire, with the values as plain JSON data. Raises
    `UsageError` for a field that the event does not have, a value that the field cannot hold, and for signals, which
    are addressed to one saga anyway.
    """

    __slots__ = ("type", "where")

    def __init__(self, type: type[A_co], *, where: Mapping[str, Any] | None = None) -> None:
        if not (isinstance(type, _CLASS) and issubclass(type, Event | Signal)):
            raise UsageError(f"WaitFor({shown(type)}): is no event or signal class. Write WaitFor(OrderPaid)")
        if type.__abstract__:
            raise UsageError(
                f"WaitFor({type.__name__}): is abstract, so none of it will ever come. Name the class meant"
            )
        if where and not issubclass(type, Event):
            raise UsageError(
                f"WaitFor({type.__name__}, where=…): a signal is sent to one saga already. Leave where= out"
            )
        self.type = type
        self.where: dict[str, Any] = {} if where is None else _conditions(type, where)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WaitFor):
            return NotImplemented
        return self.type is other.type and self.where == other.where

    def __hash__(self) -> int:
        return hash(self.type)

    def __repr__(self) -> str:
        return f"WaitFor({self.type.__name__}{f', where={self.where!r}' if self.where else ''})"

    if TYPE_CHECKING:

        def __yields__(self) -> A_co: ...


_CLASS = type


def _conditions(event: type[Any], where: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name: field for field in msgspec.structs.fields(event)}
    conditions = {}
    for name, value in where.items():
        if name not in fields:
            raise UsageError(
                f"WaitFor({event.__name__}, where=…): {event.__name__} has no field {name!r}. It has "
                f"{', '.join(fields) or 'none'}"
            )
        field = fields[name]
        try:
            # through the field's type, so that 1 for a float is compared as 1.0, the way the event will have it
            held = msgspec.convert(msgspec.to_builtins(value), field.type)
            conditions[field.encode_name] = msgspec.to_builtins(held)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise UsageError(
                f"WaitFor({event.__name__}, where=…): {name}={value!r} is nothing that the field can hold. {error}"
            ) from None
    return conditions


class Sleep(Struct, frozen=True):
    """Do nothing for a while: a `timedelta`, or seconds. The saga's deadline goes on counting."""

    duration: Duration

    def __post_init__(self) -> None:
        as_timedelta(self.duration, "Sleep(duration)")


class Publish(Struct, frozen=True):
    """Publish a domain event, and go on. It is not taken back: a fact that no longer holds is another event."""

    event: Event

    def __post_init__(self) -> None:
        if not isinstance(self.event, Event):
            raise UsageError(f"Publish({self.event!r}): is no event. Write Publish(OrderPlaced(…))")


class Skip(Struct, frozen=True):
    """Leave this step out, this time. There will be nothing to undo. `reason` is kept in the journal."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason("Skip", self.reason)

    if TYPE_CHECKING:
        # nothing comes back, so `ChargeCard | Skip` yields and rejects what ChargeCard does
        def __yields__(self) -> Never: ...
        def __rejects__(self) -> Never: ...


class Compensate(Struct, frozen=True):
    """Go back: undo what was done. The class itself will do where there is no reason to give."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason("Compensate", self.reason)


def _check_reason(what: str, reason: object) -> None:
    """It goes into snapshot and journal, which could not be read back with anything but text."""
    if not isinstance(reason, str) or writable(reason) != reason:
        raise UsageError(f"{what}({reason!r}): the reason is no text that can be stored. Give a str")


StepResult: TypeAlias = Command[Any, Any] | WaitFor[Any] | Sleep | Publish | Skip | None
"""What a step may return. None is a local step: it only changes the state."""

Decision: TypeAlias = Compensate | type[Compensate] | None
"""What a handler of a bad outcome may return. None is `Compensate` without a reason of its own."""
