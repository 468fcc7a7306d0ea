"""Every mistake in a saga class is told when the class is made: what, where, and what to write instead."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pytest
from tests.unit.coordinator.declaration.shop import (
    Approve,
    CardCharged,
    ChargeCard,
    ChargeWallet,
    OrderPlaced,
    OutOfStock,
    PaymentCaptured,
    Ping,
    RefundCard,
    ReleaseStock,
    ReserveStock,
    ShipOrder,
    StockReserved,
    WalletCharged,
)

from amends.contracts import Command, Compensation, Event, Failure, Rejection, Reply
from amends.coordinator.declaration import (
    Compensate,
    Decision,
    Publish,
    Saga,
    SagaDefinitionError,
    Skip,
    Sleep,
    WaitFor,
    step,
)
from amends.coordinator.retry import Retry

if TYPE_CHECKING:
    from tests.unit.coordinator.declaration.shop import ShipOrder as HiddenCommand
    from tests.unit.coordinator.declaration.shop import Shipped as Hidden

# ruff: noqa: E704, F811, F821, UP037 - the classes are wrong on purpose, and short

Row = tuple[str | None, str, str]
CASES: list[Any] = []


def wrong(*problems: Row) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A function that declares a wrong class, with the problems it has: step, what is wrong, what to do."""

    def add(declare: Callable[[], None]) -> Callable[[], None]:
        CASES.append(pytest.param(declare, problems, id=declare.__name__))
        return declare

    return add


@pytest.mark.parametrize(("declare", "expected"), CASES)
def test_all_problems_of_a_class_are_told_with_their_remedies(
    declare: Callable[[], None], expected: tuple[Row, ...]
) -> None:
    with pytest.raises(SagaDefinitionError) as caught:
        declare()
    assert tuple((p.step, p.problem, p.remedy) for p in caught.value.problems) == expected


# the step method

CAN = "Return a Command, WaitFor[…], Sleep, Publish, Skip or None"


@wrong(
    (
        "reserve",
        "is async; steps only say what is to be done, participants do it",
        "Write def reserve(self) -> SomeCommand, and do the I/O in that participant's action",
    )
)
def async_step() -> None:
    class P(Saga):
        @step(readonly=True)
        async def reserve(self) -> ReserveStock: ...


@wrong(("reserve", "is a generator", "Return one command; make two steps of two commands"))
def generator_step() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> Iterator[ReserveStock]:
            yield ReserveStock(sku="a")


@wrong(("reserve", "does not say what it returns", "Annotate it: def reserve(self) -> ReserveStock"))
def step_without_annotation() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self): ...


@wrong(("reserve", "returns str, which is nothing a step can do", CAN))
def step_that_returns_a_string() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> str: ...


@wrong(("reserve", "returns Any, which is nothing a step can do", CAN))
def step_that_returns_anything() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> Any: ...


@wrong(
    (
        "reserve",
        "returns OrderPlaced, which is an event",
        "Annotate it -> Publish, and return Publish(OrderPlaced(…))",
    )
)
def step_that_returns_an_event() -> None:
    class P(Saga):
        @step
        def reserve(self) -> OrderPlaced: ...


@wrong(
    (
        "reserve",
        "returns ReleaseStock, which undoes something",
        "Return it from the compensation of the step that it undoes",
    )
)
def step_that_returns_a_compensation() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReleaseStock: ...


@wrong(
    (
        "reserve",
        "returns Compensate, which is a decision",
        "Decide in a handler: on_rejection, on_failure or on_timeout",
    )
)
def step_that_decides() -> None:
    class P(Saga):
        @step
        def reserve(self) -> Compensate: ...


@wrong(("hotel", "returns Child, which is a saga; child sagas are not known to this version", CAN))
def step_that_returns_a_saga() -> None:
    class Child(Saga):
        city: str

    class P(Saga):
        @step
        def hotel(self) -> Child: ...


@wrong(
    (
        "reserve",
        "returns Command[StockReserved, Rejection], which names no command for certain",
        "Name the command classes, joined by |",
    )
)
def step_that_returns_some_command() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> Command[StockReserved, Rejection]: ...


@wrong(
    ("reserve", "returns Stocky, which names no command for certain", "Name the command classes, joined by |"),
)
def step_that_returns_an_abstract_command() -> None:
    class Stocky(Command[StockReserved], service="inventory", abstract=True):
        sku: str

    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> Stocky: ...


