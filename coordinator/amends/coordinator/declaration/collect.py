"""Finding the steps of a class and the methods that serve them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic

import msgspec

from amends.coordinator.declaration.draft import Draft
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.run import RunSlot
from amends.coordinator.declaration.signatures import bare
from amends.coordinator.declaration.step import MARKS, Step

_NOT_USERS = (object, msgspec.Struct, RunSlot, Generic)


class Body(dict[str, Any]):
    """The namespace of a class body.

    A line that would replace a step, or a method that serves one, is kept beside it: it would get lost without a word.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[tuple[str, Any, Any]] = []

    def __setitem__(self, key: str, value: Any) -> None:
        known = self.get(key)
        if known is not value and (isinstance(known, Step) or getattr(known, MARKS, None)):
            self.replaced.append((key, known, value))
        else:
            super().__setitem__(key, value)


def collect(cls: Any, body: Mapping[str, Any], report: Report) -> list[Draft]:
    """The steps of a class in order of declaration, those of its bases first."""
    _report_replaced(body, report)
    # not vars(cls): a step that is named like a field has become the field's default and is gone from there
    bodies: list[Iterable[tuple[str, Any]]] = [
        list(_members(body) if base is cls else base.__dict__.items())
        for base in reversed(cls.__mro__)
        if base not in _NOT_USERS
    ]
    drafts = _steps(bodies, report)
    _report_names(cls, body, drafts, report)
    _give_handlers(drafts, bodies, report)
    return list(drafts.values())


def _steps(bodies: list[Iterable[tuple[str, Any]]], report: Report) -> dict[str, Draft]:
    steps: dict[str, Step[Any]] = {}
    lineage: dict[str, set[Step[Any]]] = {}
    for members in bodies:
        for name, value in members:
            if not isinstance(value, Step):
                continue
            if bare(value.fn) is None:
                value.name = name
            if value.name == name:
                steps[name] = value
                lineage.setdefault(name, set()).add(value)
            else:
                report.add(name, f"is another name for step {value.name}", "Define it with @step def", value.fn)
    return {name: Draft(step, lineage[name]) for name, step in steps.items()}


def _give_handlers(drafts: Mapping[str, Draft], bodies: list[Iterable[tuple[str, Any]]], report: Report) -> None:
    methods: dict[str, Any] = {}
    serving: dict[tuple[str, str], str] = {}
    for members in bodies:
        own: dict[tuple[str, str], str] = {}
        for name, value in members:
            methods[name] = value
            for step, role in getattr(value, MARKS, ()):
                if step.name not in drafts or step not in drafts[step.name].lineage:
                    problem = f"{name} is the {role} of {step!r}, which is no step of this saga"
                    report.add(None, problem, f"Use the steps of {report.class_name}", value)
                elif (step.name, role) in own:
                    problem = f"has two methods for {role}: {own[step.name, role]} and {name}"
                    report.add(step.name, problem, "Keep one", value)
                else:
                    own[step.name, role] = name
        serving |= own
    for (step_name, role), name in serving.items():
        drafts[step_name].handlers[role] = methods[name]


def _members(body: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield from body.items()
    for name, _, value in getattr(body, "replaced", ()):
        if getattr(value, MARKS, None):
            yield name, value


def _report_replaced(body: Mapping[str, Any], report: Report) -> None:
    for name, known, value in getattr(body, "replaced", ()):
        if isinstance(known, Step):
            report.add(
                name,
                "is defined twice: the later one would replace the step",
                f"Give it a name of its own, such as {name}_done (this is not @property.setter)",
                value,
            )
        else:
            step, role = getattr(known, MARKS)[0]
            report.add(
                step.name,
                f"{name} is defined twice: the later one would replace this {role}",
                "Give it a name of its own",
                value,
            )


def _report_names(cls: Any, body: Mapping[str, Any], drafts: Mapping[str, Draft], report: Report) -> None:
    fields = cls.__struct_fields__
    for name, value in body.items():
        if name in drafts and name not in fields and not isinstance(value, Step):
            problem = "hides a step of a base class with something that is no step"
            report.add(name, problem, "Decorate it with @step, or rename it", value)
    for name in fields:
        if name in drafts:
            report.add(name, "is both a field of the state and a step", "Rename one of them", drafts[name].step.fn)
        elif bare(body.get(name)) is not None:
            report.add(None, f"{name} is both a field of the state and a method", "Rename one of them", body[name])
    for name in ("run", "_run"):
        if name in fields or name in body:
            report.add(None, f"the name {name!r} is taken: self.run is what a step may know of its run", "Rename it")
