"""What a saga class may be, but had better not: waits without end, state that changes its type, typos in conditions."""

from __future__ import annotations

import dis
import typing
from collections.abc import Iterator
from types import FunctionType
from typing import Any, Literal

import msgspec
from msgspec import Struct

from amends.contracts.annotations import shown
from amends.coordinator.declaration.definition import Definition, Plan, StepKind
from amends.coordinator.declaration.results import Compensate
from amends.coordinator.declaration.saga import Saga, definition_of
from amends.coordinator.declaration.signatures import Annotations, UnreadableAnnotation, bare, parameters
from amends.coordinator.declaration.state import find

Severity = Literal["error", "warning"]


class Finding(Struct, frozen=True):
    """One thing to change. An error goes wrong when it is reached, a warning may be meant so. `step` is None for what
    concerns the class as a whole."""

    step: str | None
    severity: Severity
    message: str
    remedy: str


def lint(saga: type[Saga]) -> tuple[Finding, ...]:
    """What is wrong or doubtful about a saga, beyond what its class statement refuses: the class first, then each step.

    Raises `UsageError` for an abstract class, `SagaDefinitionError` for a state that cannot be stored.
    """
    definition = definition_of(saga)
    definition.decoder  # noqa: B018 - a state that names types defined later has not been checked before
    findings = [*_class(definition)]
    for plan in definition.steps.values():
        findings += [*_endless(definition, plan), *_beside_pivot(definition, plan), *_condition(plan)]
        for role, fn in _methods(plan):
            findings += [*_attributes(definition, plan, role, fn), *_returns(plan, role, fn)]
    return tuple(findings)


def _class(definition: Definition) -> Iterator[Finding]:
    if not definition.steps:
        yield Finding(None, "warning", "has no steps, so it completes at once", "Add @step methods, or abstract=True")
    for path in find(msgspec.inspect.type_info(definition.saga), msgspec.inspect.AnyType):
        message = f"{path} is Any: what is not plain data changes its type when it is stored and read back"
        yield Finding(None, "warning", message, "Give it a type of its own")
    for field in msgspec.structs.fields(definition.saga):
        if field.name.isupper() and not field.required:
            message = f"{field.name} looks like a constant, but is a field of the state and stored with every saga"
            yield Finding(None, "warning", message, f"Annotate it as {field.name}: ClassVar[…]")


def _endless(definition: Definition, plan: Plan) -> Iterator[Finding]:
    # what is retriable goes on until it succeeds, and a deadline ends the rest
    if plan.timeout is not None or definition.deadline is not None or plan.kind is StepKind.RETRIABLE:
        return
    awaited = [*(f"an answer of {command.__service__}" for command in plan.commands), *plan.awaits]
    if awaited:
        what = " or ".join(dict.fromkeys(awaited))
        message = f"waits for {what} without end: neither the step has a timeout nor the saga a deadline"
        yield Finding(plan.name, "warning", message, "Write @step(timeout=…), or deadline=… in the class line")


def _beside_pivot(definition: Definition, plan: Plan) -> Iterator[Finding]:
    pivot = definition.pivot
    if pivot is None or plan is pivot or plan.name in pivot.ancestors or pivot.name in plan.ancestors:
        return
    if plan.commands or (plan.awaits and plan.timeout is not None):
        message = (
            f"runs beside the pivot {pivot.name}: once {pivot.name} is done there is no way back, so a refusal or a "
            "timeout here leaves the saga stuck"
        )
        after = ", ".join(dict.fromkeys((*pivot.after, plan.name)))
        yield Finding(plan.name, "warning", message, f"Let the pivot wait for it: after=[{after}] on {pivot.name}")


def _methods(plan: Plan) -> Iterator[tuple[str, FunctionType]]:
    roles = ("act", "when", "on_success", "on_rejection", "on_failure", "on_timeout", "compensation")
    for role in roles:
        fn = bare(getattr(plan, role))
        if fn is not None and parameters(fn):
            yield role, fn


def _condition(plan: Plan) -> Iterator[Finding]:
    fn = bare(plan.when)
    if fn is None:
        return
    code = [i for i in dis.get_instructions(fn) if i.opname not in ("RESUME", "NOP", "RETURN_VALUE")]
    constant = len(code) == 1 and code[0].opname in ("LOAD_CONST", "RETURN_CONST", "LOAD_SMALL_INT")
    if constant and not code[0].argval:
        yield Finding(
            plan.name, "warning", "is never run: its when= is always false", "Remove the step, or the condition"
        )


def _attributes(definition: Definition, plan: Plan, role: str, fn: FunctionType) -> Iterator[Finding]:
    """Attributes of the state that do not exist, wherever a method reads or writes them on its first parameter."""
    state = parameters(fn)[0]
    before: dis.Instruction | None = None
    missing: dict[str, str] = {}
    for instruction in dis.get_instructions(fn):
        if state in _stored(instruction):
            return  # from here on the name is something else
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR") and _loaded(before) == state:
            attribute = str(instruction.argval)
            if not hasattr(definition.saga, attribute):
                missing[attribute] = "writes" if instruction.opname == "STORE_ATTR" else "reads"
        before = instruction
    name = fn.__name__ if role != "when" or fn.__name__ != "<lambda>" else "when="
    for attribute, does in missing.items():
        message = f"{name} {does} {state}.{attribute}, which {definition.saga.__name__} does not have"
        yield Finding(plan.name, "error", message, f"Declare {attribute} as a field, or correct the name")


# newer Pythons load or store two locals with one instruction, which then has two names


def _stored(instruction: dis.Instruction) -> tuple[str, ...]:
    names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
    if instruction.opname == "STORE_FAST_LOAD_FAST":
        return names[:1]
    return names if instruction.opname.startswith(("STORE_FAST", "STORE_DEREF")) else ()


def _loaded(instruction: dis.Instruction | None) -> str | None:
    """The local variable that is on top of the stack after this, if it is one."""
    if instruction is None or not (
        instruction.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) or instruction.opname == "STORE_FAST_LOAD_FAST"
    ):
        return None
    names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
    return str(names[-1])


def _returns(plan: Plan, role: str, fn: FunctionType) -> Iterator[Finding]:
    """Handlers that are annotated to return what nobody looks at."""
    allowed, says = _HANDLER_RETURNS.get(role, ((), ""))
    if not says:
        return
    try:
        arms = Annotations({}).of(fn, "return") or ()
    except UnreadableAnnotation:
        return
    for arm in arms:
        if arm is not typing.Any and arm not in allowed:
            message = f"{fn.__name__} returns {shown(arm)}, but {says}"
            yield Finding(plan.name, "error", message, "Change what it returns")


_DECISION: tuple[Any, ...] = (Compensate, type[Compensate], type(None), typing.NoReturn, typing.Never)
_HANDLER_RETURNS: dict[str, tuple[tuple[Any, ...], str]] = {
    "on_success": ((type(None), typing.NoReturn, typing.Never), "what on_success returns is not looked at"),
    "on_rejection": (_DECISION, "on_rejection decides: Compensate or None"),
    "on_failure": (_DECISION, "on_failure decides: Compensate or None"),
    "on_timeout": (_DECISION, "on_timeout decides: Compensate or None"),
    "when": ((bool,), "a condition is True or False"),
}
