"""What can be checked of the methods that serve a step: whether they are ever called, and with what."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from amends.contracts import Compensation, Failure, Rejection
from amends.contracts.annotations import shown
from amends.coordinator.declaration.draft import Draft
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.results import Publish
from amends.coordinator.declaration.signatures import Annotations, UnreadableAnnotation, bare, oddity, parameters, takes

_GIVES = {
    "on_success": ("reply",),
    "on_rejection": ("rejection",),
    "on_failure": ("failure",),
    "on_timeout": (),
    "compensation": (),
    "when": (),
}


def check_handler(draft: Draft, role: str, handler: Any, annotations: Annotations, report: Report) -> None:
    """Report what is wrong with one handler; fill in what a compensation may return."""
    fn = bare(handler)
    if fn is None:
        report.add(
            draft.name,
            f"its {role} is no plain method but {type(handler).__name__}",
            f"Put @{draft.name}.{role} on a def that takes self",
        )
        return
    name, gives = fn.__name__, _GIVES[role]

    def bad(problem: str, remedy: str) -> None:
        report.add(draft.name, problem, remedy, fn)

    if (odd := oddity(fn)) is not None:
        bad(f"{name} is {odd}", f"Write a plain def {name}: it only changes the state, or decides")
        return
    if (never := _never(draft, role)) is not None:
        bad(f"{never}, so {name} is never called", f"Remove {name}")
        return
    if not takes(fn, 1 + len(gives)):
        have = len(parameters(fn)) - 1
        count = "no argument" if have < 1 else f"{have} argument{'s' * (have > 1)}"
        bad(
            f"{name} takes {count} after self, {role} gives {len(gives) or 'none'}",
            f"Write def {name}({', '.join(('self', *gives))})",
        )
        return
    if role == "compensation":
        _read_compensation(draft, fn, annotations, report)
    elif gives and len(parameters(fn)) > 1:
        _check_gift(draft, role, fn, annotations, bad)


def _never(draft: Draft, role: str) -> str | None:
    """Why this role never has anything to do."""
    if role == "on_success" and not draft.asks and not draft.awaits:
        return "it asks nobody and waits for nothing"
    if role in ("on_rejection", "on_failure") and not draft.asks:
        return "it asks nobody"
    if role == "on_timeout" and draft.step.options.timeout is None:
        return "it has no timeout="
    return None


def _check_gift(draft: Draft, role: str, fn: Any, annotations: Annotations, bad: Callable[[str, str], None]) -> None:
    """Compare the annotation of a handler's parameter with what the contracts promise."""
    parameter = parameters(fn)[1]
    try:
        allowed = annotations.of(fn, parameter)
    except UnreadableAnnotation:
        return  # such as a reply imported for checkers only: they can tell
    if allowed is None:
        return
    for source, given in _promised(draft, role):
        if not any(_holds(one, given) for one in allowed):
            takes_what = " | ".join(shown(one) for one in allowed)
            everything = " | ".join(dict.fromkeys(shown(one) for _, one in _promised(draft, role)))
            bad(
                f"{fn.__name__} takes {takes_what}, but {source} {shown(given)}",
                f"Write def {fn.__name__}(self, {parameter}: {everything})",
            )
            return


def _promised(draft: Draft, role: str) -> list[tuple[str, type]]:
    if role == "on_failure":
        return [("a failure is a", Failure)]
    if role == "on_rejection":
        declared = [(f"{c.__name__} is rejected with", r) for c in draft.asks for r in c.__rejections__]
        return declared + [
            (f"{c.__name__} names no rejection, so it may be any", Rejection)
            for c in draft.asks
            if not c.__rejections__
        ]
    replies: list[tuple[str, type]] = []
    for command in draft.asks:
        replies += [(f"{command.__name__} is answered with", r) for r in command.__replies__ or (type(None),)]
    return replies + [("what it waits for is", word) for word in draft.awaits]


def _holds(allowed: Any, given: type) -> bool:
    origin = typing.get_origin(allowed) or allowed
    return not isinstance(origin, type) or issubclass(given, origin)


def _read_compensation(draft: Draft, fn: Any, annotations: Annotations, report: Report) -> None:
    def bad(problem: str, remedy: str) -> None:
        report.add(draft.name, problem, remedy, fn)

    commands = " | ".join(f"Compensation[{c.__name__}]" for c in draft.asks)
    try:
        arms = annotations.of(fn, "return")
    except UnreadableAnnotation as error:
        problem, remedy = error.told(report.class_name)
        bad(f"{fn.__name__} {problem}", remedy)
        return
    if arms is None:
        bad(
            f"{fn.__name__} does not say what it returns",
            f"Annotate it: def {fn.__name__}(self) -> " + ("ReleaseStock" if draft.asks else "None"),
        )
        return
    for arm in arms:
        if arm is type(None) or arm is Publish:
            continue
        if not (isinstance(arm, type) and issubclass(arm, Compensation)) or arm.__abstract__:
            bad(
                f"{fn.__name__} returns {shown(arm)}, which undoes nothing",
                f"Return {'a ' + commands if commands else 'Publish or None'}",
            )
        elif arm.__command__ not in draft.asks:
            asked = " | ".join(c.__name__ for c in draft.asks) or "nothing"
            bad(
                f"{fn.__name__} undoes {arm.__command__.__name__}, but the step asks for {asked}",
                f"Return {'a ' + commands if commands else 'Publish or None'}",
            )
        else:
            draft.undos += (arm,)
            continue
        return
    undone = {undo.__command__ for undo in draft.undos}
    missing = [command.__name__ for command in draft.asks if command not in undone]
    if missing and Publish not in arms:
        bad(f"{fn.__name__} does not undo {' and '.join(missing)}", f"Return {commands}")
