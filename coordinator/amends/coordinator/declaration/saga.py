"""The base class of all sagas."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct, StructMeta
from typing_extensions import dataclass_transform

from amends.contracts import Duration, UsageError, as_timedelta
from amends.contracts.names import is_wire_name, kebab
from amends.coordinator.declaration.collect import Body
from amends.coordinator.declaration.compile import compile_saga
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.errors import Problem, SagaDefinitionError
from amends.coordinator.declaration.keys import read_keys
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.run import RunSlot

_KEYWORDS = ("version", "name", "deadline", "keys", "abstract")


class SagaMeta(StructMeta):
    """Takes the class keywords of amends off, makes the struct, and compiles its steps."""

    __abstract__: bool
    __definition__: Definition | None

    @classmethod
    def __prepare__(mcls, name: str, bases: tuple[type, ...], /, **keywords: Any) -> Body:
        return Body()

    if TYPE_CHECKING:
        # pyright checks class keywords against this signature, so they are spelt out

        def __new__(
            mcls,
            class_name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            version: int = 1,
            name: str | None = None,
            deadline: Duration | None = None,
            keys: Sequence[str] = (),
            abstract: bool = False,
        ) -> SagaMeta: ...

    else:

        def __new__(mcls, class_name, bases, namespace, /, **keywords):
            return _make_saga(mcls, class_name, bases, namespace, keywords)


def _make_saga(
    mcls: type[SagaMeta],
    class_name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    keywords: dict[str, Any],
) -> SagaMeta:
    ours = namespace.get("__module__") == __name__
    frame = sys._getframe(2)  # the one that holds the class statement
    local_names: Mapping[str, Any] = {} if frame.f_locals is frame.f_globals else frame.f_locals
    report = Report(class_name, namespace.get("__module__", ""))
    if local_names and not ours:
        _resolve_fields(namespace, frame.f_globals, local_names)
    try:
        cls = StructMeta.__new__(mcls, class_name, bases, namespace, kw_only=True, forbid_unknown_fields=True)
    except TypeError as error:
        raise SagaDefinitionError(class_name, [_not_a_struct(bases, error)]) from error
    cls.__abstract__ = bool(keywords.get("abstract")) or bool(cls.__dict__.get("__parameters__")) or ours
    if not ours:
        name, version, deadline = _read_keywords(class_name, keywords, report)
        cls.__definition__ = compile_saga(
            cls,
            namespace,
            local_names,
            report,
            name=name,
            version=version,
            deadline=deadline,
            keys=read_keys(keywords.get("keys", ()), report),
            abstract=cls.__abstract__,
        )
    return cls


def _resolve_fields(namespace: dict[str, Any], names: dict[str, Any], local_names: Mapping[str, Any]) -> None:
    """Resolve annotations that name types of the enclosing function: msgspec only looks into the module."""
    annotations = namespace.get("__annotations__", {})
    for field, annotation in annotations.items():
        if isinstance(annotation, str):
            try:
                annotations[field] = eval(annotation, names, dict(local_names))
            except Exception:  # left to msgspec, which looks again at first use
                continue


def _not_a_struct(bases: tuple[type, ...], error: TypeError) -> Problem:
    if "lay-out conflict" in str(error):
        names = " and ".join(base.__name__ for base in bases)
        remedy = "Only one base may have state: let one inherit from the other, or make one a field"
        return Problem(None, f"cannot join the states of {names}", remedy)
    return Problem(None, str(error), "See the fields of the class")


def _read_keywords(class_name: str, keywords: dict[str, Any], report: Report) -> tuple[str, int, timedelta | None]:
    for keyword in keywords:
        if keyword not in _KEYWORDS:
            close = difflib.get_close_matches(keyword, _KEYWORDS, 1)
            known = ", ".join(f"{k}=" for k in _KEYWORDS)
            remedy = f"Did you mean {close[0]}=?" if close else f"Known: {known}"
            report.add(None, f"unknown class keyword {keyword!r}", remedy)
    name, version = keywords.get("name"), keywords.get("version", 1)
    if not is_wire_name(kebab(class_name) if name is None else name):
        stands = f"name={name!r}" if name is not None else f"the class name {class_name!r}"
        report.add(
            None, f"{stands} cannot be a name on the wire", 'Use letters, digits and . _ - in ASCII: name="place-order"'
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        report.add(None, f"version={version!r} is no version", "Write version=1, version=2, …")
    if not isinstance(keywords.get("abstract", False), bool):
        report.add(None, f"abstract={keywords['abstract']!r} is no bool", "Write abstract=True, or leave it out")
    return name or kebab(class_name), version, _read_deadline(keywords.get("deadline"), report)


def _read_deadline(value: Any, report: Report) -> timedelta | None:
    if value is None:
        return None
    try:
        deadline = as_timedelta(value)
    except UsageError:
        deadline = timedelta()
    if not deadline:
        report.add(None, f"deadline={value!r} is no duration", "Write deadline=timedelta(hours=1), or seconds")
    return deadline


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Saga(RunSlot, Struct, metaclass=SagaMeta):
    """A business transaction that spans services: its fields are the state, its steps are methods.

    Class keywords: `name=` (the stable name of the saga, by default made from the class name), `version=`, `deadline=`
    (how long a run may take before it goes back; a `timedelta` or seconds), `keys=` (the names of fields that runs can
    be found by), `abstract=` (only a base for others).
    Fields are keyword-only. The class is checked when it is made: `SagaDefinitionError` says all that is wrong with it.
    """

    __definition__: ClassVar[Definition | None] = None
    """The compiled steps; None for an abstract class."""


def definition_of(saga: type[Saga]) -> Definition:
    """The definition of a saga class. Raises `UsageError` for an abstract one, and for what is no saga class."""
    definition = getattr(saga, "__definition__", None) if isinstance(saga, SagaMeta) else None
    if not isinstance(definition, Definition):
        shown = getattr(saga, "__name__", repr(saga))
        what = "is abstract: it is only a base for other sagas" if isinstance(saga, SagaMeta) else "is no saga class"
        raise UsageError(f"{shown} {what}. Give a class that inherits from Saga")
    return definition
