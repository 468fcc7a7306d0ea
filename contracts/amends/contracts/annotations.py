"""Reading type annotations: what stands in a union, and how a type is shown to people."""

from __future__ import annotations

import types
import typing
from typing import Any


def members(annotation: Any) -> tuple[Any, ...]:
    """What an annotation allows: the members of a union, aliases (`type X = A | B`) unwrapped; else itself alone."""
    if hasattr(annotation, "__value__"):
        return members(annotation.__value__)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in members(part))
    return (type(None) if annotation is None else annotation,)


def shown(annotation: Any) -> str:
    """An annotation as people write it: `StockReserved | None`."""
    if annotation is type(None):
        return "None"
    if typing.get_args(annotation) or not isinstance(annotation, type):
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return " | ".join(shown(a) for a in arguments)
        if isinstance(origin, type) and arguments:
            return f"{origin.__name__}[{', '.join(shown(a) for a in arguments)}]"
        return str(getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", None) or annotation)
    return annotation.__name__