@wrong(("paid", "does not say what it waits for", "Annotate it: def paid(self) -> WaitFor[OrderPaid]"))
def wait_for_nothing() -> None:
    class P(Saga):
        @step
        def paid(self) -> WaitFor: ...


@wrong(("paid", "waits for StockReserved, which is no event or signal", "Name Event or Signal classes"))
def wait_for_a_reply() -> None:
    class P(Saga):
        @step
        def paid(self) -> WaitFor[StockReserved]: ...


@wrong(
    (
        "pick",
        "takes line beside the state; steps over items are not known to this version",
        "Read what it needs from the state: def pick(self)",
    )
)
def step_with_an_item() -> None:
    class P(Saga):
        @step(readonly=True)
        def pick(self, line: str) -> ReserveStock: ...


@wrong(
    (
        "pick",
        "takes times beside the state; steps over items are not known to this version",
        "Read what it needs from the state: def pick(self)",
    )
)
def step_with_an_optional_parameter() -> None:
    class P(Saga):
        @step(readonly=True)
        def pick(self, times: int = 1) -> ReserveStock: ...


@wrong(
    (
        "pick",
        "takes line beside the state; steps over items are not known to this version",
        "Read what it needs from the state: def pick(self)",
    )
)
def step_with_a_keyword_parameter() -> None:
    class P(Saga):
        @step(readonly=True)
        def pick(self, *, line: str) -> ReserveStock: ...


@wrong(("pick", "does not take the state", "Write def pick(self)"))
def step_without_self() -> None:
    class P(Saga):
        @step(readonly=True)
        def pick() -> ReserveStock: ...


@wrong(("one", "is no plain method but property", "Put @step on top, and on a def"))
def step_on_a_property() -> None:
    class P(Saga):
        one = step(property(lambda self: None))


@wrong(("one", "is no plain method but classmethod", "Put @step on top, and on a def"))
def step_on_a_classmethod() -> None:
    class P(Saga):
        @step
        @classmethod
        def one(cls) -> None: ...


@wrong(
    (
        "ship",
        "names 'HiddenCommand' in its annotation, which does not exist when the class is made",
        "Import HiddenCommand at run time (not under TYPE_CHECKING), or define it above P",
    )
)
def command_imported_for_checkers_only() -> None:
    class P(Saga):
        @step(readonly=True)
        def ship(self) -> HiddenCommand: ...


@wrong(
    (
        "ship",
        "has an annotation that cannot be read: TypeError: unsupported operand type(s) for |: 'int' and 'str'",
        "Name classes, joined by |",
    )
)
def annotation_that_is_none() -> None:
    class P(Saga):
        @step(readonly=True)
        def ship(self) -> 3 | "x": ...


# options


@wrong(("one", "has an unknown option pivott=", "Did you mean pivot=?"))
def misspelt_option() -> None:
    class P(Saga):
        @step(pivott=True, readonly=True)
        def one(self) -> Ping: ...


@wrong(
    (
        "one",
        "has an unknown option colour=",
        "Known: pivot=, retriable=, readonly=, timeout=, retry=, after=, when=",
    )
)
def unknown_option() -> None:
    class P(Saga):
        @step(colour="red", readonly=True)
        def one(self) -> Ping: ...


@wrong(
    (
        "one",
        "has for_each=, which this version does not know",
        "Write one step for each item, or start a saga for each",
    ),
    (
        "one",
        "has max_parallel=, which this version does not know",
        "Write one step for each item, or start a saga for each",
    ),
)
def option_of_a_later_version() -> None:
    class P(Saga):
        @step(for_each=lambda s: [], max_parallel=3, readonly=True)
        def one(self) -> Ping: ...


@wrong(
    ("one", "has readonly='yes', which is neither True nor False", "Write True, or leave it out"),
    ("one", "has timeout='3s', which is no duration", "Write timeout=timedelta(seconds=30), or seconds"),
    ("one", "has retry=5, which is no Retry", "Write retry=Retry(attempts=5)"),
    (
        "one",
        "has after=3, which is no step and no sequence of steps",
        "Write after=reserve, after=(reserve, charge) or after=()",
    ),
    ("one", "has when=True, which is no function", "Write when=lambda saga: saga.wanted"),
)
def options_of_the_wrong_type() -> None:
    class P(Saga):
        @step(readonly="yes", timeout="3s", retry=5, after=3, when=True)
        def one(self) -> Sleep: ...


