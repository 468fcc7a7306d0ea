"""From a class body to a definition: collect the steps, check them, put them in order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from amends.contracts import Catalog, ContractError
from amends.coordinator.declaration.checks import check_step, messages_of
from amends.coordinator.declaration.collect import collect
from amends.coordinator.declaration.definition import Definition, Plan, StepKind
from amends.coordinator.declaration.draft import Draft
from amends.coordinator.declaration.keys import check_keys
from amends.coordinator.declaration.laws import check_laws, put_in_order
from amends.coordinator.declaration.order import descendants
from amends.coordinator.declaration.report import Report
from amends.coordinator.declaration.shape import shape_of
from amends.coordinator.declaration.signatures import Annotations, line_of
from amends.coordinator.declaration.state import check_bases, check_state


def compile_saga(
    cls: Any,
    body: Mapping[str, Any],
    local_names: Mapping[str, Any],
    report: Report,
    *,
    name: str,
    version: int,
    deadline: timedelta | None,
    keys: tuple[str, ...],
    abstract: bool,
) -> Definition | None:
    """The definition of a class; None for an abstract one, of which only the steps one by one are checked.

    Raises `SagaDefinitionError` with everything that is wrong, `report` included.
    """
    check_bases(cls, report)
    check_keys(cls, keys, report)
    drafts = collect(cls, body, report)
    declared = [draft.name for draft in drafts]
    annotations = Annotations({cls.__name__: cls, **local_names})
    for draft in drafts:
        check_step(draft, annotations, report)
    _check_tags(drafts, report)
    if abstract:
        report.raise_any(declared)
        return None
    if ordered := put_in_order(drafts, report):
        check_laws(ordered, report)
    check_state(cls, report)
    report.raise_any(declared)
    below = descendants({draft.name: draft.ancestors for draft in ordered})
    plans = {draft.name: _plan(draft, below[draft.name]) for draft in ordered}
    return Definition(
        name=name,
        version=version,
        shape=shape_of(name, version, plans.values()),
        saga=cls,
        steps=plans,
        pivot=next((plan for plan in plans.values() if plan.kind is StepKind.PIVOT), None),
        deadline=deadline,
        keys=keys,
    )


def _check_tags(drafts: list[Draft], report: Report) -> None:
    catalog = Catalog()
    for draft in drafts:
        for message in messages_of(draft):
            try:
                catalog.add(message)
            except ContractError as error:
                report.add(draft.name, f"speaks of {error.subject}, which {error.problem}", error.remedy, draft.step.fn)


def _plan(draft: Draft, below: frozenset[str]) -> Plan:
    options, handlers = draft.step.options, draft.handlers
    return Plan(
        name=draft.name,
        kind=draft.kind,
        act=draft.step.fn,
        after=draft.after,
        ancestors=draft.ancestors,
        descendants=below,
        timeout=options.timeout,
        retry=options.retry,
        when=handlers.get("when", options.when),
        on_success=handlers.get("on_success"),
        on_rejection=handlers.get("on_rejection"),
        on_failure=handlers.get("on_failure"),
        on_timeout=handlers.get("on_timeout"),
        compensation=handlers.get("compensation"),
        returns=draft.returns,
        optional=draft.optional,
        commands=draft.asks,
        undos=draft.undos,
        replies={reply.__tag__: reply for command in draft.asks for reply in command.__replies__},
        rejections={no.__tag__: no for command in draft.asks for no in command.__rejections__},
        awaits={word.__tag__: word for word in draft.awaits},
        line=line_of(draft.step.fn),
    )
