"""Laws of the core: what holds for every saga, every participant, and every order of messages.

Random sagas meet random participants over an unruly network (see tests/support/worlds.py); an oracle that knows nothing
of the core (tests/support/oracle.py) judges what came of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.oracle import Graph, violations
from tests.support.worlds import POLICY, Choose, Happening, Spec, Watcher, World, one, specs

from amends.contracts import ReplyOutcome
from amends.coordinator.core import Phase, RunStatus, Snapshot, Verdict, transition
from amends.coordinator.core.effects import Notify, SendCommand, SendSettle, SendUndo
from amends.coordinator.core.inputs import Answered, AnyInput, TimersFired
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Recording, StepRun, encode_snapshot
from amends.coordinator.declaration.definition import Definition, StepKind

LAW = settings(
    max_examples=int(os.environ.get("AMENDS_EXAMPLES", "100")),
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def choices(data: st.DataObject) -> Choose:
    return lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0


def world(data: st.DataObject, *watchers: Watcher, faults: bool = True) -> World:
    """A random saga in a random world, after whatever happened to it for a while."""
    choose = choices(data)
    deadline_s = one(choose, (None, None, 20.0, 300.0))
    made = World(choose, specs(choose, faults=faults), deadline_s=deadline_s, watchers=watchers)
    made.storm(one(choose, (10, 30, 60)))
    return made


def never(complaint: Callable[[World, Happening], str | None]) -> Watcher:
    """A watcher that fails as soon as there is something to complain about."""

    def watch(seen: World, happening: Happening) -> None:
        if problem := complaint(seen, happening):
            raise AssertionError(f"{problem}\nafter {happening.message}\nin {happening.after}")

    return watch


def judge(seen: World) -> None:
    problems = violations(seen.graph, seen.history, seen.ending, left_out=seen.left_out, waived=seen.waived)
    assert problems + seen.complaints == [], seen.history


# legal histories


@LAW
@given(st.data())
def test_what_happened_is_always_a_legal_history(data: st.DataObject) -> None:
    seen = world(data)
    judge(seen)
    seen.settle_down(helped=bool(seen.choose(2)))
    judge(seen)


@LAW
@given(st.data())
def test_events_are_published_once_and_only_for_what_was_done_or_undone(data: st.DataObject) -> None:
    seen = world(data)
    seen.settle_down()
    publishing = {spec.name for spec in seen.steps if spec.does == "publish"}
    assert seen.published == [mark for mark in seen.history if mark.step in publishing]


@LAW
@given(st.data())
def test_with_participants_that_answer_and_operators_that_help_every_saga_ends(data: st.DataObject) -> None:
    seen = world(data)
    assert seen.settle_down()


@LAW
@given(st.data())
def test_a_saga_that_stops_before_its_end_says_why(data: st.DataObject) -> None:
    seen = world(data)
    if not seen.settle_down(helped=False):
        runs = seen.snapshot.runs.values()
        stuck = [run for run in runs if run.status in (RunStatus.STUCK, RunStatus.UNDO_STUCK)]
        assert all(run.failure is not None and run.stuck_on for run in stuck)
        assert seen.snapshot.paused or stuck or any(run.status is RunStatus.AWAITING for run in runs)


# nothing is lost, nothing waits in vain

_TIMED = (
    RunStatus.ISSUED,
    RunStatus.RETRYING,
    RunStatus.SETTLING,
    RunStatus.SLEEPING,
    RunStatus.UNDOING,
    RunStatus.UNDO_RETRYING,
)


def _lost(seen: World, happening: Happening) -> str | None:
    snapshot = happening.after
    if snapshot.phase.ended:
        open_runs = [
            run.key for run in snapshot.runs.values() if run.wake_at or run.status in (*_TIMED, RunStatus.UNKNOWN)
        ]
        return f"it has ended, and yet {open_runs} are open" if open_runs else None
    for run in snapshot.runs.values():
        if run.status in _TIMED and run.wake_at is None:
            return f"{run.key} is {run.status} and nothing is due for it"
        if run.status is RunStatus.AWAITING and run.timeout_at != run.wake_at:
            return f"{run.key} waits until {run.timeout_at} and wakes at {run.wake_at}"
    alive = snapshot.wake_at or snapshot.paused or snapshot.stuck
    if not alive and not any(run.status is RunStatus.AWAITING for run in snapshot.runs.values()):
        return "it is live, and nothing is due, awaited, stuck or paused"
    return None


@LAW
@given(st.data())
def test_a_live_saga_always_has_something_due_awaited_stuck_or_paused(data: st.DataObject) -> None:
    world(data, never(_lost)).settle_down()


def _held_up(graph: Graph, definition: Definition, snapshot: Snapshot) -> str | None:
    if snapshot.paused or snapshot.phase.ended or snapshot.aborting:
        return None
    runs = {run.step: run for run in snapshot.runs.values()}
    passed = {name for name, run in runs.items() if run.status in (RunStatus.DONE, RunStatus.SKIPPED, RunStatus.WAIVED)}
    if snapshot.phase is Phase.RUNNING:
        ready = [name for name, node in graph.items() if name not in runs and passed.issuperset(node.after)]
        return f"{ready} could begin" if ready else None
    open_undos = {name for name, run in runs.items() if _to_be_undone(definition, run)}
    for name in open_undos:
        waits = runs[name].status in (RunStatus.DONE, RunStatus.UNKNOWN)
        if waits and open_undos.isdisjoint(definition.steps[name].descendants):
            return f"{name} could be undone"
    return None


def _to_be_undone(definition: Definition, run: StepRun) -> bool:
    undoing = (RunStatus.UNDOING, RunStatus.UNDO_RETRYING, RunStatus.UNDO_STUCK)
    undoable = definition.steps[run.step].compensation is not None
    return run.status in undoing or (undoable and run.status in (RunStatus.DONE, RunStatus.UNKNOWN))


@LAW
@given(st.data())
def test_steps_and_undos_that_wait_for_nothing_go_out_together(data: st.DataObject) -> None:
    def held_up(seen: World, happening: Happening) -> str | None:
        return _held_up(seen.graph, happening.definition, happening.after)

    world(data, never(held_up)).settle_down()


# undoing


def _pivot_is_through(definition: Definition, snapshot: Snapshot) -> bool:
    pivot = definition.pivot
    run = None if pivot is None else snapshot.runs.get(f"{pivot.name}#0")
    return run is not None and run.status in (RunStatus.DONE, RunStatus.SKIPPED, RunStatus.WAIVED)


@LAW
@given(st.data())
def test_each_step_is_undone_once_at_most_and_none_behind_the_pivot(data: st.DataObject) -> None:
    undone: Counter[str] = Counter()

    def watch(seen: World, happening: Happening) -> str | None:
        if happening.result.record is None:
            return None
        entries = happening.result.record.entries
        undone.update(entry.step for entry in entries if entry.what is What.STEP_UNDONE)
        undos = [entry for entry in entries if entry.what in (What.UNDO_ISSUED, What.STEP_UNDONE)]
        if undos and _pivot_is_through(happening.definition, happening.after):
            return f"{undos} behind the pivot"
        return f"{undone}" if any(times > 1 for times in undone.values()) else None

    world(data, never(watch)).settle_down()


@LAW
@given(st.data())
def test_a_saga_whose_pivot_is_through_never_turns_back(data: st.DataObject) -> None:
    def watch(seen: World, happening: Happening) -> str | None:
        through = _pivot_is_through(happening.definition, happening.after)
        back = happening.after.phase in (Phase.COMPENSATING, Phase.COMPENSATED)
        return "it goes back behind the pivot" if through and back else None

    world(data, never(watch)).settle_down()


# messages that come again, late, or out of order


def _only_notices(happening: Happening) -> bool:
    return all(isinstance(effect, Notify) for effect in happening.result.effects)


@LAW
@given(st.data())
def test_what_is_not_applied_has_no_effects_but_notices(data: st.DataObject) -> None:
    def watch(seen: World, happening: Happening) -> str | None:
        result = happening.result
        if result.verdict is Verdict.APPLIED:
            return None if result.snapshot and result.record else "it was applied and nothing is stored"
        if not _only_notices(happening):
            return f"{result.verdict} with {result.effects}"
        if result.verdict is Verdict.HELD:
            return None
        return f"{result.verdict}, and yet stored" if result.snapshot or result.record else None

    world(data, never(watch)).settle_down()


@LAW
@given(st.data())
def test_an_input_that_was_heeded_changes_nothing_when_it_comes_again(data: st.DataObject) -> None:
    def watch(seen: World, happening: Happening) -> str | None:
        earlier = [one(seen.choose, seen.applied)] if seen.applied else []
        again: list[AnyInput] = [message for message in earlier if not isinstance(message, TimersFired)]
        if happening.result.verdict is Verdict.APPLIED:
            again.append(happening.message)
        for message in again:
            after, now = happening.after, min(happening.now, happening.after.clock)
            result = transition(happening.definition, after, message, now, "again", POLICY)
            stored = result.snapshot or after
            if result.verdict is Verdict.APPLIED or (stored.phase, stored.runs) != (after.phase, after.runs):
                return f"{message} came again and was {result.verdict}"
            if any(not isinstance(effect, Notify) for effect in result.effects):
                return f"{message} came again and led to {result.effects}"
        return None

    world(data, never(watch)).settle_down()


def _fan(choose: Choose) -> tuple[tuple[Spec, ...], dict[str, str]]:
    """Independent steps, perhaps a pivot and a step after all of them; and what becomes of each."""
    names = [f"s{number}" for number in range(2 + choose(4))]
    steps = [Spec(name, StepKind.COMPENSATABLE, attempts=1) for name in names]
    fates = {name: one(choose, ("done", "done", "rejected", "failed", "broken off")) for name in names}
    if choose(2):
        steps.append(Spec("pivot", StepKind.PIVOT, after=tuple(names), attempts=1))
        steps.append(Spec("last", StepKind.RETRIABLE, after=("pivot",)))
        fates["pivot"] = one(choose, ("done", "rejected", "failed", "broken off"))
    return tuple(steps), fates


_COMES_TO = {
    RunStatus.REJECTED: "nothing",
    RunStatus.CLOSED: "nothing",
    RunStatus.DONE: "done",
    RunStatus.UNDONE: "undone",
}


@LAW
@given(st.data())
def test_the_order_of_independent_replies_changes_neither_the_end_nor_what_becomes_of_each_step(
    data: st.DataObject,
) -> None:
    choose = choices(data)
    steps, fates = _fan(choose)
    ends = []
    for shuffled in (False, True):
        fan = World(lambda n: 0, steps, fates=fates)
        fan.calm = True
        for command in [fan.transit.pop(0) for _ in range(len(fan.transit))]:
            assert isinstance(command, SendCommand)
            fan.serve(command)
        if shuffled:
            replies = list(fan.transit)
            fan.transit[:] = [replies.pop(choose(len(replies))) for _ in fan.transit]
        assert fan.settle_down()
        judge(fan)
        what = {run.step: _COMES_TO[run.status] for run in fan.snapshot.runs.values()}
        ends.append((fan.snapshot.phase, what, sorted(fan.history, key=str)))
    assert ends[0] == ends[1]


# the same again


@LAW
@given(st.data())
def test_the_same_inputs_give_the_same_bytes_with_or_without_a_restart_in_between(data: st.DataObject) -> None:
    seen = world(data)
    seen.settle_down()
    # the world stores and loads the snapshot before each input; here it stays in memory
    begun = seen.begin()
    assert _bytes(begun) == _bytes(seen.begun)
    assert begun.snapshot is not None
    snapshot = begun.snapshot
    for happening in seen.happenings:
        result = transition(
            happening.definition, snapshot, happening.message, happening.now, happening.commit_id, POLICY
        )
        assert _bytes(result) == _bytes(happening.result)
        snapshot = result.snapshot or snapshot
    assert encode_snapshot(snapshot) == encode_snapshot(seen.snapshot)


def _bytes(result: object) -> bytes:
    return msgspec.msgpack.encode(result)


@LAW
@given(st.data())
def test_a_transition_leaves_the_snapshot_it_was_given_as_it_was(data: st.DataObject) -> None:
    def watch(seen: World, happening: Happening) -> str | None:
        changed = encode_snapshot(happening.before) != happening.stored
        return "the snapshot was changed in place" if changed else None

    world(data, never(watch)).settle_down()


@LAW
@given(st.data())
def test_each_commit_is_one_version_on_and_the_clock_never_runs_backwards(data: st.DataObject) -> None:
    def watch(seen: World, happening: Happening) -> str | None:
        before, after, result = happening.before, happening.after, happening.result
        if result.snapshot is None or result.record is None:
            return None
        if (after.version, after.commit_id) != (before.version + 1, happening.commit_id):
            return f"version {before.version} became {after.version} with {after.commit_id}"
        if (result.record.version, result.record.commit_id) != (after.version, after.commit_id):
            return "the journal names another commit"
        if after.incarnation != before.incarnation:
            return "it became another incarnation"
        if after.clock < before.clock or result.record.at != after.clock:
            return f"the clock went from {before.clock} to {after.clock}"
        return None

    world(data, never(watch)).settle_down()


# what is sent


@LAW
@given(st.data())
def test_what_is_sent_about_a_run_is_numbered_through_and_can_still_be_begun_when_it_goes_out(
    data: st.DataObject,
) -> None:
    numbers: Counter[str] = Counter()

    def watch(seen: World, happening: Happening) -> str | None:
        for effect in happening.result.effects:
            if not isinstance(effect, SendCommand | SendUndo | SendSettle):
                continue
            numbers[effect.run] = max(numbers[effect.run], 1 if effect.run in _first(seen) else 0) + 1
            if effect.attempt != numbers[effect.run]:
                return f"{effect} is message {numbers[effect.run]} about {effect.run}"
            if isinstance(effect, SendCommand) and effect.not_after <= happening.after.clock:
                return f"{effect} goes out expired"
            run, before = happening.after.runs[effect.run], happening.before.runs.get(effect.run)
            if isinstance(effect, SendUndo) and effect.command != run.command:
                return f"{effect} does not carry the command of {run}"
            if isinstance(effect, SendUndo) and before is not None and effect.reply not in (before.reply, run.reply):
                return f"{effect} does not carry the reply that is recorded of {run}"
        return None

    world(data, never(watch)).settle_down()


def _first(seen: World) -> set[str]:
    """The runs whose command went out with the start, before anybody watched."""
    return {effect.run for effect in seen.begun.effects if isinstance(effect, SendCommand)}


@LAW
@given(st.data())
def test_the_saga_is_given_each_answer_once(data: st.DataObject) -> None:
    seen = world(data)
    seen.settle_down()
    told = seen.deployed.decoder.decode(seen.snapshot.state).told
    assert len(told) == len(set(told))


@LAW
@given(st.data())
def test_answers_of_another_incarnation_are_not_taken(data: st.DataObject) -> None:
    seen = world(data)
    for run in seen.snapshot.runs.values():
        for outcome in ReplyOutcome:
            answer = Answered(
                message_id="stray",
                run=run.key,
                incarnation="another",
                outcome=outcome,
                recording=run.reply or run.command or _NOTHING,
                attempt=run.sent,
            )
            result = transition(seen.deployed, seen.snapshot, answer, seen.now, "stray", POLICY)
            assert result.verdict in (Verdict.LATE, Verdict.UNEXPECTED, Verdict.HELD)
            assert result.snapshot is None or result.snapshot.runs == seen.snapshot.runs


_NOTHING = Recording("amends.done.v1", b"{}")
