"""What users type as data: JSON, and `field=value`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from amends.contracts import UsageError
from amends.coordinator.declaration.saga import Saga

SagaT = TypeVar("SagaT", bound=Saga)


def read_json(text: str, what: str) -> Any:
    """JSON as an argument; `-` reads it from standard input, `@path` from a file. Raises `UsageError`."""
    if text == "-":
        text, what = sys.stdin.read(), f"{what} from standard input"
    elif text.startswith("@"):
        try:
            text, what = Path(text[1:]).read_text("utf-8"), f"{what} in {text[1:]}"
        except (OSError, ValueError) as error:
            raise UsageError(f"{what}: {text[1:]} cannot be read: {error}") from None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{what} is no JSON: {error}") from None


def read_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object as an argument. Raises `UsageError`."""
    value = read_json(text, what)
    if not isinstance(value, dict):
        raise UsageError(f'{what} must be a JSON object such as {{"field": 1}}, not {text[:60]}')
    return value


def read_fields(pairs: Sequence[str]) -> dict[str, str]:
    """`field=value` arguments. Raises `UsageError` for one that is none, or that comes twice."""
    fields: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} is no field=value")
        if name in fields:
            raise UsageError(f"{name}= is given twice: {fields[name]!r} and {value!r}")
        fields[name] = value
    return fields


def read_key(pair: str | None) -> tuple[str, str] | None:
    """`NAME=VALUE` as a business key. Raises `UsageError`."""
    if pair is None:
        return None
    ((name, value),) = read_fields([pair]).items()
    return name, value


_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_moment(text: str | None, option: str) -> datetime | None:
    """A moment: ISO 8601, in UTC where it has no time zone, or so long ago (`90s`, `15m`, `2h`, `7d`, `1w`).

    Raises `UsageError`.
    """
    if text is None:
        return None
    if (number := text[:-1]).isdecimal() and text[-1] in _UNITS:
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(number)})
        except OverflowError:
            raise UsageError(f"{option} {text} lies before the beginning of the calendar") from None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option}: {text!r} is no moment. Write 2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00+01:00, or how long "
            "ago: 15m, 2h, 7d"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment


def plain_input(given: str | None, pairs: Sequence[str], what: str) -> dict[str, Any]:
    """Data without its class: a value is JSON if it can be read as such, else text."""
    data = {} if given is None else read_object(given, what)
    for name, text in read_fields(pairs).items():
        data[name] = _guess(text)
    return data


def _guess(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def saga_input(saga: type[SagaT], given: str | None, pairs: Sequence[str]) -> SagaT:
    """A saga made of what was typed, each value read as its field's type. Raises `UsageError` naming the field."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(saga)}
    data = {} if given is None else read_object(given, "--input")
    for name, text in read_fields(pairs).items():
        if name not in types:
            close = difflib.get_close_matches(name, types, 1)
            hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(types) or 'none'}"
            raise UsageError(f"{saga.__name__} has no field {name!r}. {hint}")
        data[name] = _typed(saga, name, text, types[name])
    try:
        return msgspec.convert(data, saga)
    except msgspec.ValidationError as error:
        raise UsageError(f"{saga.__name__}: {error}") from None


def _typed(saga: type[Saga], name: str, text: str, type: Any) -> Any:
    try:
        return msgspec.to_builtins(msgspec.convert(text, type, strict=False))
    except msgspec.ValidationError as error:
        problem = error
    try:
        return msgspec.to_builtins(msgspec.convert(msgspec.json.decode(text), type))
    except msgspec.DecodeError:
        raise UsageError(f"{saga.__name__}.{name}={text!r}: {problem}") from None
