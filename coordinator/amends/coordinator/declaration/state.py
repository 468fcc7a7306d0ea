"""Whether the fields of a saga can be stored and read back."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import get_annotations
from typing import Any

import msgspec
from msgspec import StructMeta
from msgspec import inspect as types

from amends.coordinator.declaration.errors import Problem, SagaDefinitionError
from amends.coordinator.declaration.report import Report

_ENCODABLE = "Use a Struct, a dataclass, datetime, Decimal, UUID, Enum, list, dict, …, or keep an id of it in the state"


def check_bases(cls: Any, report: Report) -> None:
    """Mixins that are no sagas: their fields would silently not be state, and typos would be kept in a `__dict__`."""
    plain = [base for base in cls.__mro__ if base is not object and not isinstance(base, StructMeta)]
    for base in plain:
        lost = [name for name in get_annotations(base) if name not in cls.__struct_fields__]
        if lost and base.__module__ not in ("typing", "typing_extensions", "amends.coordinator.declaration.run"):
            report.add(
                None,
                f"what {base.__name__} declares ({', '.join(lost)}) is not part of the state",
                f"Make it a saga: class {base.__name__}(Saga, abstract=True)",
            )
            return
    if cls.__dictoffset__:
        mixin = next(base.__name__ for base in plain if base.__dictoffset__)
        report.add(
            None,
            f"{mixin} gives it a __dict__, so that a misspelt self.field would be kept nowhere",
            f"Write class {mixin}(Saga, abstract=True), or add __slots__ = () to it",
        )


def check_state(cls: Any, report: Report) -> None:
    """Report fields that cannot be stored. What names types that do not exist yet is checked at first use."""
    try:
        for problem in _problems(cls):
            report.add(problem.step, problem.problem, problem.remedy)
    except NameError:
        return


def decoder_of(cls: Any) -> msgspec.msgpack.Decoder[Any]:
    """What reads the state back. Raises `SagaDefinitionError` if the state cannot be stored."""
    try:
        if problems := list(_problems(cls)):
            raise SagaDefinitionError(cls.__name__, problems)
        return msgspec.msgpack.Decoder(cls)
    except NameError as error:
        problem = Problem(
            None,
            f"its state names {error.name!r}, which does not exist",
            f"Import {error.name} at run time (not under TYPE_CHECKING), in the module of {cls.__name__}",
        )
        raise SagaDefinitionError(cls.__name__, [problem]) from None


def _problems(cls: Any) -> Iterator[Problem]:
    try:
        state = types.type_info(cls)
        msgspec.msgpack.Decoder(cls)
    except TypeError as error:
        yield Problem(None, f"its state cannot be stored: {error}", "Use types that can be told apart when read back")
        return
    for path in find(state, types.CustomType):
        yield Problem(None, f"its state cannot be stored: nothing can encode {path}", _ENCODABLE)


def find(info: types.Type, wanted: type[types.Type]) -> Iterator[str]:
    """Where in a type another one stands, as `address.street`, with `[…]` for what is in a collection."""
    yield from _find(info, wanted, "", set())


def _find(info: types.Type, wanted: type[types.Type], path: str, seen: set[Any]) -> Iterator[str]:
    if isinstance(info, wanted):
        name = getattr(getattr(info, "cls", None), "__qualname__", "").rpartition("<locals>.")[2]
        yield f"{path} ({name})" if name else path
    elif isinstance(info, types.StructType | types.DataclassType | types.TypedDictType | types.NamedTupleType):
        if info.cls not in seen:
            seen.add(info.cls)
            for field in info.fields:
                yield from _find(field.type, wanted, f"{path}.{field.name}" if path else field.name, seen)
    elif isinstance(info, types.UnionType):
        for member in info.types:
            yield from _find(member, wanted, path, seen)
    elif isinstance(info, types.DictType):
        for member in (info.key_type, info.value_type):
            yield from _find(member, wanted, f"{path}[…]", seen)
    elif isinstance(info, types.TupleType):
        for member in info.item_types:
            yield from _find(member, wanted, f"{path}[…]", seen)
    elif isinstance(info, types.CollectionType):
        yield from _find(info.item_type, wanted, f"{path}[…]", seen)
    elif isinstance(info, types.Metadata):
        yield from _find(info.type, wanted, path, seen)