@wrong(
    ("one", "has timeout=0, which is over before it begins", "Write timeout=timedelta(seconds=30), or seconds"),
    ("two", "has timeout=-1, which is no duration", "Write timeout=timedelta(seconds=30), or seconds"),
    ("three", "has timeout=True, which is no duration", "Write timeout=timedelta(seconds=30), or seconds"),
    ("four", "has timeout=inf, which is no duration", "Write timeout=timedelta(seconds=30), or seconds"),
)
def timeouts_that_are_no_time() -> None:
    class P(Saga):
        @step(timeout=0, readonly=True)
        def one(self) -> Ping: ...
        @step(timeout=-1, readonly=True)
        def two(self) -> Ping: ...
        @step(timeout=True, readonly=True)
        def three(self) -> Ping: ...
        @step(timeout=float("inf"), readonly=True)
        def four(self) -> Ping: ...


@wrong(
    ("one", "has timeout=, but waits for no answer, event or signal", "Remove timeout="),
    ("one", "has retry=, but asks no participant, so nothing is repeated", "Remove retry="),
    ("two", "has timeout=, but waits for no answer, event or signal", "Remove timeout="),
    ("three", "has retry=, but asks no participant, so nothing is repeated", "Remove retry="),
)
def options_that_do_nothing() -> None:
    class P(Saga):
        @step(timeout=3, retry=Retry())
        def one(self) -> None: ...
        @step(timeout=timedelta(seconds=3))
        def two(self) -> Sleep: ...
        @step(timeout=3, retry=Retry())
        def three(self) -> WaitFor[Approve]: ...


@wrong(("one", "is pivot and readonly at once", "Choose one"))
def two_kinds() -> None:
    class P(Saga):
        @step(pivot=True, readonly=True)
        def one(self) -> Ping: ...


@wrong(("one", "has when= and the method wanted", "Keep one"))
def two_conditions() -> None:
    class P(Saga):
        @step(readonly=True, when=lambda s: True)
        def one(self) -> Ping: ...
        @one.when
        def wanted(self) -> bool: ...


@wrong(("one", "has a when= that cannot be called with the state", "Write when=lambda saga: …"))
def condition_without_the_state() -> None:
    class P(Saga):
        @step(readonly=True, when=lambda: True)
        def one(self) -> Ping: ...


# order


@wrong(("two", "waits for 'onee', which is no step", "Did you mean 'one'?"))
def unknown_name_in_after() -> None:
    class P(Saga):
        @step(readonly=True)
        def one(self) -> Ping: ...
        @step(readonly=True, after="onee")
        def two(self) -> Ping: ...


@wrong(("two", "waits for 'xyz', which is no step", "Steps are one, two"))
def quite_unknown_name_in_after() -> None:
    class P(Saga):
        @step(readonly=True)
        def one(self) -> Ping: ...
        @step(readonly=True, after=["one", "xyz"])
        def two(self) -> Ping: ...


@wrong(("one", "waits for itself", "Take it out of its own after="))
def step_after_itself() -> None:
    class P(Saga):
        @step(readonly=True, after="one")
        def one(self) -> Ping: ...


@wrong(
    (
        "a",
        "waits for itself: a -> c -> b -> a",
        "Take one of these out of after= (a step without after= waits for the one above it)",
    )
)
def cycle() -> None:
    class P(Saga):
        @step(readonly=True, after=())
        def start(self) -> Ping: ...
        @step(readonly=True, after=("start", "c"))
        def a(self) -> Ping: ...
        @step(readonly=True)
        def b(self) -> Ping: ...
        @step(readonly=True)
        def c(self) -> Ping: ...


@wrong(("two", "waits for <step {other}> of another saga", "Use the steps of P, or their names"))
def step_of_another_saga_in_after() -> None:
    class Other(Saga):
        @step(readonly=True)
        def one(self) -> Ping: ...

    with _shown(Other.one):

        class P(Saga):
            @step(readonly=True)
            def one(self) -> Ping: ...
            @step(readonly=True, after=Other.one)
            def two(self) -> Ping: ...


@contextlib.contextmanager
def _shown(other: Any) -> Iterator[None]:
    """Replace the long name of a local step by a short one."""
    try:
        yield
    except SagaDefinitionError as error:
        problems = [
            type(p)(p.step, p.problem.replace(other.fn.__qualname__, "{other}"), p.remedy) for p in error.problems
        ]
        raise SagaDefinitionError(error.saga, problems) from None


# undo is never a surprise


