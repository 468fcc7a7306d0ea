"""Reading functions: how many arguments they take, what their annotations say, where they stand."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from amends.contracts.annotations import members

MISSING: Final = object()
"""What stands for an annotation that is not there."""


class UnreadableAnnotation(Exception):
    """An annotation cannot be resolved now. `name` is the name that does not exist, if that is the reason."""

    def __init__(self, problem: str, name: str | None) -> None:
        self.problem, self.name = problem, name
        super().__init__(problem)

    def told(self, class_name: str) -> tuple[str, str]:
        """The problem and its remedy, as they are said of something in a class."""
        if self.name is None:
            return f"has an annotation that cannot be read: {self.problem}", "Name classes, joined by |"
        return (
            f"names {self.name!r} in its annotation, which does not exist when the class is made",
            f"Import {self.name} at run time (not under TYPE_CHECKING), or define it above {class_name}",
        )


def bare(fn: Any) -> types.FunctionType | None:
    """The function that a user wrote, under decorators that say so (`functools.wraps`); None if it is no function."""
    if hasattr(fn, "__wrapped__") and not isinstance(fn, classmethod | staticmethod):
        fn = inspect.unwrap(fn)
    return fn if isinstance(fn, types.FunctionType) else None


def line_of(fn: Any) -> int | None:
    """The line that a function begins in, its decorators included."""
    function = bare(fn)
    return None if function is None else function.__code__.co_firstlineno


def parameters(fn: types.FunctionType) -> tuple[str, ...]:
    """The names of its positional parameters, `self` included."""
    return fn.__code__.co_varnames[: fn.__code__.co_argcount]


def takes(fn: types.FunctionType, count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    code = fn.__code__
    required = code.co_argcount - len(fn.__defaults__ or ())
    keyword_only = code.co_kwonlyargcount - len(fn.__kwdefaults__ or {})
    most = count if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    return required <= count <= most and not keyword_only


def oddity(fn: types.FunctionType) -> str | None:
    """`async` or `generator`, for functions whose call does not run them."""
    flags = fn.__code__.co_flags
    if flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE):
        return "async"
    return "a generator" if flags & inspect.CO_GENERATOR else None


class Annotations:
    """Resolves annotations. Names are looked up in the function's module and in `local_names`: those of the function
    that holds the class statement, so that sagas can be declared inside of a test."""

    def __init__(self, local_names: Mapping[str, Any]) -> None:
        self._local_names = local_names

    def of(self, fn: Callable[..., Any], name: str) -> tuple[Any, ...] | None:
        """The members of the annotation of a parameter or of `return`; None where there is none.

        Raises `UnreadableAnnotation`.
        """
        try:
            annotation = fn.__annotations__.get(name, MISSING)
            if annotation is MISSING:
                return None
            return self._members(annotation, fn.__globals__)
        except NameError as error:
            raise UnreadableAnnotation(str(error), error.name) from None
        except Exception as error:
            raise UnreadableAnnotation(f"{type(error).__name__}: {error}", None) from None

    def arguments(self, annotation: Any, fn: Callable[..., Any]) -> tuple[Any, ...]:
        """What stands in the brackets of `WaitFor[OrderPaid]`, unions taken apart."""
        return tuple(
            member for argument in typing.get_args(annotation) for member in self._members(argument, fn.__globals__)
        )

    def _members(self, annotation: Any, names: dict[str, Any]) -> tuple[Any, ...]:
        while isinstance(annotation, str | typing.ForwardRef):
            text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
            annotation = eval(text, names, dict(self._local_names))
        found = members(annotation)
        if not any(isinstance(member, str | typing.ForwardRef) for member in found):
            return found
        return tuple(one for member in found for one in self._members(member, names))
