"""What an order saga makes of each message, through the real core and the real encoders, but with nothing around them.

The bare loop writes rows of these sizes; the benchmark of the core drives the same transitions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from amends.contracts import JSON, MSGPACK, Envelope, Kind, Reply, ReplyOutcome
from amends.contracts.names import EffectKey
from amends.coordinator.core import Policy, Transition, encode_state, start, transition
from amends.coordinator.core.inputs import Answered
from amends.coordinator.core.journal import encode_record
from amends.coordinator.core.snapshot import Recording, encode_snapshot
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.wire import outgoing, read_input
from amends.participants import rows as inbox
from amends.participants.answers import reply_to
from benchmarks.load import start_message
from benchmarks.order import CardCharged, NoCarrier, OrderShipped, PlaceOrder, StockReserved, order

DEFINITION: Final = definition_of(PlaceOrder)
POLICY: Final = Policy()
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)

_REPLIES: Final[tuple[Reply, ...]] = (
    StockReserved(reservation_id="blue-mug-1"),
    CardCharged(charge_id="charge-1990"),
    OrderShipped(tracking="1Z-12345"),
)
_REFUSAL: Final = NoCarrier(address="nowhere")


def answers(*, fails: bool) -> list[tuple[str, ReplyOutcome, Recording]]:
    """What the participant says, one after the other: of which step run, how it went, and the data."""
    done = [
        (f"{step}#0", ReplyOutcome.DONE, Recording(type(reply).__tag__, JSON.encode(reply)))
        for step, reply in zip(DEFINITION.steps, _REPLIES, strict=True)
    ]
    if not fails:
        return done
    nothing = Recording("amends.done.v1", b"{}")
    refused = ("ship#0", ReplyOutcome.REJECTED, Recording(type(_REFUSAL).__tag__, JSON.encode(_REFUSAL)))
    undone = [(run, ReplyOutcome.UNDONE, nothing) for run in ("charge#0", "reserve#0")]
    return [*done[:2], refused, *undone]


class Hop(Struct, frozen=True):
    """One transition, and the exchange with the participant that it leads to, as rows to write.

    `arrived` is the message that it handles. The last transition of a saga asks for nothing more.
    """

    arrived: bytes
    snapshot: bytes
    record: bytes
    command: bytes | None = None
    inbox_row: bytes | None = None


def hops(number: int) -> list[Hop]:
    """The whole life of an order as bytes."""
    fails = number % 10 == 9
    saga_id, letter = f"order-{number:06d}", start_message(number).envelope
    begun = start(DEFINITION, saga_id, encode_state(order(number)), NOW, _commit_id(number, 0), POLICY, cause=letter.id)
    found: list[Hop] = []
    step = begun
    for place, (run, outcome, data) in enumerate(answers(fails=fails), 1):
        assert step.snapshot is not None
        (message,) = outgoing(step.snapshot, step.effects, letter.id)
        asked = message.envelope
        row = _row(asked, outcome, data)
        found.append(_hop(letter, step, MSGPACK.encode(asked), MSGPACK.encode(row)))
        answer = inbox.Answered(outcome, inbox.Recording(data.type, data.data, data.content_type))
        reply = reply_to(asked, "shop", answer, NOW)
        assert reply is not None
        assert EffectKey.parse(asked.effect_key or "").run == run
        letter = reply.envelope
        step = transition(DEFINITION, step.snapshot, read_input(letter), NOW, _commit_id(number, place), POLICY)
    found.append(_hop(letter, step, None, None))
    return found


def _hop(letter: Envelope, step: Transition, command: bytes | None, row: bytes | None) -> Hop:
    assert step.snapshot is not None
    assert step.record is not None
    return Hop(MSGPACK.encode(letter), encode_snapshot(step.snapshot), encode_record(step.record), command, row)


def _commit_id(number: int, place: int) -> str:
    return f"0123456789abcdef-{number * 8 + place:x}"


_STATES: Final = {
    ReplyOutcome.DONE: inbox.State.DONE,
    ReplyOutcome.REJECTED: inbox.State.REJECTED,
    ReplyOutcome.UNDONE: inbox.State.UNDONE,
}


def _row(asked: Envelope, outcome: ReplyOutcome, data: Recording) -> inbox.Row:
    kept = inbox.Recording(data.type, data.data, data.content_type)
    return inbox.Row(
        state=_STATES[outcome],
        fence=1 if asked.kind is Kind.COMMAND else 2,
        updated_at=NOW,
        attempt=1,
        transactional=True,
        issued_at=asked.issued_at,
        lease_until=None,
        owner="0123456789abcdef0123456789abcdef",
        command=None
        if outcome is not ReplyOutcome.DONE
        else inbox.Recording(asked.type, asked.data, asked.content_type),
        reply=kept if outcome is ReplyOutcome.DONE else None,
        problem=kept if outcome is ReplyOutcome.REJECTED else None,
    )


def run_core(sagas: int) -> int:
    """Take that many orders through the core, and give the number of transitions."""
    paths = {
        fails: [
            Answered(message_id="m", run=run, incarnation="c-1", outcome=outcome, recording=data, attempt=1)
            for run, outcome, data in answers(fails=fails)
        ]
        for fails in (False, True)
    }
    states = {fails: encode_state(order(9 if fails else 0)) for fails in paths}
    transitions = 0
    for number in range(sagas):
        fails = number % 10 == 9
        moment = NOW + timedelta(microseconds=number)
        step = start(DEFINITION, f"order-{number:06d}", states[fails], moment, "c-1", POLICY, cause="start")
        transitions += 1
        for answer in paths[fails]:
            assert step.snapshot is not None
            step = transition(DEFINITION, step.snapshot, answer, moment, "c-2", POLICY)
            transitions += 1
        assert step.snapshot is not None
        assert step.snapshot.phase.ended
    return transitions