@wrong(
    (
        "reserve",
        "asks for ReserveStock and nothing undoes it",
        "Add @reserve.compensation returning a Compensation[ReserveStock], or mark it @step(readonly=True) if it "
        "changes nothing, @step(pivot=True) if it is the go/no-go step, or after that @step(retriable=True)",
    )
)
def step_without_compensation() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock | Skip: ...


@wrong(("two", "is a second pivot beside one", "Keep one: the step after which the saga only goes forward"))
def two_pivots() -> None:
    class P(Saga):
        @step(pivot=True)
        def one(self) -> ChargeCard: ...
        @step(pivot=True)
        def two(self) -> ChargeWallet: ...


@wrong(
    (
        "ship",
        "comes after the pivot charge, but may give up",
        "Mark it @step(retriable=True), or @step(readonly=True) if it changes nothing",
    )
)
def step_after_the_pivot_that_may_give_up() -> None:
    class P(Saga):
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...
        @step
        def nap(self) -> Sleep: ...
        @step
        def ship(self) -> ShipOrder: ...


@wrong(
    (
        "reserve",
        "comes after the pivot charge, so it is never undone, but has a compensation",
        "Remove release and mark it @step(retriable=True), or move it before charge",
    )
)
def compensation_after_the_pivot() -> None:
    class P(Saga):
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def release(self) -> ReleaseStock: ...


@wrong(
    (
        "reserve",
        "runs beside the pivot charge: refused once charge is done, it would leave a saga that can go neither forward "
        "nor back",
        "Let the pivot wait for it: on charge, @step(pivot=True, after=[ping, reserve])",
    )
)
def compensatable_step_beside_the_pivot() -> None:
    class P(Saga):
        @step(readonly=True)
        def ping(self) -> Ping: ...
        @step(after=ping)
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def release(self) -> ReleaseStock: ...
        @step(pivot=True, after=ping)
        def charge(self) -> ChargeCard: ...


@wrong(
    (
        "ship",
        "is retriable, but no step is the pivot: until there is one, the saga may still go back",
        "Mark the go/no-go step before it @step(pivot=True), or give it a compensation instead",
    )
)
def retriable_without_a_pivot() -> None:
    class P(Saga):
        @step(retriable=True)
        def ship(self) -> ShipOrder: ...


@wrong(
    (
        "ship",
        "is retriable, but does not come after the pivot charge",
        "Write @step(retriable=True, after=charge), or give it a compensation instead",
    ),
)
def retriable_before_and_beside_the_pivot() -> None:
    class P(Saga):
        @step(retriable=True)
        def ship(self) -> ShipOrder: ...
        @step(pivot=True)
        def charge(self) -> ChargeCard: ...


@wrong(
    ("one", "is readonly, so there is nothing to undo, but has a compensation", "Remove undo_one, or readonly=True"),
    ("two", "is pivot, so it is never undone, but has a compensation", "Remove undo_two, or pivot=True"),
    ("three", "is retriable, so it is never undone, but has a compensation", "Remove undo_three, or retriable=True"),
)
def compensations_that_are_never_called() -> None:
    class P(Saga):
        @step(readonly=True)
        def one(self) -> ReserveStock: ...
        @one.compensation
        def undo_one(self) -> ReleaseStock: ...
        @step(pivot=True)
        def two(self) -> ReserveStock: ...
        @two.compensation
        def undo_two(self) -> ReleaseStock: ...
        @step(retriable=True)
        def three(self) -> ReserveStock: ...
        @three.compensation
        def undo_three(self) -> ReleaseStock: ...


# compensations


@wrong(
    ("reserve", "undo undoes ChargeCard, but the step asks for ReserveStock", "Return a Compensation[ReserveStock]"),
)
def compensation_of_another_command() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> RefundCard: ...


@wrong(("local", "undo undoes ChargeCard, but the step asks for nothing", "Return Publish or None"))
def compensation_of_a_command_that_was_not_asked() -> None:
    class P(Saga):
        @step
        def local(self) -> None: ...
        @local.compensation
        def undo(self) -> RefundCard: ...


@wrong(
    ("reserve", "undo returns ReserveStock, which undoes nothing", "Return a Compensation[ReserveStock]"),
)
def compensation_that_returns_the_command() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> ReserveStock: ...


@wrong(
    (
        "pay",
        "undo does not undo ChargeWallet",
        "Return Compensation[ChargeCard] | Compensation[ChargeWallet]",
    )
)
def compensation_that_misses_a_command() -> None:
    class P(Saga):
        @step
        def pay(self) -> ChargeCard | ChargeWallet: ...
        @pay.compensation
        def undo(self) -> RefundCard | None: ...


