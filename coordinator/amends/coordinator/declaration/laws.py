"""The laws that steps must obey together: order, one pivot, and that undo is never a surprise."""

from __future__ import annotations

import difflib

from amends.coordinator.declaration.definition import StepKind
from amends.coordinator.declaration.draft import Draft
from amends.coordinator.declaration.order import ancestors, cycle, topological
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.step import Step


def put_in_order(drafts: list[Draft], report: Report) -> list[Draft]:
    """The steps in topological order, with `after` and `ancestors` filled in; empty if there is no order."""
    steps = {draft.name: draft for draft in drafts}
    previous: str | None = None
    for draft in drafts:
        given = draft.step.options.after
        if given is None:
            draft.after = () if previous is None else (previous,)
        else:
            names = (_resolve(one, draft, steps, report) for one in given)
            draft.after = tuple(dict.fromkeys(name for name in names if name is not None))
        previous = draft.name
    after = {draft.name: draft.after for draft in drafts}
    if circle := cycle(after):
        report.add(
            circle[0],
            f"waits for itself: {' -> '.join(circle)}",
            "Take one of these out of after= (a step without after= waits for the one above it)",
            steps[circle[0]].step.fn,
        )
        return []
    order = topological(after)
    for name, above in ancestors(after, order).items():
        steps[name].ancestors = above
    return [steps[name] for name in order]


def _resolve(one: Step[object] | str, draft: Draft, steps: dict[str, Draft], report: Report) -> str | None:
    name = one if isinstance(one, str) else one.name
    fn = draft.step.fn
    if name == draft.name:
        report.add(draft.name, "waits for itself", "Take it out of its own after=", fn)
        return None
    if name in steps and (isinstance(one, str) or one in steps[name].lineage):
        return name
    close = difflib.get_close_matches(name, [known for known in steps if known != draft.name], 1)
    if isinstance(one, str):
        problem = f"waits for {name!r}, which is no step"
        remedy = f"Did you mean {close[0]!r}?" if close else f"Steps are {', '.join(steps)}"
    else:
        problem, remedy = f"waits for {one!r} of another saga", f"Use the steps of {report.class_name}, or their names"
    report.add(draft.name, problem, remedy, fn)
    return None


def check_laws(drafts: list[Draft], report: Report) -> None:
    """What Garcia-Molina and Salem ask of a saga: until the pivot everything can be undone, behind it nothing fails."""
    pivots = [draft for draft in drafts if draft.kind is StepKind.PIVOT]
    pivot = pivots[0] if pivots else None
    for draft in pivots[1:]:
        report.add(
            draft.name,
            f"is a second pivot beside {pivots[0].name}",
            "Keep one: the step after which the saga only goes forward",
            draft.step.fn,
        )
    for draft in drafts:
        match draft.kind:
            case StepKind.COMPENSATABLE if pivot is not None and draft.name not in pivot.ancestors:
                _report_undoable(draft, pivot, report)
            case StepKind.RETRIABLE if pivot is None or pivot.name not in draft.ancestors:
                _report_retriable(draft, pivot, report)
            case StepKind.NEUTRAL if draft.asks:
                _report_asking(draft, pivot, report)


def _report_undoable(draft: Draft, pivot: Draft, report: Report) -> None:
    undo = draft.handlers["compensation"].__name__
    if pivot.name in draft.ancestors:
        problem = f"comes after the pivot {pivot.name}, so it is never undone, but has a compensation"
        remedy = f"Remove {undo} and mark it @step(retriable=True), or move it before {pivot.name}"
    else:
        problem = (
            f"runs beside the pivot {pivot.name}: refused once {pivot.name} is done, it would leave a saga that can go "
            "neither forward nor back"
        )
        after = ", ".join(dict.fromkeys((*pivot.after, draft.name)))
        remedy = f"Let the pivot wait for it: on {pivot.name}, @step(pivot=True, after=[{after}])"
    report.add(draft.name, problem, remedy, draft.step.fn)


def _report_retriable(draft: Draft, pivot: Draft | None, report: Report) -> None:
    if pivot is None:
        problem = "is retriable, but no step is the pivot: until there is one, the saga may still go back"
        remedy = "Mark the go/no-go step before it @step(pivot=True), or give it a compensation instead"
    else:
        problem = f"is retriable, but does not come after the pivot {pivot.name}"
        remedy = f"Write @step(retriable=True, after={pivot.name}), or give it a compensation instead"
    report.add(draft.name, problem, remedy, draft.step.fn)


def _report_asking(draft: Draft, pivot: Draft | None, report: Report) -> None:
    command = draft.asks[0].__name__
    if pivot is not None and pivot.name in draft.ancestors:
        problem = f"comes after the pivot {pivot.name}, but may give up"
        remedy = "Mark it @step(retriable=True), or @step(readonly=True) if it changes nothing"
    else:
        problem = f"asks for {command} and nothing undoes it"
        remedy = (
            f"Add @{draft.name}.compensation returning a Compensation[{command}], or mark it @step(readonly=True) if "
            "it changes nothing, @step(pivot=True) if it is the go/no-go step, or after that @step(retriable=True)"
        )
    report.add(draft.name, problem, remedy, draft.step.fn)
