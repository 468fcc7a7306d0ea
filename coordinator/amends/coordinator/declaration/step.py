"""The `step` decorator, and what it makes of a method."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, Protocol, Self, TypeAlias, overload

from msgspec import Struct
from typing_extensions import TypeVar

from amends.contracts import Duration, Failure, UsageError, as_timedelta
from amends.coordinator.declaration.errors import Problem, SagaDefinitionError
from amends.coordinator.declaration.results import Decision, Publish, StepResult
from amends.coordinator.retry import Retry

S = TypeVar("S")
V = TypeVar("V")
X = TypeVar("X")
C = TypeVar("C", bound=StepResult)
V_co = TypeVar("V_co", covariant=True)
C_co = TypeVar("C_co", covariant=True)
"""Bounded by `step`, not here: `Step[Yields[V]]` must be a type."""


# phantom protocols: what checkers read off the result of a step; nothing has these methods at run time


class Yields(Protocol[V_co]):
    """Waiting for this gives a `V`: a command its reply, a wait its event or signal."""

    def __yields__(self) -> V_co: ...


class Rejects(Protocol[V_co]):
    """This may be refused with a `V`."""

    def __rejects__(self) -> V_co: ...


class Undoes(Protocol[V_co]):
    """This undoes a `V`."""

    def __undoes__(self) -> V_co: ...


class Options(Struct, frozen=True, kw_only=True):
    """What `@step(...)` was given."""

    pivot: bool = False
    retriable: bool = False
    readonly: bool = False
    timeout: timedelta | None = None
    retry: Retry | None = None
    after: tuple[Step[Any] | str, ...] | None = None
    when: Callable[[Any], bool] | None = None


MARKS = "__amends_marks__"
"""The attribute of a method that says which steps it serves, and how: a list of (step, role)."""


class Step(Generic[C_co]):
    """One step. On the class it is this; on an instance it is the plain method, so that a step can be called in a test.

    Its decorators only mark methods, and the class collects them: a subclass can give a step of its base another
    handler without changing the base. The methods take the state; those with two parameters also take what came.
    """

    __slots__ = ("arms", "fn", "name", "options", "problems")

    def __init__(self, fn: Callable[..., C_co], options: Options, problems: tuple[tuple[str, str], ...] = ()) -> None:
        self.fn, self.options, self.problems = fn, options, problems
        self.name: str = getattr(fn, "__name__", "?")
        self.arms: tuple[Any, ...] | None = None
        """What it may return; known once its class stands, since the names in it may be local to a function."""

    def __repr__(self) -> str:
        return f"<step {getattr(self.fn, '__qualname__', self.fn)}>"

    @overload
    def __get__(self, saga: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self, saga: object, owner: type, /) -> Callable[[], C_co]: ...
    def __get__(self, saga: Any, owner: type, /) -> Any:
        return self if saga is None else types.MethodType(self.fn, saga)

    def on_success(self: Step[Yields[V]], fn: Callable[[S, V], None], /) -> Callable[[S, V], None]:
        """Called with the reply (None where the command promises none), or with the event or signal waited for."""
        return _marked(self, "on_success", fn)

    def on_rejection(self: Step[Rejects[X]], fn: Callable[[S, X], Decision], /) -> Callable[[S, X], Decision]:
        """Called with the participant's business "no"."""
        return _marked(self, "on_rejection", fn)

    def on_failure(self, fn: Callable[[S, Failure], Decision], /) -> Callable[[S, Failure], Decision]:
        """Called when the participant failed and no attempt is left."""
        return _marked(self, "on_failure", fn)

    def on_timeout(self, fn: Callable[[S], Decision], /) -> Callable[[S], Decision]:
        """Called when nothing came within `timeout=`."""
        return _marked(self, "on_timeout", fn)

    def compensation(
        self, fn: Callable[[S], Undoes[C_co] | Publish | None], /
    ) -> Callable[[S], Undoes[C_co] | Publish | None]:
        """Says how to undo the step: a `Compensation` of its command, an event to publish, or None."""
        return _marked(self, "compensation", fn)

    def when(self, fn: Callable[[S], bool], /) -> Callable[[S], bool]:
        """Asked before the step: when it says no, the step is skipped."""
        return _marked(self, "when", fn)


F = TypeVar("F", bound=Callable[..., Any])