@wrong(("reserve", "undo does not say what it returns", "Annotate it: def undo(self) -> ReleaseStock"))
def compensation_without_annotation() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self): ...


@wrong(
    (
        "reserve",
        "undo names 'Later' in its annotation, which does not exist when the class is made",
        "Import Later at run time (not under TYPE_CHECKING), or define it above P",
    )
)
def compensation_defined_later() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> Later: ...

    class Later(Compensation[ReserveStock]): ...


# handlers


@wrong(
    (
        "reserve",
        "ok takes CardCharged, but ReserveStock is answered with StockReserved",
        "Write def ok(self, reply: StockReserved)",
    )
)
def handler_of_another_reply() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def ok(self, reply: CardCharged) -> None: ...


@wrong(
    (
        "pay",
        "ok takes CardCharged, but ChargeWallet is answered with WalletCharged",
        "Write def ok(self, reply: CardCharged | WalletCharged)",
    )
)
def handler_that_misses_a_reply() -> None:
    class P(Saga):
        @step(readonly=True)
        def pay(self) -> ChargeCard | ChargeWallet: ...
        @pay.on_success
        def ok(self, reply: CardCharged) -> None: ...


@wrong(("ping", "ok takes StockReserved, but Ping is answered with None", "Write def ok(self, reply: None)"))
def handler_of_a_reply_that_is_none() -> None:
    class P(Saga):
        @step(readonly=True)
        def ping(self) -> Ping: ...
        @ping.on_success
        def ok(self, reply: StockReserved) -> None: ...


@wrong(
    (
        "paid",
        "ok takes OrderPlaced, but what it waits for is PaymentCaptured",
        "Write def ok(self, event: PaymentCaptured | Approve)",
    )
)
def handler_of_another_event() -> None:
    class P(Saga):
        @step
        def paid(self) -> WaitFor[PaymentCaptured] | WaitFor[Approve]: ...
        @paid.on_success
        def ok(self, event: OrderPlaced) -> None: ...


@wrong(
    (
        "charge",
        "no takes OutOfStock, but ChargeCard names no rejection, so it may be any Rejection",
        "Write def no(self, no: Rejection)",
    )
)
def handler_of_a_rejection_that_was_not_named() -> None:
    class P(Saga):
        @step(readonly=True)
        def charge(self) -> ChargeCard: ...
        @charge.on_rejection
        def no(self, no: OutOfStock) -> Decision: ...


@wrong(
    (
        "reserve",
        "no takes StockReserved, but ReserveStock is rejected with OutOfStock",
        "Write def no(self, no: OutOfStock)",
    ),
    ("reserve", "broke takes OutOfStock, but a failure is a Failure", "Write def broke(self, no: Failure)"),
)
def handlers_of_other_things() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_rejection
        def no(self, no: StockReserved) -> Decision: ...
        @reserve.on_failure
        def broke(self, no: OutOfStock) -> Decision: ...


@wrong(
    ("reserve", "ok takes no argument after self, on_success gives 1", "Write def ok(self, reply)"),
    ("reserve", "no takes 2 arguments after self, on_rejection gives 1", "Write def no(self, rejection)"),
    ("reserve", "late takes 1 argument after self, on_timeout gives none", "Write def late(self)"),
    ("reserve", "wanted takes no argument after self, when gives none", "Write def wanted(self)"),
    ("reserve", "undo takes 1 argument after self, compensation gives none", "Write def undo(self)"),
)
def handlers_with_the_wrong_number_of_parameters() -> None:
    class P(Saga):
        @step(timeout=3)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def ok(self) -> None: ...
        @reserve.on_rejection
        def no(self, one: OutOfStock, two: int) -> None: ...
        @reserve.on_timeout
        def late(self, failure: Failure) -> None: ...
        @reserve.when
        def wanted(self, *, really: bool) -> bool: ...
        @reserve.compensation
        def undo(self, reply: StockReserved) -> ReleaseStock: ...


@wrong(
    (
        "reserve",
        "ok is async",
        "Write a plain def ok: it only changes the state, or decides",
    )
)
def async_handler() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        async def ok(self, reply: StockReserved) -> None: ...


@wrong(
    (
        "reserve",
        "its on_success is no plain method but staticmethod",
        "Put @reserve.on_success on a def that takes self",
    )
)
def static_handler() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        @staticmethod
        def ok(reply: StockReserved) -> None: ...


