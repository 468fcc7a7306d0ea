"""Annotations are taken apart, and shown as people write them."""

from typing import Any, ForwardRef, Generic, Optional, TypeVar, Union

import pytest

from amends.contracts import Command, Event, Reply
from amends.contracts.annotations import members, shown

T = TypeVar("T")


class Box(Generic[T]):
    pass


class Alias:
    """Looks like `type X = int | str` of newer Pythons."""

    __value__ = int | str


@pytest.mark.parametrize(
    ("annotation", "parts"),
    [
        (int, (int,)),
        (None, (type(None),)),
        (int | None, (int, type(None))),
        (Optional[int], (int, type(None))),  # noqa: UP045
        (Union[int, "Order"], (int, ForwardRef("Order"))),  # noqa: F821
        (Alias(), (int, str)),
        (Box[int], (Box[int],)),
        (Any, (Any,)),
    ],
)
def test_the_members_of_an_annotation(annotation: Any, parts: tuple[Any, ...]) -> None:
    assert members(annotation) == parts


class Done(Reply):
    pass


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (type(None), "None"),
        (int | None, "int | None"),
        (Box[int | str], "Box[int | str]"),
        (Box[Box[Any]], "Box[Box[Any]]"),
        (Command[Done, Any], "Command[Done, Any]"),
        (Event, "Event"),
        (T, "T"),
        (ForwardRef("Order"), "Order"),
        (3, "3"),
    ],
)
def test_an_annotation_is_shown_as_people_write_it(annotation: Any, text: str) -> None:
    assert shown(annotation) == text
