"""The shape changes with what running instances rely on, and with nothing else."""

from __future__ import annotations

from typing import Any

from tests.unit.coordinator.declaration.shop import (
    Approve,
    ChargeCard,
    PaymentCaptured,
    Ping,
    RefundCard,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
)

from amends.contracts import Command, Compensation, Reply
from amends.coordinator.declaration import Saga, WaitFor, step


def shape(saga: type[Saga]) -> str:
    assert saga.__definition__ is not None
    return saga.__definition__.shape


def base() -> type[Saga]:
    class P(Saga):
        x: int

        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> ReleaseStock: ...
        @step
        def approved(self) -> WaitFor[Approve]: ...
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...

    return P


def test_the_shape_of_a_saga_is_fixed_for_ever() -> None:
    # snapshots in stores carry it: this value must not change with processes, Pythons or releases
    assert shape(base()) == "261ee2d4417e7c60"


def test_what_may_change_while_instances_run_is_not_in_it() -> None:
    class P(Saga, deadline=60):
        x: int
        more: str = ""

        def helper(self) -> None: ...
        @step(timeout=3, when=lambda s: s.x)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def ok(self, reply: StockReserved) -> None: ...
        @reserve.compensation
        def other_name(self) -> ReleaseStock: ...
        @step(timeout=9)
        def approved(self) -> WaitFor[Approve]: ...
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...

    assert shape(P) == shape(base())


def test_the_order_of_declaration_is_not_in_it_where_after_says_the_order() -> None:
    class P(Saga):
        x: int

        @step(pivot=True, after="approved")
        def charge(self) -> ChargeCard: ...
        @step(after="reserve")
        def approved(self) -> WaitFor[Approve]: ...
        @step(after=())
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> ReleaseStock: ...

    assert shape(P) == shape(base())


class NewStockReserved(Reply, name="stock-reserved", version=2):
    pass


class NewReserveStock(Command[NewStockReserved], service="inventory", name="reserve-stock"):
    pass


class NewReleaseStock(Compensation[ReserveStock], version=2):
    pass


def test_every_part_of_the_structure_is_in_it() -> None:
    class Renamed(Saga, name="q"):
        @step(readonly=True)
        def one(self) -> Ping: ...

    class Newer(Saga, name="p", version=2):
        @step(readonly=True)
        def one(self) -> Ping: ...

    class Original(Saga, name="p"):
        @step(readonly=True)
        def one(self) -> Ping: ...

    class OtherStep(Saga, name="p"):
        @step(readonly=True)
        def two(self) -> Ping: ...

    class OtherKind(Saga, name="p"):
        @step(pivot=True)
        def one(self) -> Ping: ...

    class OtherCommand(Saga, name="p"):
        @step(readonly=True)
        def one(self) -> ShipOrder: ...

    class OtherReply(Saga, name="p"):
        @step(readonly=True)
        def one(self) -> ReserveStock: ...

    class OtherReply2(Saga, name="p"):
        @step(readonly=True)
        def one(self) -> NewReserveStock: ...

    class Waits(Saga, name="p"):
        @step
        def one(self) -> WaitFor[Approve]: ...

    class WaitsForOther(Saga, name="p"):
        @step
        def one(self) -> WaitFor[PaymentCaptured]: ...

    def undone(by: Any, after: Any) -> type[Saga]:
        class Undone(Saga, name="p"):
            @step
            def one(self) -> ReserveStock: ...
            @one.compensation
            def undo(self) -> by: ...
            @step(after=after)
            def two(self) -> None: ...

        return Undone

    variants = [Renamed, Newer, Original, OtherStep, OtherKind, OtherCommand, OtherReply, OtherReply2, Waits]
    variants += [WaitsForOther, undone(ReleaseStock, ()), undone(NewReleaseStock, ()), undone(ReleaseStock, "one")]
    shapes = [shape(saga) for saga in variants]
    assert len(set(shapes)) == len(shapes)
    assert NewReserveStock.__tag__ == ReserveStock.__tag__
    assert RefundCard.__tag__ == "payments.refund-card.v1"