@wrong(
    (
        "reserve",
        "on_success is given 3, which is no method",
        "Put @reserve.on_success on a def",
    )
)
def handler_that_is_no_function() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...

        reserve.on_success(3)


@wrong(
    ("local", "it asks nobody and waits for nothing, so ok is never called", "Remove ok"),
    ("local", "it asks nobody, so no is never called", "Remove no"),
    ("local", "it asks nobody, so broke is never called", "Remove broke"),
    ("local", "it has no timeout=, so late is never called", "Remove late"),
    ("paid", "it asks nobody, so no_pay is never called", "Remove no_pay"),
)
def handlers_that_are_never_called() -> None:
    class P(Saga):
        @step
        def local(self) -> Publish | Sleep | None: ...
        @local.on_success
        def ok(self, reply: StockReserved) -> None: ...
        @local.on_rejection
        def no(self, no: OutOfStock) -> Decision: ...
        @local.on_failure
        def broke(self, failure: Failure) -> Decision: ...
        @local.on_timeout
        def late(self) -> Decision: ...
        @step
        def paid(self) -> WaitFor[PaymentCaptured]: ...
        @paid.on_rejection
        def no_pay(self, no: OutOfStock) -> Decision: ...


@wrong(("reserve", "has two methods for on_success: one and two", "Keep one"))
def two_handlers() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def one(self, reply: StockReserved) -> None: ...
        @reserve.on_success
        def two(self, reply: StockReserved) -> None: ...


