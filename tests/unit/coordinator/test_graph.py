"""Pictures of a saga show its order, kinds, participants and compensations."""

import json
from datetime import timedelta

from tests.unit.coordinator.declaration.shop import (
    Approve,
    ChargeCard,
    ChargeWallet,
    Ping,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
)

from amends.coordinator.declaration import Publish, Saga, WaitFor, definition_of, step
from amends.coordinator.graph import as_dict, dot, mermaid


class Small(Saga):
    @step
    def tell(self) -> Publish: ...
    @tell.compensation
    def untell(self) -> None: ...
    @step
    def reserve(self) -> ReserveStock: ...
    @reserve.compensation
    def release(self) -> ReleaseStock: ...
    @step(pivot=True)
    def end(self) -> ChargeCard | ChargeWallet: ...
    @step(retriable=True, when=lambda s: True)
    def ship(self) -> ShipOrder: ...


def test_mermaid_draws_steps_edges_and_dashed_compensations() -> None:
    assert mermaid(definition_of(Small)) == (
        "flowchart TD\n"
        '    s0["tell (compensatable)"]\n'
        '    s1["reserve (compensatable)<br/>reserve-stock.v1 @ inventory"]\n'
        '    s2{{"end (pivot)<br/>charge-card.v1 @ payments<br/>charge-wallet.v1 @ payments"}}\n'
        '    s3(["ship (retriable)<br/>ship-order.v1 @ shipping<br/>when …"])\n'
        "    s0 --> s1\n"
        "    s1 --> s2\n"
        "    s2 --> s3\n"
        '    s0_undo["untell"]\n'
        "    s0 -.- s0_undo\n"
        "    style s0_undo stroke-dasharray: 4 4\n"
        '    s1_undo["release<br/>release-stock.v1 @ inventory"]\n'
        "    s1 -.- s1_undo\n"
        "    style s1_undo stroke-dasharray: 4 4\n"
    )


def test_dot_draws_steps_edges_and_dashed_compensations() -> None:
    assert dot(definition_of(Small)) == (
        'digraph "small.v1" {\n'
        "    rankdir=TB;\n"
        '    s0 [label="tell (compensatable)", shape=box];\n'
        '    s1 [label="reserve (compensatable)\\nreserve-stock.v1 @ inventory", shape=box];\n'
        '    s2 [label="end (pivot)\\ncharge-card.v1 @ payments\\ncharge-wallet.v1 @ payments", shape=hexagon];\n'
        '    s3 [label="ship (retriable)\\nship-order.v1 @ shipping\\nwhen …", shape=ellipse];\n'
        "    s0 -> s1;\n"
        "    s1 -> s2;\n"
        "    s2 -> s3;\n"
        '    s0_undo [label="untell", shape=box, style=dashed];\n'
        "    s0 -> s0_undo [style=dashed, dir=none, constraint=false];\n"
        '    s1_undo [label="release\\nrelease-stock.v1 @ inventory", shape=box, style=dashed];\n'
        "    s1 -> s1_undo [style=dashed, dir=none, constraint=false];\n"
        "}\n"
    )


def test_the_data_of_a_graph_is_plain_json() -> None:
    data = as_dict(definition_of(Small))
    assert json.loads(json.dumps(data)) == data
    assert (data["saga"], data["version"], data["deadline_s"]) == ("small", 1, None)
    assert data["shape"] == definition_of(Small).shape
    assert data["steps"][1] == {
        "name": "reserve",
        "kind": "compensatable",
        "after": ["tell"],
        "conditional": False,
        "timeout_s": None,
        "commands": [{"type": "inventory.reserve-stock.v1", "service": "inventory"}],
        "replies": ["stock-reserved.v1"],
        "rejections": ["out-of-stock.v1"],
        "awaits": [],
        "compensation": {"method": "release", "types": ["inventory.release-stock.v1"]},
    }
    assert data["steps"][3]["conditional"]
    assert data["steps"][3]["compensation"] is None


def test_edges_are_those_of_after() -> None:
    class Diamond(Saga, deadline=60):
        @step
        def start(self) -> None: ...
        @step(timeout=timedelta(minutes=1))
        def left(self) -> WaitFor[Approve]: ...
        @step(after=start, readonly=True)
        def right(self) -> Ping: ...
        @step(after=(left, right))
        def join(self) -> None: ...

    data = as_dict(definition_of(Diamond))
    assert data["deadline_s"] == 60.0
    assert [(one["name"], one["after"], one["timeout_s"], one["awaits"]) for one in data["steps"]] == [
        ("start", [], None, []),
        ("left", ["start"], 60.0, ["approve.v1"]),
        ("right", ["start"], None, []),
        ("join", ["left", "right"], None, []),
    ]
    edges = [line.strip() for line in mermaid(definition_of(Diamond)).splitlines() if "-->" in line]
    assert edges == ["s0 --> s1", "s0 --> s2", "s1 --> s3", "s2 --> s3"]