def _marked(step: Step[Any], role: str, fn: F) -> F:
    marks = getattr(fn, "__dict__", None)
    if marks is None:
        saga = getattr(step.fn, "__qualname__", "?").rpartition(".")[0]
        problem = Problem(step.name, f"{role} is given {fn!r}, which is no method", f"Put @{step.name}.{role} on a def")
        raise SagaDefinitionError(saga.rpartition("<locals>.")[2], [problem])
    marks.setdefault(MARKS, []).append((step, role))
    return fn


After: TypeAlias = Step[Any] | str | Sequence[Step[Any] | str]
"""One or more steps of the same saga, or their names."""


class _Decorator(Protocol):
    def __call__(self, fn: Callable[[S], C], /) -> Step[C]: ...


@overload
def step(fn: Callable[[S], C], /) -> Step[C]: ...
@overload
def step(
    *,
    pivot: bool = False,
    retriable: bool = False,
    readonly: bool = False,
    timeout: Duration | None = None,
    retry: Retry | None = None,
    after: After | None = None,
    when: Callable[[Any], bool] | None = None,
) -> _Decorator: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a method of a saga one of its steps. What it returns says what it does.

    `pivot`: the go/no-go step; once it is done the saga only goes forward. `retriable`: comes after the pivot and is
    repeated until it succeeds. `readonly`: changes nothing, so there is nothing to undo. `timeout`: how long to wait
    for an answer, an event or a signal (`timedelta` or seconds). `retry`: how to repeat it after a failure, instead of
    the coordinator's own policy. `after`: the steps that it waits for; by default the one declared before it, `()`
    starts at once. `when`: asked with the state; a step it says no to is skipped.

    Mistakes are told by the class, as `SagaDefinitionError`, together with all others.
    """
    read, problems = _read(options)
    return Step(fn, read, problems) if fn is not None else lambda fn: Step(fn, read, problems)


_LATER = {
    "for_each": "Write one step for each item, or start a saga for each",
    "max_parallel": "Write one step for each item, or start a saga for each",
}


def _read(options: dict[str, Any]) -> tuple[Options, tuple[tuple[str, str], ...]]:
    """Options checked by hand, as constructors check nothing; and (problem, remedy) of those that are wrong."""
    read: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for name, value in options.items():
        if name in _LATER:
            problems.append((f"has {name}=, which this version does not know", _LATER[name]))
        elif name not in Options.__struct_fields__:
            close = difflib.get_close_matches(name, Options.__struct_fields__, 1)
            known = ", ".join(f"{field}=" for field in Options.__struct_fields__)
            problems.append(
                (f"has an unknown option {name}=", f"Did you mean {close[0]}=?" if close else f"Known: {known}")
            )
        else:
            try:
                read[name] = _READERS[name](value)
            except _Wrong as wrong:
                problems.append((f"has {name}={value!r}, which is {wrong.what}", wrong.remedy))
    return Options(**read), tuple(problems)


class _Wrong(Exception):
    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("neither True nor False", "Write True, or leave it out")
    return value


def _timeout(value: Any) -> timedelta | None:
    remedy = "Write timeout=timedelta(seconds=30), or seconds"
    if value is None:
        return None
    try:
        read = as_timedelta(value)
    except UsageError:
        raise _Wrong("no duration", remedy) from None
    if not read:
        raise _Wrong("over before it begins", remedy)
    return read


def _retry(value: Any) -> Retry | None:
    if value is not None and not isinstance(value, Retry):
        attempts = value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 5
        raise _Wrong("no Retry", f"Write retry=Retry(attempts={attempts})")
    return value


def _after(value: Any) -> tuple[Step[Any] | str, ...] | None:
    if value is None:
        return None
    given = (value,) if isinstance(value, Step | str) else value
    if not isinstance(given, tuple | list) or not all(isinstance(one, Step | str) for one in given):
        raise _Wrong("no step and no sequence of steps", "Write after=reserve, after=(reserve, charge) or after=()")
    return tuple(given)


def _when(value: Any) -> Callable[[Any], bool] | None:
    if value is not None and not callable(value):
        raise _Wrong("no function", "Write when=lambda saga: saga.wanted")
    return value  # type: ignore[no-any-return]


_READERS: dict[str, Callable[[Any], Any]] = {
    "pivot": _flag,
    "retriable": _flag,
    "readonly": _flag,
    "timeout": _timeout,
    "retry": _retry,
    "after": _after,
    "when": _when,
}
