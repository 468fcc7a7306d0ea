"""What commits that the store has lost may have issued: steps of which the saga remembers nothing.

While the saga goes forward they need no care: they are issued again under the same effect keys, and the participants
answer from their records. Before it goes back, each must be found out and closed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from zlib import crc32

from amends.contracts import Command, Failure
from amends.coordinator.core.inputs import RolledBack
from amends.coordinator.core.journal import What
from amends.coordinator.core.sending import settle
from amends.coordinator.core.snapshot import Recording, RunStatus, StepRun
from amends.coordinator.core.turn import Turn, UserCodeError
from amends.coordinator.declaration.definition import Plan, StepKind
from amends.coordinator.declaration.results import Publish

LEAP: Final = 1000
"""More messages about one run, and more commits of one saga, than a store that is failed over or restored may lose."""

_SCATTER: Final = 1_000_000
_MILLISECOND: Final = timedelta(milliseconds=1)


def leap_of(turn: Turn, word: RolledBack) -> int:
    """Where the numbers of messages begin from now on: apart from those of every other branch of this saga's history.

    A store may be rolled back to the same commit several times, and remembers none of it. But time has passed; and as
    the clock may have been set back, the numbers are scattered as well, by what happens only once.
    """
    before = turn.suspect.leap if turn.suspect is not None else 0
    elapsed = (turn.now - turn.before.started_at) // _MILLISECOND
    scattered = crc32(f"{word.epoch}/{word.message_id}/{word.known}/{turn.now}".encode()) % _SCATTER
    return max(before + LEAP, elapsed, word.answered + LEAP) + scattered


def find_out(turn: Turn) -> bool:
    """Ask about the steps that may have been issued; give whether answers are awaited, or an operator's word is.

    What is asked is closed by that, if it has not begun. So the pivot comes first, and what lies behind it one by one:
    if any of that is done the saga goes forward, and nothing else must have been closed.
    """
    if turn.suspect is None:
        return False
    if not _awaited(turn):
        unasked = [plan for plan in turn.definition.steps.values() if plan.commands and not _known(turn, plan)]
        beyond = [plan for plan in unasked if plan.kind is StepKind.PIVOT]
        if not beyond and _may_have_passed(turn):
            beyond = [plan for plan in unasked if plan.kind is StepKind.RETRIABLE]
        _stop_waiting(turn)
        for plan in beyond[:1] or [plan for plan in unasked if plan.kind is StepKind.COMPENSATABLE]:
            _ask(turn, plan)
    return _awaited(turn)


def _stop_waiting(turn: Turn) -> None:
    """From here on no word lets the saga pass its pivot any more: what lies behind it is being closed."""
    pivot = turn.pivot_run()
    if pivot is not None and pivot.status in (RunStatus.AWAITING, RunStatus.SLEEPING):
        turn.close_run(pivot, RunStatus.CLOSED)


def _known(turn: Turn, plan: Plan) -> bool:
    return any(run.step == plan.name for run in turn.runs.values())


def _awaited(turn: Turn) -> bool:
    return any(run.forgotten and is_open(run) for run in turn.runs.values())


def is_open(run: StepRun) -> bool:
    """Whether what became of a run is still to be found out."""
    return run.status is RunStatus.SETTLING or (run.status is RunStatus.STUCK and run.stuck_on == "outcome")


def _may_have_passed(turn: Turn) -> bool:
    """Whether the saga may have got past its pivot without asking anybody, so that nobody can tell."""
    pivot = turn.definition.pivot
    if pivot is None:
        return False
    run = turn.pivot_run()
    silent = pivot.when is not None or pivot.optional or not all(issubclass(arm, Command) for arm in pivot.returns)
    return run is None or run.command is None or (run.forgotten and silent)


def _ask(turn: Turn, plan: Plan) -> None:
    assert turn.suspect is not None
    services = {command.__service__ or "" for command in plan.commands}
    run = turn.change(
        StepRun(plan.name, RunStatus.ISSUED),
        service=services.pop() if len(services) == 1 else "",
        command=Recording(plan.commands[0].__tag__, b""),
        issued_at=turn.suspect.since,
        leap=turn.suspect.leap,
    )
    ask_again(turn, run)


def ask_again(turn: Turn, run: StepRun) -> None:
    """Ask the service of a forgotten run what became of it; where several come into question, a person must."""
    if run.service:
        settle(turn, run)
        return
    services = " or ".join(sorted({str(command.__service__) for command in turn.plan(run).commands}))
    problem = f"a commit that the store has lost may have issued {run.key}, to {services}: look there, then resolve it"
    turn.stick(run, "outcome", Failure("lost-commit", problem))


def wording(turn: Turn, run: StepRun) -> Recording:
    """What a forgotten step will have asked for, as its method says now. Raises `UserCodeError` when it does not."""
    plan = turn.plan(run)
    try:
        result, _ = turn.try_call(plan.act, run, "act")
    except Exception as error:
        result = error
    if isinstance(result, Command):
        return turn.record(result)
    problem = f"{run.key} is to be undone, but the commit that issued it is lost, and its method now gives {result!r}"
    raise UserCodeError(Failure("lost-commit", problem))


def warn(turn: Turn) -> None:
    """Tell of events that lost commits may have published and nothing takes back."""
    if turn.suspect is None:
        return
    for plan in turn.definition.steps.values():
        if Publish in plan.returns and plan.compensation is not None and not _known(turn, plan):
            turn.note(What.ROLLED_BACK, plan.name, "a lost commit may have published its event; nothing takes it back")
