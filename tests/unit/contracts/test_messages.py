"""Message classes: their names on the wire, what they promise, and what is refused."""

from __future__ import annotations

from typing import Any, Generic

import msgspec
import pytest
from typing_extensions import TypeVar

from amends.contracts import (
    Command,
    Compensation,
    ContractError,
    Event,
    Message,
    Rejection,
    Reply,
    Signal,
    UsageError,
)


class StockReserved(Reply):
    reservation_id: str


class StockPromised(Reply):
    until: str


class OutOfStock(Rejection):
    available: int = 0


class ReserveStock(Command[StockReserved, OutOfStock], service="inventory"):
    sku: str
    quantity: int = 1


class ReleaseStock(Compensation[ReserveStock]):
    reason: str = ""


class OrderPlaced(Event):
    order_id: str


# names on the wire


def test_a_tag_is_made_of_service_class_name_and_version() -> None:
    class HTTPCheck2(Command[None], service="monitor", version=3): ...

    class Named(Event, name="order-was-placed", service="orders"): ...

    class Approve(Signal): ...

    assert ReserveStock.__tag__ == "inventory.reserve-stock.v1"
    assert StockReserved.__tag__ == "stock-reserved.v1"
    assert HTTPCheck2.__tag__ == "monitor.http-check2.v3"
    assert Named.__tag__ == "orders.order-was-placed.v1"
    assert Approve.__tag__ == "approve.v1"
    assert HTTPCheck2.__version__ == 3


def test_a_compensation_goes_to_the_service_of_its_command() -> None:
    assert ReleaseStock.__service__ == "inventory"
    assert ReleaseStock.__tag__ == "inventory.release-stock.v1"
    assert ReleaseStock.__command__ is ReserveStock


def test_a_subclass_inherits_service_and_contract_and_has_a_name_of_its_own() -> None:
    class ReserveFrozen(ReserveStock):
        celsius: int

    assert ReserveFrozen.__tag__ == "inventory.reserve-frozen.v1"
    assert ReserveFrozen.__replies__ == (StockReserved,)
    assert ReserveFrozen.__rejections__ == (OutOfStock,)
    assert ReserveFrozen(sku="a", celsius=-18).quantity == 1


# what a command promises


def test_replies_and_rejections_are_read_off_the_class() -> None:
    class Two(Command[StockReserved | StockPromised], service="s"): ...

    class Nothing(Command[None], service="s"): ...

    class ByName(Command["StockReserved", "OutOfStock"], service="s"): ...

    class AnyRejection(Command[None, Rejection], service="s"): ...

    assert ReserveStock.__replies__ == (StockReserved,)
    assert ReserveStock.__rejections__ == (OutOfStock,)
    assert (Two.__replies__, Two.__rejections__) == ((StockReserved, StockPromised), ())
    assert (Nothing.__replies__, Nothing.__rejections__) == ((), ())
    assert (ByName.__replies__, ByName.__rejections__) == ((StockReserved,), (OutOfStock,))
    assert AnyRejection.__rejections__ == ()


def test_types_may_be_local_to_a_function() -> None:
    class Here(Reply): ...

    class Go(Command["Here"], service="s"): ...

    assert Go.__replies__ == (Here,)


def test_an_abstract_command_hands_its_contract_on() -> None:
    class Inventory(Command[StockReserved, OutOfStock], service="inventory", abstract=True):
        tenant: str

    class Reserve(Inventory):
        sku: str

    assert Inventory.__abstract__
    assert not Reserve.__abstract__
    assert (Reserve.__replies__, Reserve.__rejections__) == ((StockReserved,), (OutOfStock,))
    assert Reserve.__tag__ == "inventory.reserve.v1"


def test_an_abstract_command_may_leave_the_service_open() -> None:
    class Pinged(Command[None], abstract=True): ...

    class PingStock(Pinged, service="inventory"): ...

    assert PingStock.__service__ == "inventory"


R = TypeVar("R", bound="Reply | None")
X = TypeVar("X", bound=Rejection)
T = TypeVar("T")


def test_a_generic_base_is_filled_in_by_its_own_parameters() -> None:
    class Tenant(Command[R, OutOfStock], Generic[T, R], service="inventory"):
        tenant: T

    class Reserve(Tenant[int, StockReserved]):
        sku: str

    assert Tenant.__abstract__
    assert (Reserve.__replies__, Reserve.__rejections__) == ((StockReserved,), (OutOfStock,))
    assert msgspec.convert({"tenant": 3, "sku": "a"}, Reserve) == Reserve(tenant=3, sku="a")


def test_a_generic_base_may_be_filled_in_step_by_step() -> None:
    class Base(Command[R, X], Generic[X, R], service="inventory"): ...

    class Refusable(Base[OutOfStock, R], Generic[R]): ...

    class Reserve(Refusable[StockReserved | StockPromised]): ...

    assert Refusable.__abstract__
    assert (Reserve.__replies__, Reserve.__rejections__) == ((StockReserved, StockPromised), (OutOfStock,))


C = TypeVar("C", bound=Command[Any, Any])


def test_a_generic_compensation_is_filled_in() -> None:
    class Cancel(Compensation[C], Generic[C]):
        reason: str = ""

    class CancelStock(Cancel[ReserveStock]): ...

    assert CancelStock.__command__ is ReserveStock
    assert CancelStock.__tag__ == "inventory.cancel-stock.v1"


# what is refused


def refused(problem: str, remedy: str) -> Any:
    return pytest.raises(ContractError, check=lambda error: (error.problem, error.remedy) == (problem, remedy))


