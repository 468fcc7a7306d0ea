"""The catalog finds classes by tag and takes no two for one."""

from datetime import UTC, datetime
from typing import Any

import pytest

from amends.contracts import (
    JSON,
    MSGPACK,
    Catalog,
    ContractError,
    DecodeError,
    Envelope,
    Event,
    Kind,
    Signal,
    UnknownTypeError,
)


class Placed(Event):
    order_id: str


class Approve(Signal):
    by: str


def another_placed() -> Any:
    class Placed(Event):
        id: int

    return Placed


def envelope(type: str, data: bytes, content_type: str = "application/json") -> Envelope:
    return Envelope(
        id="1",
        kind=Kind.EVENT,
        type=type,
        source="s",
        subject="x",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=data,
        content_type=content_type,
    )


def test_classes_are_found_by_their_tag() -> None:
    catalog = Catalog([Placed, Approve, Placed])
    assert catalog.type("placed.v1") is Placed
    assert ("approve.v1" in catalog, "other.v1" in catalog) == (True, False)
    assert (list(catalog), len(catalog)) == ([Placed, Approve], 2)


def test_two_classes_with_one_tag_are_refused() -> None:
    catalog = Catalog([Placed])
    with pytest.raises(ContractError) as caught:
        catalog.add(another_placed())
    assert caught.value.problem == f"has the tag 'placed.v1' of {__name__}.Placed"
    assert caught.value.remedy == "Give one of them another name= or version="
    assert catalog.type("placed.v1") is Placed


def test_an_unknown_tag_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownTypeError) as caught:
        Catalog([Placed, Approve]).type("paid.v1")
    assert (caught.value.type, caught.value.known) == ("paid.v1", ("placed.v1", "approve.v1"))
    assert str(caught.value) == "unknown message type 'paid.v1'; known here: approve.v1, placed.v1"


def test_an_envelope_is_read_by_its_type_and_content_type() -> None:
    catalog = Catalog([Placed])
    message = Placed(order_id="1")
    assert catalog.decode(envelope("placed.v1", JSON.encode(message))) == message
    assert catalog.decode(envelope("placed.v1", MSGPACK.encode(message), "application/msgpack")) == message
    with pytest.raises(UnknownTypeError):
        catalog.decode(envelope("approve.v1", b"{}"))
    with pytest.raises(DecodeError, match="missing required field `order_id`"):
        catalog.decode(envelope("placed.v1", b"{}"))
