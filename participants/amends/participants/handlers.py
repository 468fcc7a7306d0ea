"""Functions as handlers: what is checked when they are declared."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from msgspec import Struct
from tenacity import AsyncRetrying, Retrying

from amends.contracts import Command, Compensation, Duration, UsageError, as_timedelta
from amends.contracts.annotations import members, shown
from amends.participants.context import Context
from amends.participants.errors import ParticipantDefinitionError

RetryPolicy: TypeAlias = AsyncRetrying | Retrying
Handled: TypeAlias = type[Command[Any, Any]] | type[Compensation[Any]]


class Options(Struct, frozen=True, eq=False, kw_only=True):
    """How a handler is run. `concurrency` counts its own slots, `timeout` limits one attempt."""

    concurrency: int | None = None
    retry: RetryPolicy | None = None
    transactional: bool = False
    timeout: Duration | None = None


class Handler(Struct, frozen=True, eq=False, kw_only=True):
    """A checked handler. `returns` are the types that its message promises, `where` is `service.function`."""

    function: Callable[..., Any]
    message: Handled
    returns: tuple[type, ...]
    where: str
    with_context: bool
    asynchronous: bool
    transactional: bool
    concurrency: int | None
    retry: RetryPolicy | None
    timeout_s: float | None

    @property
    def compensates(self) -> bool:
        return issubclass(self.message, Compensation)


def make_handler(
    service: str,
    function: Any,
    kind: type[Command[Any, Any]] | type[Compensation[Any]],
    options: Options,
    local_names: Mapping[str, Any],
    named: Any = None,
) -> Handler:
    """Check a function and its options. Raises `ParticipantDefinitionError`.

    `kind` is Command or Compensation, by the decorator; `named` is the message that the decorator was given, if any.
    """
    where = f"{service}.{getattr(function, '__qualname__', repr(function)).rpartition('<locals>.')[2]}"
    if not callable(function):
        raise ParticipantDefinitionError(where, "is no function", "Decorate a def or an async def")
    hints = _hints(where, function, local_names)
    with_context = _check_parameters(where, function, hints)
    message = _message(where, function, hints, kind)
    if named is not None and message is not named:
        raise ParticipantDefinitionError(
            where,
            f"is declared for {shown(named)}, but takes {shown(message)}",
            f"Annotate its first parameter with {shown(named)}",
        )
    if message.__service__ != service:
        raise ParticipantDefinitionError(
            where,
            f"{message.__name__} belongs to service {message.__service__!r}",
            f'Move it to Participant("{message.__service__}"), or change service= on {_command_of(message).__name__}',
        )
    promised = _promised(message)
    _check_return(where, message, promised, hints)
    asynchronous = inspect.iscoroutinefunction(function)
    return Handler(
        function=function,
        message=message,
        returns=promised,
        where=where,
        with_context=with_context,
        asynchronous=asynchronous,
        transactional=options.transactional,
        concurrency=options.concurrency,
        retry=options.retry,
        timeout_s=_check_options(where, options, asynchronous),
    )


def _hints(where: str, function: Any, local_names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(local_names))
    except NameError as error:
        raise ParticipantDefinitionError(
            where,
            f"its annotation {error.name!r} is not known at run time",
            f"Define or import {error.name} above it, outside of TYPE_CHECKING",
        ) from None
    except TypeError as error:
        raise ParticipantDefinitionError(
            where, f"cannot be looked into ({error})", "Decorate a plain function"
        ) from None


def _check_parameters(where: str, function: Any, hints: dict[str, Any]) -> bool:
    """Whether the function takes a context."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    surplus = [p for p in positional[2:] if p.default is p.empty]
    surplus += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if not positional or surplus:
        raise ParticipantDefinitionError(
            where,
            f"takes {', '.join(p.name for p in parameters) or 'nothing'}",
            "A handler takes its message, and a Context if it wants one: (command, ctx)",
        )
    if len(positional) == 1:
        return False
    second = positional[1]
    annotations = members(hints.get(second.name, Context if second.default is second.empty else None))
    if any((typing.get_origin(annotation) or annotation) in (Context, Any) for annotation in annotations):
        return True
    if second.default is not second.empty:
        return False
    raise ParticipantDefinitionError(
        where,
        f"its second parameter {second.name!r} is {' | '.join(map(shown, annotations))}",
        "Annotate it with Context, or leave it out",
    )


def _message(where: str, function: Any, hints: dict[str, Any], kind: type) -> Handled:
    first = next(iter(inspect.signature(function).parameters))
    if first not in hints:
        raise ParticipantDefinitionError(
            where, f"its parameter {first!r} has no annotation", f"Annotate it with the {kind.__name__} that it handles"
        )
    message = hints[first]
    if isinstance(message, type) and issubclass(message, kind) and getattr(message, "__service__", None):
        return cast("Handled", message)
    other = "compensation" if kind is Command else "action"
    opposite = Compensation if kind is Command else Command
    if isinstance(message, type) and issubclass(message, opposite):
        raise ParticipantDefinitionError(
            where, f"{message.__name__} is a {opposite.__name__}, no {kind.__name__}", f"Decorate it with .{other}"
        )
    raise ParticipantDefinitionError(
        where,
        f"its first parameter {first!r} is {shown(message)}, no {kind.__name__}",
        f"Annotate it with the one {kind.__name__} that it handles",
    )


def _command_of(message: Handled) -> type[Command[Any, Any]]:
    return message if issubclass(message, Command) else message.__command__


def _check_return(where: str, message: Handled, promised: tuple[type, ...], hints: dict[str, Any]) -> None:
    names = " | ".join(map(shown, promised))
    if "return" not in hints:
        raise ParticipantDefinitionError(where, "does not say what it returns", f"Write -> {names}")
    got = members(hints["return"])
    if all(member in promised for member in got):
        return
    returned = " | ".join(map(shown, got))
    what = f"{message.__name__} promises {names}" if issubclass(message, Command) else "a compensation returns None"
    raise ParticipantDefinitionError(where, f"returns {returned}, but {what}", f"Write -> {names}, and return that")


def _promised(message: Handled) -> tuple[type, ...]:
    replies = message.__replies__ if issubclass(message, Command) else ()
    return replies or (type(None),)


def _check_options(where: str, options: Options, asynchronous: bool) -> float | None:
    """The time limit in seconds, if any."""
    if options.transactional and asynchronous:
        raise ParticipantDefinitionError(
            where,
            "is transactional and async",
            "A transactional handler runs inside the inbox's transaction: write def, and use ctx.session",
        )
    if options.concurrency is not None and not _is_count(options.concurrency):
        raise ParticipantDefinitionError(
            where, f"concurrency={options.concurrency!r} is no number of slots", "Use 1 or more"
        )
    if options.retry is not None and not isinstance(options.retry, AsyncRetrying | Retrying):
        raise ParticipantDefinitionError(
            where, f"retry={options.retry!r} is no policy", "Give a tenacity AsyncRetrying(stop=…, wait=…)"
        )
    if options.timeout is None:
        return None
    if not asynchronous:
        raise ParticipantDefinitionError(
            where,
            "has a timeout= and is not async",
            "A plain function cannot be broken off: write async def, or leave it out",
        )
    try:
        return as_timedelta(options.timeout, "timeout").total_seconds()
    except UsageError as error:
        raise ParticipantDefinitionError(where, str(error), "Give a timedelta or seconds") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