def test_class_keywords_are_checked() -> None:
    with refused("unknown class keyword 'servce'", "Did you mean service=?"):

        class A(Command[None], servce="s"): ...  # type: ignore[call-arg]

    with refused("unknown class keyword 'tag'", "Known: service=, version=, name=, abstract="):

        class B(Event, tag="x"): ...  # type: ignore[call-arg]

    for version in (0, -1, "2", True, 1.5):
        with refused(f"version={version!r} is no major version", "Write version=1, version=2, …"):

            class D(Event, version=version): ...  # type: ignore[arg-type]

    with refused("abstract='yes' is no bool", "Write abstract=True, or leave it out"):

        class E(Event, abstract="yes"): ...  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "größe", "-a", 3])
def test_names_that_brokers_do_not_take_are_refused(name: Any) -> None:
    remedy = 'Use letters, digits and . _ - in ASCII: {}="inventory"'
    with refused(f"name={name!r} cannot be a name on the wire", remedy.format("name")):

        class A(Event, name=name): ...

    with refused(f"service={name!r} cannot be a name on the wire", remedy.format("service")):

        class B(Command[None], service=name): ...


def test_a_class_name_that_brokers_do_not_take_needs_another_name() -> None:
    with refused(
        "its name on the wire would be 'größe.v1', and brokers only take letters, digits and . _ - in ASCII",
        'Write name="…" in the class line',
    ):

        class Größe(Event): ...

    class Maß(Event, name="measure"): ...

    assert Maß.__tag__ == "measure.v1"


def test_a_command_must_say_what_its_reply_is() -> None:
    with refused("a command must say what its reply is", 'Write class A(Command[YourReply], service="…")'):

        class A(Command, service="s"): ...  # type: ignore[type-arg]


def test_a_command_must_name_its_service() -> None:
    with refused("no service", 'Name the participant that does it: class A(Command[…], service="inventory")'):

        class A(Command[None]): ...


def test_replies_and_rejections_must_be_such() -> None:
    with refused("int is no Reply", "Write class int(Reply)"):

        class A(Command[int], service="s"): ...  # type: ignore[type-var]

    with refused("OrderPlaced is no Reply", "Write class OrderPlaced(Reply)"):

        class B(Command[StockReserved | OrderPlaced], service="s"): ...  # type: ignore[type-var]

    with refused("StockReserved is no Rejection", "Write class StockReserved(Rejection)"):

        class D(Command[None, StockReserved], service="s"): ...  # type: ignore[type-var]

    with refused("Reply is abstract", "Name the Reply classes that are meant"):

        class E(Command[Reply], service="s"): ...

    with refused("Any is no Reply", "Write class Any(Reply)"):

        class F(Command[Any], service="s"): ...

    with refused("'Nowhere' is not defined yet", "Define Nowhere above it"):

        class G(Command["Nowhere"], service="s"): ...  # type: ignore[name-defined]

    with refused("None stands among its replies", "Give it a Reply without fields instead, or Command[None] alone"):

        class H(Command[StockReserved | None], service="s"): ...


def test_a_base_left_open_is_refused() -> None:
    class Tenant(Command[R], Generic[R], service="inventory"): ...

    with refused("R is left open", "Say which reply it is: class A(Base[…])"):

        class A(Tenant): ...  # type: ignore[type-arg]


def test_a_compensation_must_undo_a_command() -> None:
    with refused("undoes nothing", "Write class A(Compensation[TheCommand])"):

        class A(Compensation): ...  # type: ignore[type-arg]

    with refused("OrderPlaced is no Command", "Write class OrderPlaced(Command)"):

        class B(Compensation[OrderPlaced]): ...  # type: ignore[type-var]

    with refused(
        "undoes ReserveStock of service 'inventory' at service 'other'",
        "Leave service= out: a compensation goes to the service of its command",
    ):

        class D(Compensation[ReserveStock], service="other"): ...


def test_a_contract_error_is_a_type_error_that_names_the_class() -> None:
    with pytest.raises(ContractError) as caught:

        class A(Command[None]): ...

    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, UsageError)
    assert caught.value.subject == "A"
    assert str(caught.value).startswith("A: no service. Name the participant")


# instances


def test_messages_are_frozen_keyword_only_and_equal_by_value() -> None:
    order = ReserveStock(sku="a")
    with pytest.raises(AttributeError):
        order.sku = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ReserveStock("a")  # type: ignore[call-arg, misc]
    assert order == ReserveStock(sku="a", quantity=1)
    assert hash(order) == hash(ReserveStock(sku="a"))


def test_messages_carry_their_tag_where_a_union_must_be_told_apart() -> None:
    union = StockReserved | StockPromised | OutOfStock
    for message in (StockReserved(reservation_id="r"), StockPromised(until="x"), OutOfStock(available=3)):
        assert msgspec.json.decode(msgspec.json.encode(message), type=union) == message


def test_a_message_without_tag_is_read_where_its_type_is_known() -> None:
    # a participant in another language need not write it: the envelope names the type
    assert msgspec.json.decode(b'{"reservation_id":"r"}', type=StockReserved) == StockReserved(reservation_id="r")


def test_unknown_fields_are_tolerated() -> None:
    data = b'{"reservation_id":"r","shelf":4}'
    assert msgspec.json.decode(data, type=StockReserved) == StockReserved(reservation_id="r")


def test_any_rejection_can_be_read_as_the_base() -> None:
    # what a command that names no rejection is refused with
    data = msgspec.json.encode(OutOfStock(available=3))
    assert msgspec.json.decode(data, type=Rejection) == Rejection()


def test_the_bases_are_abstract() -> None:
    assert all(base.__abstract__ for base in (Message, Command, Compensation, Event, Rejection, Reply, Signal))
