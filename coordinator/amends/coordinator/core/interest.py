"""Which events a saga wants to be told of."""

from __future__ import annotations

from amends.contracts import Event
from amends.coordinator.core.forward import awaited
from amends.coordinator.core.policy import Policy
from amends.coordinator.core.snapshot import Awaits, Phase, RunStatus, Snapshot, StepRun
from amends.coordinator.core.turn import Turn
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.results import WaitFor


def interests(definition: Definition, snapshot: Snapshot, policy: Policy) -> tuple[Awaits, ...]:
    """The events that the saga awaits, and those that its later steps would await as the state is now.

    A later step's method is asked beforehand, on a copy, so that an event that comes before its step is not missed; so
    is that of a step that is stuck and may be begun anew. A method that cannot answer yet is asked again at the next
    transition.
    """
    if snapshot.phase is not Phase.RUNNING:
        return ()
    found: dict[Awaits, None] = {}
    turn = Turn(definition, snapshot, snapshot.clock, policy)
    runs = {run.step: run for run in snapshot.runs.values()}
    for plan in definition.steps.values():
        if not any(issubclass(type, Event) for type in plan.awaits.values()):
            continue
        run = runs.get(plan.name)
        if run is None or run.unbegun:
            try:
                result, _ = turn.try_call(plan.act, StepRun(plan.name, RunStatus.AWAITING), "act")
            except Exception:
                continue
            if isinstance(result, WaitFor) and issubclass(result.type, Event):
                found[awaited(result)] = None
        elif (
            run.status is RunStatus.AWAITING and run.awaits is not None and run.awaits.type in definition.event_types()
        ):
            found[run.awaits] = None
    return tuple(found)
