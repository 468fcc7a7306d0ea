"""The steps of a saga as a picture (Mermaid, DOT) and as plain data."""

from __future__ import annotations

from typing import Any

from amends.coordinator.declaration.definition import Definition, Plan, StepKind

_MERMAID_SHAPES = {
    StepKind.COMPENSATABLE: ('["', '"]'),
    StepKind.PIVOT: ('{{"', '"}}'),
    StepKind.RETRIABLE: ('(["', '"])'),
    StepKind.READONLY: ('[/"', '"/]'),
    StepKind.NEUTRAL: ('("', '")'),
}

_DOT_SHAPES = {
    StepKind.COMPENSATABLE: "box",
    StepKind.PIVOT: "hexagon",
    StepKind.RETRIABLE: "ellipse",
    StepKind.READONLY: "parallelogram",
    StepKind.NEUTRAL: "plaintext",
}


def as_dict(definition: Definition) -> dict[str, Any]:
    """The saga as plain data, ready for JSON: its steps in topological order, what they ask for and are undone by."""
    return {
        "saga": definition.name,
        "version": definition.version,
        "shape": definition.shape,
        "deadline_s": None if definition.deadline is None else definition.deadline.total_seconds(),
        "steps": [_step(plan) for plan in definition.steps.values()],
    }


def _step(plan: Plan) -> dict[str, Any]:
    undo = plan.compensation
    return {
        "name": plan.name,
        "kind": str(plan.kind),
        "after": list(plan.after),
        "conditional": plan.when is not None,
        "timeout_s": None if plan.timeout is None else plan.timeout.total_seconds(),
        "commands": [{"type": command.__tag__, "service": command.__service__} for command in plan.commands],
        "replies": list(plan.replies),
        "rejections": list(plan.rejections),
        "awaits": list(plan.awaits),
        "compensation": None if undo is None else {"method": undo.__name__, "types": [u.__tag__ for u in plan.undos]},
    }


def mermaid(definition: Definition) -> str:
    """A Mermaid flowchart. Compensations hang on their steps by dashed lines."""
    ids = _ids(definition)
    lines = ["flowchart TD"]
    for plan in definition.steps.values():
        opening, closing = _MERMAID_SHAPES[plan.kind]
        lines.append(f"    {ids[plan.name]}{opening}{'<br/>'.join(_label(plan))}{closing}")
    for plan in definition.steps.values():
        lines += [f"    {ids[before]} --> {ids[plan.name]}" for before in plan.after]
    for plan in definition.steps.values():
        if plan.compensation is not None:
            undo = f"{ids[plan.name]}_undo"
            lines.append(f'    {undo}["{"<br/>".join(_undo_label(plan))}"]')
            lines.append(f"    {ids[plan.name]} -.- {undo}")
            lines.append(f"    style {undo} stroke-dasharray: 4 4")
    return "\n".join(lines) + "\n"


def dot(definition: Definition) -> str:
    """A Graphviz digraph. Compensations hang on their steps by dashed lines."""
    ids = _ids(definition)
    lines = [f'digraph "{definition.tag}" {{', "    rankdir=TB;"]
    for plan in definition.steps.values():
        label = "\\n".join(_label(plan))
        lines.append(f'    {ids[plan.name]} [label="{label}", shape={_DOT_SHAPES[plan.kind]}];')
    for plan in definition.steps.values():
        lines += [f"    {ids[before]} -> {ids[plan.name]};" for before in plan.after]
    for plan in definition.steps.values():
        if plan.compensation is not None:
            undo = f"{ids[plan.name]}_undo"
            label = "\\n".join(_undo_label(plan))
            lines.append(f'    {undo} [label="{label}", shape=box, style=dashed];')
            lines.append(f"    {ids[plan.name]} -> {undo} [style=dashed, dir=none, constraint=false];")
    return "\n".join([*lines, "}"]) + "\n"


def _ids(definition: Definition) -> dict[str, str]:
    # numbers, since a step may be called what the languages reserve, such as "end"
    return {name: f"s{index}" for index, name in enumerate(definition.steps)}


def _label(plan: Plan) -> list[str]:
    kind = [] if plan.kind is StepKind.NEUTRAL else [f"({plan.kind})"]
    asks = [f"{_short(c.__tag__, c.__service__)} @ {c.__service__}" for c in plan.commands]
    waits = [f"waits for {tag}" for tag in plan.awaits]
    return [" ".join([plan.name, *kind]), *asks, *waits, *(["when …"] if plan.when is not None else [])]


def _undo_label(plan: Plan) -> list[str]:
    assert plan.compensation is not None
    return [plan.compensation.__name__, *(f"{_short(u.__tag__, u.__service__)} @ {u.__service__}" for u in plan.undos)]


def _short(tag: str, service: str | None) -> str:
    """`reserve-stock.v1`: a tag without the service, which stands behind it."""
    return tag.removeprefix(f"{service}.")
