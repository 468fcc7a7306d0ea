"""Mistakes in handlers are found where they are declared, with what is wrong and what to write instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
from tests.support.desk import Count, Release, Reserve, Reserved, SoldOut

from amends.contracts import Command, Event, Reply, UsageError
from amends.participants import Context, Participant, ParticipantDefinitionError

if TYPE_CHECKING:
    from tests.support.desk import Uncount


class Backordered(Reply):
    pass


class Order(Command[Reserved | Backordered], service="inventory"):
    pass


class Elsewhere(Command[Reserved], service="payments"):
    pass


class SameTag(Command[None], service="inventory", name="reserve"):
    pass


class Something(Event):
    pass


@pytest.fixture
def inventory() -> Participant:
    return Participant("inventory")


# what is accepted


async def test_handlers_stay_plain_functions(inventory: Participant) -> None:
    @inventory.action
    async def reserve(command: Reserve, ctx: Context) -> Reserved:
        return Reserved(reservation=ctx.idempotency_key)

    @inventory.action(Count)
    def count(command: Count) -> None:
        counted.append(command.sku)

    counted: list[str] = []
    count(Count(sku="lamp"))
    assert counted == ["lamp"]
    assert await reserve(Reserve(sku="lamp"), Context(effect_key="k")) == Reserved(reservation="k")


def test_handlers_are_known_by_the_tag_of_their_message(inventory: Participant) -> None:
    @inventory.action(Reserve, concurrency=3, timeout=1.5)
    async def reserve(command: Reserve) -> Reserved: ...

    @inventory.compensation
    def release(undo: Release, ctx: Context[Reserve]) -> None: ...

    assert set(inventory.handlers) == {Reserve.__tag__, Release.__tag__}
    acting, undoing = inventory.handlers[Reserve.__tag__], inventory.handlers[Release.__tag__]
    assert (acting.where, acting.asynchronous, acting.with_context, acting.compensates) == (
        "inventory.reserve",
        True,
        False,
        False,
    )
    assert (acting.concurrency, acting.timeout_s) == (3, 1.5)
    assert (undoing.asynchronous, undoing.with_context, undoing.compensates) == (False, True, True)


def test_handler_may_return_some_of_the_replies_that_are_promised(inventory: Participant) -> None:
    @inventory.action
    async def order(command: Order) -> Reserved | Backordered: ...

    @Participant("inventory").action
    async def order_always(command: Order) -> Backordered: ...


def test_context_may_be_optional(inventory: Participant) -> None:
    @inventory.action
    async def reserve(command: Reserve, ctx: Context | None = None) -> Reserved: ...

    assert inventory.handlers[Reserve.__tag__].with_context


def test_other_defaults_are_left_alone(inventory: Participant) -> None:
    @inventory.action(Reserve)
    async def reserve(command: Reserve, quantity: int = 3, *, dry: bool = False) -> Reserved: ...

    assert not inventory.handlers[Reserve.__tag__].with_context


def test_methods_and_wrapped_functions_may_be_handlers(inventory: Participant) -> None:
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Shelf:
        async def count(self, command: Count) -> None: ...

    @inventory.action
    @traced
    async def reserve(command: Reserve, ctx: Context) -> Reserved: ...

    inventory.action(Shelf().count)
    assert len(inventory.handlers) == 2


def test_types_of_the_enclosing_function_are_found(inventory: Participant) -> None:
    class Local(Command[Reserved], service="inventory"):
        pass

    @inventory.action
    async def bare(command: Local) -> Reserved: ...

    @Participant("inventory").action(Local, concurrency=1)
    async def named(command: Local) -> Reserved: ...

    assert Local.__tag__ in inventory.handlers


# what is not


def wrong_reply(command: Reserve) -> SoldOut: ...
def some_wrong_reply(command: Reserve) -> Reserved | None: ...
def no_return(command: Reserve): ...  # type: ignore[no-untyped-def]
def no_annotation(command) -> Reserved: ...  # type: ignore[no-untyped-def]
def no_message() -> Reserved: ...
def three_parameters(command: Reserve, ctx: Context, more: int) -> Reserved: ...
def keyword_only(command: Reserve, *, ctx: Context) -> Reserved: ...
def second_is_no_context(command: Reserve, ctx: int) -> Reserved: ...
def takes_an_event(event: Something) -> Reserved: ...
def takes_a_union(command: Reserve | Count) -> Reserved: ...
def takes_any_command(command: Command) -> Reserved: ...  # type: ignore[type-arg]
def of_another_service(command: Elsewhere) -> Reserved: ...
def undoing(undo: Release) -> None: ...
def acting(command: Reserve) -> Reserved: ...
def undo_that_replies(undo: Release) -> Reserved: ...
def unknown_annotation(undo: Uncount) -> None: ...


@pytest.mark.parametrize(
    ("decorator", "function", "says"),
    [
        ("action", wrong_reply, "returns SoldOut, but Reserve promises Reserved. Write -> Reserved"),
        ("action", some_wrong_reply, "returns Reserved | None, but Reserve promises Reserved"),
        ("action", no_return, "does not say what it returns. Write -> Reserved"),
        ("action", no_annotation, "'command' has no annotation. Annotate it with the Command"),
        ("action", no_message, "takes nothing. A handler takes its message, and a Context if it wants one"),
        ("action", three_parameters, "takes command, ctx, more. A handler takes its message"),
        ("action", keyword_only, "takes command, ctx. A handler takes its message"),
        ("action", second_is_no_context, "its second parameter 'ctx' is int. Annotate it with Context"),
        ("action", takes_an_event, "its first parameter 'event' is Something, no Command"),
        ("action", takes_a_union, "its first parameter 'command' is Reserve | Count, no Command"),
        ("action", takes_any_command, "its first parameter 'command' is Command, no Command. Annotate it with the one"),
        ("action", of_another_service, "Elsewhere belongs to service 'payments'. Move it to Participant(\"payments\")"),
        ("action", undoing, "Release is a Compensation, no Command. Decorate it with .compensation"),
        ("compensation", acting, "Reserve is a Command, no Compensation. Decorate it with .action"),
        ("compensation", undo_that_replies, "returns Reserved, but a compensation returns None. Write -> None"),
        ("compensation", unknown_annotation, "'Uncount' is not known at run time. Define or import Uncount"),
        ("action", "reserve", "is no function. Decorate a def or an async def"),
        ("action", functools.partial(acting), "Decorate a plain function"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistake_is_named_with_its_remedy(inventory: Participant, decorator: str, function: Any, says: str) -> None:
    with pytest.raises(ParticipantDefinitionError) as caught:
        getattr(inventory, decorator)(function)
    error = caught.value
    assert says in str(error)
    assert str(error) == f"{error.handler}: {error.problem}. {error.remedy}"
    assert error.handler.startswith("inventory.")
    assert getattr(function, "__name__", "") in error.handler
    assert not inventory.handlers


async def hanging(command: Reserve) -> Reserved: ...


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (hanging, {"transactional": True}, "is transactional and async. A transactional handler runs inside"),
        (acting, {"timeout": 3}, "has a timeout= and is not async"),
        (hanging, {"timeout": -1}, "timeout=-1 is negative"),
        (hanging, {"timeout": "soon"}, "timeout='soon' is no duration"),
        (hanging, {"concurrency": 0}, "concurrency=0 is no number of slots. Use 1 or more"),
        (hanging, {"concurrency": True}, "concurrency=True is no number of slots"),
        (hanging, {"retry": 5}, "retry=5 is no policy. Give a tenacity AsyncRetrying"),
    ],
)
def test_option_that_cannot_be_is_named(
    inventory: Participant, function: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ParticipantDefinitionError) as caught:
        inventory.action(Reserve, **options)(function)
    assert says in str(caught.value)


def test_unknown_option_is_refused(inventory: Participant) -> None:
    with pytest.raises(TypeError, match="concurency"):
        inventory.action(Reserve, concurency=3)(hanging)  # type: ignore[call-overload]


def test_named_and_annotated_command_must_be_the_same(inventory: Participant) -> None:
    with pytest.raises(ParticipantDefinitionError, match=r"is declared for Count, but takes Reserve\. Annotate"):
        inventory.action(Count)(acting)  # type: ignore[type-var]


def test_message_is_handled_once(inventory: Participant) -> None:
    inventory.action(acting)
    with pytest.raises(ParticipantDefinitionError, match=r"Reserve is already handled by inventory\.acting"):
        inventory.action(hanging)
    assert inventory.handlers[Reserve.__tag__].function is acting


def test_two_messages_with_one_tag_are_told_apart(inventory: Participant) -> None:
    inventory.action(acting)

    def same_tag(command: SameTag) -> None: ...

    with pytest.raises(ParticipantDefinitionError, match=r"SameTag has the tag 'inventory\.reserve\.v1' of Reserve"):
        inventory.action(same_tag)


def test_definition_error_is_a_usage_error(inventory: Participant) -> None:
    assert issubclass(ParticipantDefinitionError, UsageError)
    assert issubclass(ParticipantDefinitionError, TypeError)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"service": ""}, "name the service"),
        ({"service": None}, "name the service"),
        ({"concurrency": 0}, "at least 1"),
        ({"undo_concurrency": -1}, "at least 1"),
        ({"lease": 0}, "lease= must be longer"),
        ({"lease": "long"}, "lease='long' is no duration"),
        ({"skew": -1}, "skew=-1 is negative"),
    ],
)
def test_participant_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Participant(**{"service": "inventory", "retry": tenacity.AsyncRetrying()} | options)