@wrong((None, "ok is the on_success of <step {other}>, which is no step of this saga", "Use the steps of P"))
def handler_of_another_saga() -> None:
    class Other(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...

    with _shown(Other.reserve):

        class P(Saga):
            @step(readonly=True)
            def reserve(self) -> ReserveStock: ...
            @Other.reserve.on_success
            def ok(self, reply: StockReserved) -> None: ...


# names


@wrong(
    (
        "reserve",
        "is defined twice: the later one would replace the step",
        "Give it a name of its own, such as reserve_done (this is not @property.setter)",
    )
)
def handler_that_is_named_like_its_step() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def reserve(self, reply: StockReserved) -> None: ...
        @reserve.compensation
        def undo(self) -> ReleaseStock: ...


@wrong(
    (
        "reserve",
        "broke is defined twice: the later one would replace this on_failure",
        "Give it a name of its own",
    )
)
def two_handlers_of_one_name() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_failure
        def broke(self, failure: Failure) -> Decision: ...
        @step(readonly=True)
        def charge(self) -> ChargeCard: ...
        @charge.on_failure
        def broke(self, failure: Failure) -> Decision: ...


@wrong(("reserve", "is both a field of the state and a step", "Rename one of them"))
def step_that_is_named_like_a_field() -> None:
    class P(Saga):
        reserve: str

        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...


@wrong((None, "done is both a field of the state and a method", "Rename one of them"))
def handler_that_is_named_like_a_field() -> None:
    class P(Saga):
        done: bool = False

        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...
        @reserve.on_success
        def done(self, reply: StockReserved) -> None: ...


@wrong((None, "the name 'run' is taken: self.run is what a step may know of its run", "Rename it"))
def field_called_run() -> None:
    class P(Saga):
        run: str


@wrong((None, "the name 'run' is taken: self.run is what a step may know of its run", "Rename it"))
def step_called_run() -> None:
    class P(Saga):
        @step(readonly=True)
        def run(self) -> Ping: ...


@wrong(("again", "is another name for step reserve", "Define it with @step def"))
def step_with_two_names() -> None:
    class P(Saga):
        @step(readonly=True)
        def reserve(self) -> ReserveStock: ...

        again = reserve


@wrong(("one", "hides a step of a base class with something that is no step", "Decorate it with @step, or rename it"))
def plain_method_over_a_step() -> None:
    class A(Saga):
        @step(readonly=True)
        def one(self) -> Ping: ...

    class B(A):
        def one(self) -> Ping: ...


# messages


@wrong(
    (
        "two",
        "speaks of two_pings.<locals>.Ring, which has the tag 'bells.ring.v1' of "
        "tests.unit.coordinator.declaration.test_problems.two_pings.<locals>.Ring",
        "Give one of them another name= or version=",
    )
)
def two_pings() -> None:
    def ring() -> Any:
        class Ring(Command[None], service="bells"): ...

        Ring.__qualname__ = "two_pings.<locals>.Ring"
        return Ring

    First, Second = ring(), ring()

    class P(Saga):
        @step(readonly=True)
        def one(self) -> First: ...
        @step(readonly=True)
        def two(self) -> Second: ...


# the class


@wrong((None, "unknown class keyword 'verison'", "Did you mean version=?"))
def misspelt_class_keyword() -> None:
    class P(Saga, verison=2): ...


@wrong((None, "unknown class keyword 'frozen'", "Known: version=, name=, deadline=, keys=, abstract="))
def unknown_class_keyword() -> None:
    class P(Saga, frozen=True): ...


@wrong(
    (
        None,
        "name='place order' cannot be a name on the wire",
        'Use letters, digits and . _ - in ASCII: name="place-order"',
    ),
    (None, "version=0 is no version", "Write version=1, version=2, …"),
    (None, "abstract='no' is no bool", "Write abstract=True, or leave it out"),
    (None, "deadline='1h' is no duration", "Write deadline=timedelta(hours=1), or seconds"),
)
def class_keywords_of_the_wrong_type() -> None:
    class P(Saga, name="place order", version=0, deadline="1h", abstract="no"): ...


@wrong(
    (None, "keys: there is no field 'ordr_id'", "Did you mean 'order_id'?"),
    (None, "keys: there is no field 'zzz'", "Name fields of the class; it has order_id, lines, paid"),
    (
        None,
        "keys: 'lines' does not hold one value to be found by",
        "Name fields that hold one text, number, id, date or enum; add a field for it where there is none",
    ),
)
def keys_that_nothing_can_be_found_by() -> None:
    class P(Saga, keys=("order_id", "ordr_id", "zzz", "lines", "paid")):
        order_id: str
        lines: list[str]
        paid: bool | None = None


@wrong((None, "keys='order_id' are no names of fields", "Write keys=('order_id',)"))
def a_key_that_is_not_in_a_tuple() -> None:
    class P(Saga, keys="order_id"):
        order_id: str


@wrong((None, "keys=(1,) are no names of fields", 'Write keys=("order_id", "customer_id")'))
def keys_that_are_no_names() -> None:
    class P(Saga, keys=(1,)): ...


@wrong(
    (
        None,
        "the class name 'Größe' cannot be a name on the wire",
        'Use letters, digits and . _ - in ASCII: name="place-order"',
    )
)
def class_name_that_brokers_do_not_take() -> None:
    class Größe(Saga): ...


class Connection:
    pass


ENCODABLE = "Use a Struct, a dataclass, datetime, Decimal, UUID, Enum, list, dict, …, or keep an id of it in the state"


@wrong(
    (None, "its state cannot be stored: nothing can encode main (Connection)", ENCODABLE),
    (None, "its state cannot be stored: nothing can encode others[…][…] (Connection)", ENCODABLE),
)
def state_that_cannot_be_stored() -> None:
    class P(Saga):
        main: Connection | None
        others: dict[str, list[Connection]]
        name: str


@wrong(
    (
        None,
        "what Notifies declares (email) is not part of the state",
        "Make it a saga: class Notifies(Saga, abstract=True)",
    )
)
def mixin_with_fields() -> None:
    class Notifies:
        email: str

    class P(Notifies, Saga):
        x: int


@wrong(
    (
        None,
        "Notifies gives it a __dict__, so that a misspelt self.field would be kept nowhere",
        "Write class Notifies(Saga, abstract=True), or add __slots__ = () to it",
    )
)
def mixin_with_a_dict() -> None:
    class Notifies:
        def text(self) -> str: ...

    class P(Notifies, Saga):
        x: int


@wrong(
    (
        None,
        "cannot join the states of Left and Right",
        "Only one base may have state: let one inherit from the other, or make one a field",
    )
)
def two_bases_with_state() -> None:
    class Left(Saga, abstract=True):
        a: int

    class Right(Saga, abstract=True):
        b: int

    class P(Left, Right): ...


# together


@wrong(
    (None, "unknown class keyword 'nmae'", "Did you mean name=?"),
    ("reserve", "is both a field of the state and a step", "Rename one of them"),
    (
        "reserve",
        "asks for ReserveStock and nothing undoes it",
        "Add @reserve.compensation returning a Compensation[ReserveStock], or mark it @step(readonly=True) if it "
        "changes nothing, @step(pivot=True) if it is the go/no-go step, or after that @step(retriable=True)",
    ),
    ("charge", "does not say what it returns", "Annotate it: def charge(self) -> ReserveStock"),
    (
        "ship",
        "is async; steps only say what is to be done, participants do it",
        "Write def ship(self) -> SomeCommand, and do the I/O in that participant's action",
    ),
)
def many_problems_at_once() -> None:
    class P(Saga, nmae="p"):
        reserve: str

        @step
        def reserve(self) -> ReserveStock: ...
        @step(pivot=True)
        def charge(self): ...
        @step(retriable=True)
        async def ship(self) -> ShipOrder: ...


def test_the_message_names_class_step_file_line_and_remedy() -> None:
    with pytest.raises(SagaDefinitionError) as caught:

        class P(Saga):
            @step(pivot=True)
            def charge(self): ...
            @step(retriable=True)
            def ship(self) -> str: ...

    first, second = caught.value.problems
    assert first.line is not None
    assert second.line == first.line + 2
    assert str(caught.value) == (
        "P cannot be a saga (2 problems)\n"
        f"  P.charge: does not say what it returns  [test_problems.py:{first.line}]\n"
        "      -> Annotate it: def charge(self) -> ReserveStock\n"
        f"  P.ship: returns str, which is nothing a step can do  [test_problems.py:{second.line}]\n"
        f"      -> {CAN}"
    )


def test_an_error_is_a_type_error_and_a_misuse() -> None:
    from amends.contracts import UsageError

    assert issubclass(SagaDefinitionError, TypeError)
    assert issubclass(SagaDefinitionError, UsageError)


# what only looks wrong


def test_a_reply_that_is_imported_for_checkers_only_is_left_to_them() -> None:
    class P(Saga):
        @step(readonly=True)
        def ship(self) -> ShipOrder: ...
        @ship.on_success
        def ok(self, reply: Hidden) -> None: ...

    assert P.__definition__ is not None


def test_handlers_may_take_a_base_of_what_comes_or_leave_the_annotation_out() -> None:
    class P(Saga):
        @step(readonly=True)
        def pay(self) -> ChargeCard | ChargeWallet: ...
        @pay.on_success
        def ok(self, reply: Reply) -> None: ...
        @pay.on_rejection
        def no(self, no: object) -> Decision: ...
        @pay.on_failure
        def broke(self, failure, verbose=False): ...

    assert P.__definition__ is not None


def test_a_compensation_may_publish_instead_of_asking() -> None:
    class P(Saga):
        @step
        def reserve(self) -> ReserveStock: ...
        @reserve.compensation
        def undo(self) -> Publish: ...

    assert P.__definition__ is not None


def test_a_local_step_may_have_a_compensation() -> None:
    class P(Saga):
        x: int = 0

        @step
        def add(self) -> None: ...
        @add.compensation
        def subtract(self) -> None: ...

    assert P.__definition__ is not None
    assert P.__definition__.steps["add"].kind == "compensatable"


def test_decorators_under_step_are_seen_through() -> None:
    def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def call(*args: Any) -> Any:
            return fn(*args)

        return call

    class P(Saga):
        @step(readonly=True)
        @traced
        def pay(self) -> ChargeCard:
            return ChargeCard(amount=1)

    assert P.__definition__ is not None
    assert P.__definition__.steps["pay"].act(P()) == ChargeCard(amount=1)


def test_an_abstract_saga_need_not_obey_the_laws_of_a_whole_one() -> None:
    class Notifies(Saga, abstract=True):
        email: str

        @step(retriable=True, after="pay")
        def notify(self) -> ShipOrder: ...

    class P(Notifies):
        @step(pivot=True, after=())
        def pay(self) -> ChargeCard: ...

    assert Notifies.__definition__ is None
    assert P.__definition__ is not None
    assert list(P.__definition__.steps) == ["pay", "notify"]


def test_an_open_type_variable_is_no_command() -> None:
    C = TypeVar("C", bound=Command[Any, Any])

    with pytest.raises(SagaDefinitionError, match="returns C, which is nothing a step can do"):

        class P(Saga, Generic[C], abstract=True):
            @step(readonly=True)
            def go(self) -> C: ...


def test_events_may_be_shared_by_two_waits() -> None:
    class Happened(Event):
        n: int

    class P(Saga):
        @step
        def one(self) -> WaitFor[Happened]: ...
        @step
        def two(self) -> WaitFor[Happened]: ...

    assert P.__definition__ is not None
    assert P.__definition__.event_types() == {"happened.v1": Happened}
    assert WalletCharged.__tag__ == "wallet-charged.v1"
