"""Business keys: fields of the state that a saga can be found by."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from amends.coordinator.declaration.report import Report

LONGEST: Final = 200
"""How many characters of a value count. An index is no place for texts."""

_ONE_VALUE: Final = (
    types.AnyType, types.NoneType, types.BoolType, types.IntType, types.FloatType, types.StrType, types.DecimalType,
    types.UUIDType, types.DateTimeType, types.DateType, types.TimeType, types.TimeDeltaType, types.EnumType,
    types.LiteralType,
)  # fmt: skip


def read_keys(given: Any, report: Report) -> tuple[str, ...]:
    """The class keyword `keys=`, whose fields `check_keys` looks for once the class is made."""
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return tuple(dict.fromkeys(given))
    remedy = f"Write keys=({given!r},)" if isinstance(given, str) else 'Write keys=("order_id", "customer_id")'
    report.add(None, f"keys={given!r} are no names of fields", remedy)
    return ()


def check_keys(cls: Any, keys: Sequence[str], report: Report) -> None:
    """Report keys that are no fields, or whose values are no single value. What cannot be resolved yet is let pass."""
    for name in keys:
        if name not in cls.__struct_fields__:
            close = difflib.get_close_matches(name, cls.__struct_fields__, 1)
            known = ", ".join(cls.__struct_fields__) or "none"
            remedy = f"Did you mean {close[0]!r}?" if close else f"Name fields of the class; it has {known}"
            report.add(None, f"keys: there is no field {name!r}", remedy)
    try:
        fields = {field.name: field.type for field in types.type_info(cls).fields}  # type: ignore[attr-defined]
    except (NameError, TypeError):  # told by the check of the state
        return
    for name in keys:
        if name in fields and not _is_one_value(fields[name]):
            remedy = "Name fields that hold one text, number, id, date or enum; add a field for it where there is none"
            report.add(None, f"keys: {name!r} does not hold one value to be found by", remedy)


def _is_one_value(info: types.Type) -> bool:
    if isinstance(info, types.UnionType):
        return all(_is_one_value(member) for member in info.types)
    if isinstance(info, types.Metadata):
        return _is_one_value(info.type)
    return isinstance(info, _ONE_VALUE)


def key_values(saga: Any, keys: Sequence[str]) -> dict[str, str]:
    """What a state is found by: each key's value as text. None and empty text are no values."""
    found = {name: key_text(getattr(saga, name)) for name in keys}
    return {name: text for name, text in found.items() if text}


def key_text(value: Any) -> str:
    """A value as JSON writes it, without quotes: `42`, `true`, `2026-01-31`, an enum by its value."""
    if value is None:
        return ""
    plain = msgspec.to_builtins(value)
    return (plain if isinstance(plain, str) else msgspec.json.encode(plain).decode())[:LONGEST]
