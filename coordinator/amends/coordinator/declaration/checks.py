"""What can be checked of one step alone: its method and its options, and through `handlers` what serves it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from amends.contracts import Command, Compensation, Event, Message, Signal
from amends.contracts.annotations import shown
from amends.coordinator.declaration.definition import StepKind
from amends.coordinator.declaration.draft import Draft
from amends.coordinator.declaration.handlers import check_handler
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.results import Compensate, Publish, Skip, Sleep, WaitFor
from amends.coordinator.declaration.run import RunSlot
from amends.coordinator.declaration.signatures import Annotations, UnreadableAnnotation, bare, oddity, parameters, takes

_FLAGS = ("pivot", "retriable", "readonly")


def check_step(draft: Draft, annotations: Annotations, report: Report) -> None:
    """Fill in what the step may return and what its compensation does, its kind, and report what is wrong."""
    for problem, remedy in draft.step.problems:
        report.add(draft.name, problem, remedy, draft.step.fn)
    _check_kind(draft, report)
    if not _read_act(draft, annotations, report):
        return
    _check_options(draft, report)
    for role, fn in draft.handlers.items():
        check_handler(draft, role, fn, annotations, report)


# the step method


def _read_act(draft: Draft, annotations: Annotations, report: Report) -> bool:
    name, fn = draft.name, bare(draft.step.fn)

    def bad(problem: str, remedy: str) -> bool:
        report.add(name, problem, remedy, fn)
        return False

    if fn is None:
        return bad(f"is no plain method but {type(draft.step.fn).__name__}", "Put @step on top, and on a def")
    match oddity(fn):
        case "async":
            return bad(
                "is async; steps only say what is to be done, participants do it",
                f"Write def {name}(self) -> SomeCommand, and do the I/O in that participant's action",
            )
        case str():
            return bad("is a generator", "Return one command; make two steps of two commands")
    if not parameters(fn):
        return bad("does not take the state", f"Write def {name}(self)")
    if len(parameters(fn)) > 1 or not takes(fn, 1):
        extra = next((p for p in (*parameters(fn)[1:], *_keyword_only(fn))), "arguments")
        return bad(
            f"takes {extra} beside the state; steps over items are not known to this version",
            f"Read what it needs from the state: def {name}(self)",
        )
    if draft.step.arms is None:
        try:
            draft.step.arms = annotations.of(fn, "return")
        except UnreadableAnnotation as error:
            return bad(*error.told(report.class_name))
    if draft.step.arms is None:
        return bad("does not say what it returns", f"Annotate it: def {name}(self) -> ReserveStock")
    good = True
    for arm in draft.step.arms:
        good &= _read_arm(draft, arm, annotations, bad)
    return good


def _keyword_only(fn: Any) -> tuple[str, ...]:
    code = fn.__code__
    names: tuple[str, ...] = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return names


def _read_arm(draft: Draft, arm: Any, annotations: Annotations, bad: Callable[[str, str], bool]) -> bool:
    origin = typing.get_origin(arm) or arm
    if arm is type(None):
        draft.optional = True
        return True
    if not isinstance(origin, type):
        return bad(f"returns {shown(arm)}, which is nothing a step can do", _CAN)
    if issubclass(origin, Command):
        if origin is not arm or origin.__abstract__:
            return bad(
                f"returns {shown(arm)}, which names no command for certain", "Name the command classes, joined by |"
            )
        draft.asks += (origin,)
    elif issubclass(origin, WaitFor):
        words = annotations.arguments(arm, draft.step.fn)
        if not words:
            return bad("does not say what it waits for", f"Annotate it: def {draft.name}(self) -> WaitFor[OrderPaid]")
        for word in words:
            if not (isinstance(word, type) and issubclass(word, Event | Signal)) or word.__abstract__:
                return bad(f"waits for {shown(word)}, which is no event or signal", "Name Event or Signal classes")
        draft.awaits += words
    elif origin not in (Sleep, Publish, Skip):
        return bad(f"returns {shown(arm)}, {_what_else(origin)[0]}", _what_else(origin)[1])
    draft.returns += (origin,)
    return True


_CAN = "Return a Command, WaitFor[…], Sleep, Publish, Skip or None"


def _what_else(origin: type) -> tuple[str, str]:
    if issubclass(origin, Compensation):
        return "which undoes something", "Return it from the compensation of the step that it undoes"
    if issubclass(origin, Event):
        return "which is an event", f"Annotate it -> Publish, and return Publish({origin.__name__}(…))"
    if issubclass(origin, RunSlot):
        return "which is a saga; child sagas are not known to this version", _CAN
    if issubclass(origin, Compensate):
        return "which is a decision", "Decide in a handler: on_rejection, on_failure or on_timeout"
    return "which is nothing a step can do", _CAN


# kind and options


def _check_kind(draft: Draft, report: Report) -> None:
    options, compensation = draft.step.options, draft.handlers.get("compensation")
    flags = [flag for flag in _FLAGS if getattr(options, flag)]
    if len(flags) > 1:
        report.add(draft.name, f"is {' and '.join(flags)} at once", "Choose one", draft.step.fn)
    if flags and compensation is not None:
        why = "there is nothing to undo" if "readonly" in flags else "it is never undone"
        report.add(
            draft.name,
            f"is {flags[0]}, so {why}, but has a compensation",
            f"Remove {getattr(compensation, '__name__', 'it')}, or {flags[0]}=True",
            compensation,
        )
    if flags:
        draft.kind = StepKind(flags[0])
    elif compensation is not None:
        draft.kind = StepKind.COMPENSATABLE


def _check_options(draft: Draft, report: Report) -> None:
    options, fn = draft.step.options, draft.step.fn
    if options.timeout is not None and not draft.asks and not draft.awaits:
        report.add(draft.name, "has timeout=, but waits for no answer, event or signal", "Remove timeout=", fn)
    if options.retry is not None and not draft.asks:
        report.add(draft.name, "has retry=, but asks no participant, so nothing is repeated", "Remove retry=", fn)
    if options.when is not None:
        if "when" in draft.handlers:
            report.add(draft.name, f"has when= and the method {draft.handlers['when'].__name__}", "Keep one", fn)
        condition = bare(options.when)
        if condition is not None and (oddity(condition) or not takes(condition, 1)):
            report.add(draft.name, "has a when= that cannot be called with the state", "Write when=lambda saga: …", fn)


def messages_of(draft: Draft) -> list[type[Message]]:
    """Every type of message that a step sends or receives."""
    answers = [answer for command in draft.asks for answer in (*command.__replies__, *command.__rejections__)]
    return [*draft.asks, *answers, *draft.awaits, *draft.undos]
